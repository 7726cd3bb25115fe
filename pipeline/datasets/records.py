"""What a source gives: a stream of records, each one image that is not decoded yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

SPLITS = ("train", "val", "test")

_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "t10k": "test",
}

Payload = bytes | Path | np.ndarray


@dataclass(frozen=True)
class Record:
    """One image of a source.

    `name` is what a person finds it by, and the same on every machine. `label` is an index into
    the source's `class_names`, None where it has no label. `split` is one of SPLITS where the
    source publishes it. `payload` is an encoded image (bytes or a file) or uint8 pixels, (H, W)
    or (H, W, C).
    """

    name: str
    label: int | None
    split: str | None
    payload: Payload


class Source(Protocol):
    """Images from one place. `class_names` is None where the images have no labels.

    `records` streams: it holds a few images at a time, and gives the same order at every call.
    """

    class_names: list[str] | None

    def __len__(self) -> int: ...

    def records(self) -> Iterator[Record]: ...


def split_of(name: str) -> str | None:
    """The split that a folder's, a file's or a column's word stands for, or None."""
    return _SPELLINGS.get(name.lower())
