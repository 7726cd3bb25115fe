from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.idx import Idx, open_idx
from pipeline.errors import UserError

from .small_data import noise, write_idx


def opened(path: Path) -> Idx:
    return open_idx(path, path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files(tmp_path: Path, suffix: str) -> None:
    train, test = noise(12, 6, 5), noise(4, 6, 5, seed=1)
    write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", train)
    write_idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", np.arange(12, dtype=np.uint8) % 3)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", test)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", np.array([0, 1, 2, 0], np.uint8))
    source = opened(tmp_path)
    records = list(source.records())
    assert len(source) == len(records) == 16
    assert [r.split for r in records] == ["test"] * 4 + ["train"] * 12
    assert (np.stack([r.payload for r in records]) == np.concatenate([test, train])).all()
    assert [r.label for r in records[4:]] == [0, 1, 2] * 4
    assert source.class_names == ["0", "1", "2"]


def test_emnist_names_and_labels_that_do_not_start_at_zero(tmp_path: Path) -> None:
    write_idx(tmp_path / "emnist-letters-train-images-idx3-ubyte", noise(4, 3, 3))
    write_idx(
        tmp_path / "emnist-letters-train-labels-idx1-ubyte", np.array([1, 26, 5, 1], np.uint8)
    )
    source = opened(tmp_path)
    assert source.class_names == ["1", "5", "26"]
    assert [(r.label, r.split) for r in source.records()] == [
        (0, "train"), (2, "train"), (1, "train"), (0, "train"),
    ]  # fmt: skip


def test_of_a_file_and_its_gz_one_is_read(tmp_path: Path) -> None:
    for suffix in ("", ".gz"):
        write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", noise(4, 3, 3))
    assert len(opened(tmp_path)) == 4


@pytest.mark.parametrize("first", [False, True])
def test_colour_with_channels_last_or_first(tmp_path: Path, first: bool) -> None:
    pixels = noise(5, 7, 6, 3)
    stored = np.moveaxis(pixels, 3, 1) if first else pixels
    write_idx(tmp_path / "images-idx4-ubyte", np.ascontiguousarray(stored))
    source = opened(tmp_path)
    assert source.class_names is None
    assert (np.stack([r.payload for r in source.records()]) == pixels).all()
    assert {(r.label, r.split) for r in source.records()} == {(None, None)}


def test_broken_files_are_named(tmp_path: Path) -> None:
    def refused(pattern: str) -> None:
        with pytest.raises(UserError, match=pattern) as caught:
            list(opened(tmp_path).records())
        assert "train-" in str(caught.value)

    file = tmp_path / "train-images-idx3-ubyte"
    write_idx(file, noise(4, 3, 3))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refused("cut short")
    file.write_bytes(whole[:7])
    refused("cut short")
    file.write_bytes(whole + b"x")
    refused("longer than its header")
    file.write_bytes(b"\x89PNG" + whole)
    refused("no idx file")
    file.write_bytes(b"\0\0\x0d\x03" + whole[4:])
    refused("no idx file of bytes")
    file.write_bytes(whole)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(3, np.uint8))
    refused("3 labels for the 4 images")
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros((4, 3, 3), np.uint8))
    refused("a file of labels has one")


def test_a_broken_gz_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(file, noise(400, 9, 9))
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"nonsense", whole[:3000] + b"??????" + whole[3006:]):
        file.write_bytes(data)
        with pytest.raises(UserError, match="train-images"):
            list(opened(tmp_path).records())


def test_a_shape_that_is_no_image_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx4-ubyte", noise(4, 5, 6, 7))
    with pytest.raises(UserError, match=r"has shape \(4, 5, 6, 7\)"):
        opened(tmp_path)


def test_two_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("emnist-letters", "emnist-digits"):
        write_idx(tmp_path / f"{name}-train-images-idx3-ubyte", noise(4, 3, 3))
    with pytest.raises(UserError, match="two files for the same split"):
        opened(tmp_path)
