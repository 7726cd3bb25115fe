from __future__ import annotations

import csv
import hashlib
import json
import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import prepared
from pipeline.datasets.prepare import prepare
from pipeline.datasets.records import Record
from pipeline.errors import UserError

from .small_data import FORM, Listed, encoded, gray, noise


def run(source, out: Path, **changes) -> dict:
    arguments = {
        "name": "made",
        "source_name": "folder",
        **FORM,
        "max_refused": 0.01,
        "val_fraction": 0.1,
        "test_fraction": 0.2,
        "split_seed": 0,
    }
    return prepare(source, out=out, **{**arguments, **changes})


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_what_the_source_gave(tmp_path: Path) -> None:
    source = gray(100, classes=4)
    manifest = run(source, tmp_path / "out")
    data = prepared.load(tmp_path / "out")
    assert (data.name, data.image_size, data.channels, data.n_classes) == ("made", 8, 1, 4)
    assert data.manifest == manifest
    given = sorted((r.payload.tobytes(), r.label) for r in source.records())
    stored = []
    for name, n in (("train", 70), ("val", 10), ("test", 20)):
        split = data.split(name)
        assert len(split) == n
        assert isinstance(split.images, np.memmap)
        assert (split.images.shape, split.images.dtype) == ((n, 8, 8, 1), np.uint8)
        assert split.labels.dtype == np.int64
        stored += [(i.tobytes(), int(k)) for i, k in zip(split.images, split.labels, strict=True)]
        entry = manifest["splits"][name]
        assert entry["sha256"] == hashlib.sha256(split.images.tobytes()).hexdigest()
        assert entry["labels_sha256"] == hashlib.sha256(split.labels.tobytes()).hexdigest()
        assert entry["class_counts"] == np.bincount(split.labels).tolist()
    assert sorted(stored) == given
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "duplicates.csv", "manifest.json", "refused.csv", "test.npy", "test_labels.npy",
        "train.npy", "train_labels.npy", "val.npy", "val_labels.npy",
    ]  # fmt: skip


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for out in ("a", "b"):
        run(gray(60), tmp_path / out)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_seed_filter_and_pixels_each_change_the_digest(tmp_path: Path) -> None:
    large = [Record(str(i), i % 2, None, noise(20, 20, seed=i)) for i in range(40)]
    source = Listed(large, ["a", "b"])
    plain = run(source, tmp_path / "out")
    assert run(source, tmp_path / "out")["digest"] == plain["digest"]
    other = [
        run(source, tmp_path / "out", split_seed=1),
        run(source, tmp_path / "out", resize_filter="box"),
        run(Listed(large[::-1], ["a", "b"]), tmp_path / "out"),
    ]
    assert plain["digest"] not in {manifest["digest"] for manifest in other}


def test_colour_without_labels(tmp_path: Path) -> None:
    records = [Record(str(i), None, None, encoded(noise(9, 12, 3, seed=i))) for i in range(20)]
    manifest = run(Listed(records), tmp_path / "out", channels=3)
    assert manifest["class_names"] is None
    assert manifest["splits"]["train"]["labels_sha256"] is None
    split = prepared.load(tmp_path / "out").split("train")
    assert split.images.shape == (14, 8, 8, 3)
    assert split.labels is None


def test_one_class_counts_as_unlabelled(tmp_path: Path) -> None:
    assert run(gray(20, classes=1), tmp_path / "out")["class_names"] is None


def test_published_splits_are_kept(tmp_path: Path) -> None:
    both = [*gray(50, split="train").records(), *gray(30, split="test", seed=1).records()]
    manifest = run(Listed(both, ["a", "b"]), tmp_path / "out")
    assert {k: v["n"] for k, v in manifest["splits"].items()} == {"train": 45, "val": 5, "test": 30}
    published = {r.payload.tobytes() for r in both if r.split == "test"}
    images = prepared.load(tmp_path / "out").split("test").images
    assert {image.tobytes() for image in images} == published


def test_a_few_bad_files_are_refused_with_their_reasons(tmp_path: Path, caplog) -> None:
    records = list(gray(100).records())
    records[3] = Record("cut.png", 0, None, encoded(noise(64, 64))[:500])
    records[50] = Record("empty.png", 1, None, b"")
    manifest = run(Listed(records, ["a", "b"]), tmp_path / "out", max_refused=0.02)
    assert manifest["refused"] == 2
    assert sum(entry["n"] for entry in manifest["splits"].values()) == 98
    rows = read_csv(tmp_path / "out" / "refused.csv")
    assert [row["file"] for row in rows] == ["cut.png", "empty.png"]
    assert all(row["reason"] for row in rows)
    assert "2 files refused" in caplog.text


def test_too_many_bad_files_stop_it_and_leave_the_old_set(tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    run(gray(60), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    records = list(gray(100).records())
    for i in range(15):
        records[i] = Record(f"bad{i}.png", 0, None, b"no image")
    with pytest.raises(UserError) as caught:
        run(Listed(records, ["a", "b"]), out)
    message = str(caught.value)
    for part in ("15 of 100", "15.00%", "bad0.png", "bad9.png", "5 more", "data.max_refused",
                 "refused.csv", "dvc checkout"):  # fmt: skip
        assert part in message
    assert "bad10.png" not in message
    assert len(read_csv(tmp_path / "refused.csv")) == 15
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared", "refused.csv"]
    run(gray(60), out)
    assert not (tmp_path / "refused.csv").exists()


def test_duplicates_are_listed_where_they_are(tmp_path: Path, caplog) -> None:
    train = list(gray(40, split="train").records())
    train.append(Record("twin", 0, "train", train[0].payload))
    test = list(gray(10, split="test", seed=1).records())
    test.append(Record("leak", 1, "test", train[7].payload))
    with caplog.at_level(logging.INFO):
        manifest = run(Listed([*train, *test], ["a", "b"]), tmp_path / "out", val_fraction=0.05)
    counts = manifest["duplicates"]
    assert sum(counts["within"].values()) + sum(counts["across"].values()) == 2
    rows = read_csv(tmp_path / "out" / "duplicates.csv")
    assert {row["name"] for row in rows} == {"train:0", "twin", "train:7", "leak"}
    data = prepared.load(tmp_path / "out")
    for row in rows:
        image = data.split(row["split"]).images[int(row["index"])]
        assert hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() == row["digest"]
    (record,) = [r for r in caplog.records if "duplicates" in r.message]
    assert record.levelno == logging.WARNING


def test_a_class_without_an_image_in_train_is_named(tmp_path: Path) -> None:
    source = gray(40)
    source.class_names = ["cat", "dog", "heron"]
    with pytest.raises(UserError, match="train for the class 'heron'"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_images_for_three_splits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few images"):
        run(gray(3), tmp_path / "out")
    with pytest.raises(UserError, match="no image is left for train"):
        run(gray(30, split="test"), tmp_path / "out")
    with pytest.raises(UserError, match="no image at all"):
        run(Listed([]), tmp_path / "out")


def test_labels_for_some_images_only_are_refused(tmp_path: Path) -> None:
    records = [*gray(30).records(), Record("stray", None, None, noise(8, 8))]
    with pytest.raises(UserError, match=r"1 of 31 images have no label \(such as stray\)"):
        run(Listed(records, ["a", "b"]), tmp_path / "out")


class Large:
    """40 MB of pixels that never exist at once."""

    class_names = None

    def __len__(self) -> int:
        return 2500

    def records(self) -> Iterator[Record]:
        for i in range(len(self)):
            pixels = np.full((128, 128, 1), i % 251, np.uint8)
            pixels[0, :2, 0] = i // 256, i % 256
            yield Record(str(i), None, None, pixels)


def test_memory_stays_flat(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    run(Large(), tmp_path / "warm-up", image_size=8)  # imports, Pillow's plugins
    tracemalloc.start()
    try:
        manifest = run(Large(), tmp_path / "out", image_size=128)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert manifest["splits"]["train"]["n"] == 1750
    assert peak < 20 * 2**20


def test_the_manifest_is_plain_json_without_dates_or_paths(tmp_path: Path) -> None:
    run(gray(40), tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["background"] == 255


def test_missing_prepared_data_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro prepare"):
        prepared.load(tmp_path / "nothing")
