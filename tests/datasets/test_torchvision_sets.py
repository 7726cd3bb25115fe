"""The published sets, read by torchvision itself from small files in the real formats.

Checksums are set to those of the small files. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import open_source
from pipeline.datasets.images import decode
from pipeline.datasets.records import Source
from pipeline.errors import UserError

from .small_data import FORM, noise, write_idx, write_image

NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture
def sets():
    import torchvision.datasets

    return torchvision.datasets


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def opened(name: str, cache: Path) -> Source:
    return open_source(name, path=cache / "unused", cache=cache)


def check(source: Source, pixels: dict[str, np.ndarray], labels: dict[str, list[int]]) -> None:
    records = list(source.records())
    assert len(source) == len(records)
    for split, expected in pixels.items():
        own = [record for record in records if record.split == split]
        assert (np.stack([record.payload for record in own]) == expected).all()
        assert [record.label for record in own] == labels[split]


@pytest.mark.parametrize(
    ("name", "folder", "first"),
    [
        ("mnist", "MNIST", "0"),
        ("fashion_mnist", "FashionMNIST", "T-shirt/top"),
        ("kmnist", "KMNIST", "o"),
    ],
)
def test_mnist_and_its_relatives(tmp_path: Path, name: str, folder: str, first: str) -> None:
    pixels = {"train": noise(6, 28, 28), "test": noise(3, 28, 28, seed=1)}
    labels = {"train": [5, 0, 4, 1, 9, 2], "test": [7, 2, 1]}
    raw = tmp_path / name / folder / "raw"
    for split, prefix in (("train", "train"), ("test", "t10k")):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels[split])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.array(labels[split], np.uint8))
    source = opened(name, tmp_path)
    check(source, pixels, labels)
    assert len(source.class_names) == 10
    assert source.class_names[0] == first


@pytest.mark.parametrize(("name", "key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_cifar(tmp_path: Path, sets, monkeypatch, name: str, key: str) -> None:
    dataset = getattr(sets, name.upper())
    folder = tmp_path / name / dataset.base_folder
    folder.mkdir(parents=True)
    meta_key = dataset.meta["key"]
    meta = folder / dataset.meta["filename"]
    meta.write_bytes(pickle.dumps({meta_key: ["ant", "bee", "cow"]}))
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5(meta)})
    pixels, labels = {}, {}
    for split in ("train", "test"):
        parts, numbers, listed = [], [], []
        for seed, (file, _) in enumerate(getattr(dataset, f"{split}_list")):
            part = noise(2, 32, 32, 3, seed=seed)
            flat = np.moveaxis(part, 3, 1).reshape(2, -1)
            (folder / file).write_bytes(pickle.dumps({"data": flat, key: [1, 2]}))
            parts.append(part)
            numbers += [1, 2]
            listed.append([file, md5(folder / file)])
        monkeypatch.setattr(dataset, f"{split}_list", listed)
        pixels[split], labels[split] = np.concatenate(parts), numbers
    source = opened(name, tmp_path)
    check(source, pixels, labels)
    assert source.class_names == ["ant", "bee", "cow"]


def test_svhn(tmp_path: Path, sets, monkeypatch) -> None:
    from scipy.io import savemat

    pixels = {"train": noise(4, 32, 32, 3), "test": noise(2, 32, 32, 3, seed=1)}
    stored = {"train": [10, 1, 9, 10], "test": [3, 10]}  # the file calls the digit 0 ten
    (tmp_path / "svhn").mkdir()
    listed = {}
    for split, images in pixels.items():
        file = tmp_path / "svhn" / f"{split}_32x32.mat"
        savemat(file, {"X": np.moveaxis(images, 0, 3), "y": np.array(stored[split])[:, None]})
        listed[split] = [NOWHERE, file.name, md5(file)]
    monkeypatch.setattr(sets.SVHN, "split_list", listed)
    source = opened("svhn", tmp_path)
    check(source, pixels, {"train": [0, 1, 9, 0], "test": [3, 0]})
    assert source.class_names == list("0123456789")


def test_stl10(tmp_path: Path, sets, monkeypatch) -> None:
    folder = tmp_path / "stl10" / sets.STL10.base_folder
    folder.mkdir(parents=True)
    pixels = {"train": noise(3, 96, 96, 3), "test": noise(2, 96, 96, 3, seed=1)}
    labels = {"train": [0, 1, 2], "test": [2, 0]}
    for split, images in pixels.items():
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 3, 2, 1).tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes(label + 1 for label in labels[split]))
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\n")
    for attribute in ("train_list", "test_list"):
        files = [[file, md5(folder / file)] for file, _ in getattr(sets.STL10, attribute)]
        monkeypatch.setattr(sets.STL10, attribute, files)
    source = opened("stl10", tmp_path)
    check(source, pixels, labels)
    assert source.class_names == ["airplane", "bird", "car"]


def test_celeba_has_three_splits_and_no_labels(tmp_path: Path, sets, monkeypatch) -> None:
    folder = tmp_path / "celeba" / "celeba"
    names = [f"{i:06}.jpg" for i in range(1, 7)]
    for seed, name in enumerate(names):
        write_image(folder / "img_align_celeba" / name, seed, 218, 178, 3)
    numbers = {"list_attr_celeba.txt": "1 -1", "list_bbox_celeba.txt": "1 2 3 4",
               "list_landmarks_align_celeba.txt": "1 2"}  # fmt: skip
    for file, row in numbers.items():
        lines = ["6", "first second", *(f"{name} {row}" for name in names)]
        (folder / file).write_text("\n".join(lines) + "\n")
    (folder / "identity_CelebA.txt").write_text("".join(f"{name} 7\n" for name in names))
    partition = zip(names, (0, 0, 1, 1, 2, 2), strict=True)
    (folder / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in partition))
    files = [
        (drive, md5(folder / file) if file.endswith(".txt") else checksum, file)
        for drive, checksum, file in sets.CelebA.file_list
    ]
    monkeypatch.setattr(sets.CelebA, "file_list", files)
    source = opened("celeba", tmp_path)
    assert source.class_names is None
    records = list(source.records())
    assert [r.name for r in records] == names
    assert [r.split for r in records] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert {r.label for r in records} == {None}
    assert decode(records[0].payload, **FORM).shape == (8, 8, 1)


def test_a_failed_download_says_what_to_do(tmp_path: Path, sets, monkeypatch) -> None:
    monkeypatch.setattr(sets.MNIST, "mirrors", [NOWHERE])
    with pytest.raises(UserError) as caught:
        opened("mnist", tmp_path)
    message = str(caught.value)
    assert "mnist could not be downloaded" in message
    assert str(tmp_path / "mnist" / "MNIST" / "raw") in message
    assert "mnist5k" in message
    monkeypatch.setattr(sets.CIFAR10, "url", NOWHERE)
    with pytest.raises(UserError, match="cifar10 could not be downloaded"):
        opened("cifar10", tmp_path)
