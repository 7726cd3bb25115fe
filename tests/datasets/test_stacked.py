"""Stacks of digits: made of their own split's digits alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.mnist5k import Mnist5k
from pipeline.datasets.records import Record
from pipeline.datasets.stacked import Stacks
from pipeline.errors import UserError

from .small_data import Listed


def numbered(n: int = 200) -> Mnist5k:
    """Digits of 2 x 2 pixels in which each picture has a number of its own; labels in turn."""
    pixels = np.zeros((n, 2, 2), np.uint8)
    pixels[:, 0, 0] = np.arange(n)
    return Mnist5k(pixels, np.arange(n) % 10)


def stacks(digits=None, draws: int = 1000, seed: int = 0) -> Stacks:
    return Stacks(digits or numbered(), draws=draws, val_fraction=0.1, test_fraction=0.2, seed=seed)


def test_labels_are_the_three_digits_in_order() -> None:
    for record in stacks().records():
        numbers = record.payload[0, 0].astype(int)  # type: ignore[index]
        a, b, c = numbers % 10
        assert record.label == 100 * a + 10 * b + c
        assert record.name.endswith("+".join(map(str, numbers)))


def test_no_digit_is_in_two_splits() -> None:
    seen: dict[str | None, set[int]] = {"train": set(), "val": set(), "test": set()}
    counts = dict.fromkeys(seen, 0)
    for record in stacks().records():
        seen[record.split] |= set(record.payload[0, 0].tolist())  # type: ignore[index]
        counts[record.split] += 1
    assert counts == {"train": 700, "val": 100, "test": 200}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]
    assert len(seen["train"]) == 140  # each of the split's digits is drawn


def test_published_splits_of_the_digits_are_kept() -> None:
    pixels = numbered(100).images
    records = [
        Record(str(i), i % 10, "test" if i >= 80 else "train", pixels[i]) for i in range(100)
    ]
    for record in stacks(Listed(records, list("0123456789"))).records():
        numbers = record.payload[0, 0]  # type: ignore[index]
        assert (numbers >= 80).all() if record.split == "test" else (numbers < 80).all()


def test_the_stream_is_the_same_at_every_call_and_a_function_of_the_seed() -> None:
    def names(source: Stacks) -> list[str]:
        return [record.name for record in source.records()]

    source = stacks()
    assert len(source) == len(names(source)) == 1000
    assert names(source) == names(source) == names(stacks())
    assert names(source) != names(stacks(seed=1))


def test_other_than_gray_pictures_of_ten_classes_are_refused() -> None:
    colour = [Record(str(i), i % 10, None, np.zeros((2, 2, 3), np.uint8)) for i in range(50)]
    with pytest.raises(UserError, match="no gray picture"):
        stacks(Listed(colour, list("0123456789")))
    with pytest.raises(UserError, match="ten classes"):
        stacks(Listed(colour, ["a", "b"]))
