"""Small data sets in their real formats, made on the spot."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.records import Record

FORM = {
    "image_size": 8,
    "channels": 1,
    "fit": "crop",
    "resize_filter": "lanczos",
    "background": 255,
}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray, image_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format, **options)
    return stream.getvalue()


def write_image(path: Path, seed: int, *shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(*(shape or (8, 8)), seed=seed)).save(path)


def write_idx(path: Path, array: np.ndarray) -> None:
    data = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


class Listed:
    """A source of the given records."""

    def __init__(self, records: list[Record], class_names: list[str] | None = None) -> None:
        self._records, self.class_names = records, class_names

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> Iterator[Record]:
        yield from self._records


def gray(count: int, classes: int = 2, split: str | None = None, seed: int = 0) -> Listed:
    """`count` 8x8 noise images, their labels 0, 1, ... in turn."""
    pixels = noise(count, 8, 8, seed=seed)
    records = [Record(f"{split}:{i}", i % classes, split, pixels[i]) for i in range(count)]
    return Listed(records, [f"class {label}" for label in range(classes)])
