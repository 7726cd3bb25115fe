from __future__ import annotations

import numpy as np

from pipeline.datasets import duplicates


def test_equal_images_are_grouped_and_counted() -> None:
    names = "abcaaxyx"
    digests = b"".join(duplicates.digest(letter.encode()) for letter in names)
    splits = {"train": np.array([4, 1, 0, 3]), "val": np.array([2, 6]), "test": np.array([5, 7])}
    found = duplicates.find(digests, splits)
    groups = {
        duplicates.digest(k.encode()).hex(): v
        for k, v in {
            "a": [("train", 0), ("train", 2), ("train", 3)],
            "x": [("test", 0), ("test", 1)],
        }.items()
    }
    assert found.groups == groups
    assert found.within == {"train": 2, "val": 0, "test": 1}
    assert found.across == {"train/val": 0, "train/test": 0, "val/test": 0}


def test_an_image_in_two_splits_counts_once_across() -> None:
    digests = duplicates.digest(b"a") * 5
    splits = {"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3, 4])}
    found = duplicates.find(digests, splits)
    assert found.within == {"train": 1, "val": 0, "test": 1}
    assert found.across == {"train/val": 1, "train/test": 1, "val/test": 1}


def test_digests_that_end_in_zero_bytes_are_told_apart() -> None:
    digests = bytes(16) + b"\1" + bytes(15) + b"\1" + bytes(14) + b"\1"
    empty = np.array([], np.int64)
    found = duplicates.find(digests, {"train": np.arange(3), "val": empty, "test": empty})
    assert found.groups == {}
