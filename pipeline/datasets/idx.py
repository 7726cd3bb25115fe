"""Folders of idx files, the format of MNIST and its relatives (EMNIST, KMNIST, ...)."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.datasets.records import Record, split_of
from pipeline.errors import UserError

_NAME = re.compile(r"(?P<prefix>.*?)[-_.]?(?P<what>images|labels)[-_.]?idx\d[-_.]ubyte", re.I)
_UBYTE = 0x08


@dataclass(frozen=True)
class _Pair:
    """An images file and its labels, (N,) indices into the class names."""

    images: Path
    split: str | None
    shape: tuple[int, ...]
    labels: np.ndarray | None


class Idx:
    """Images of every `*images-idx?-ubyte[.gz]` file with the labels of the file named alike.

    A prefix that ends in train, val, test or t10k (`emnist-digits-train-images-...`) is the split.
    """

    def __init__(self, root: Path) -> None:
        files = _files(root)
        images = {prefix: file for (prefix, what), file in files.items() if what == "images"}
        labels = {prefix: file for (prefix, what), file in files.items() if what == "labels"}
        if not images:
            raise UserError(
                f"{root} has no idx file of images (such as train-images-idx3-ubyte.gz). "
                "Put them there, or set data.path to their folder."
            )
        raw = {prefix: _read_labels(file) for prefix, file in labels.items() if prefix in images}
        values = np.unique(np.concatenate([*raw.values(), np.empty(0, np.uint8)]))
        self.class_names: list[str] | None = [str(value) for value in values] if raw else None
        self._pairs: list[_Pair] = []
        for prefix, file in sorted(images.items()):
            shape = _image_shape(file)
            found = np.searchsorted(values, raw[prefix]) if prefix in raw else None
            if found is not None and len(found) != shape[0]:
                raise UserError(
                    f"{labels[prefix]} has {len(found)} labels for the {shape[0]} images of "
                    f"{file.name}: one of the two is the wrong file. Get both again."
                )
            self._pairs.append(_Pair(file, _split(prefix), shape, found))
        _refuse_two_sets(self._pairs)

    def __len__(self) -> int:
        return sum(pair.shape[0] for pair in self._pairs)

    def records(self) -> Iterator[Record]:
        for pair in self._pairs:
            for index, image in enumerate(_read_images(pair.images, pair.shape)):
                label = None if pair.labels is None else int(pair.labels[index])
                yield Record(f"{pair.images.name}:{index}", label, pair.split, image)


def open_idx(path: Path, cache: Path) -> Idx:
    """Open the folder `path`; `cache` is not used.

    Raises UserError where the folder is missing, holds no images, or a file's header is broken.
    """
    if not path.is_dir():
        raise UserError(
            f"{path} is not a folder. Put the idx files into a folder and set data.path to it."
        )
    return Idx(path)


def _files(root: Path) -> dict[tuple[str, str], Path]:
    """By (prefix, "images" or "labels"). Of a file and its .gz the unpacked one counts."""
    found: dict[tuple[str, str], Path] = {}
    for file in sorted(root.rglob("*"), reverse=True):
        match = _NAME.fullmatch(file.name.removesuffix(".gz"))
        if match and file.is_file():
            folder = file.parent.relative_to(root)
            prefix = (folder / match["prefix"]).as_posix()
            found[prefix, match["what"].lower()] = file
    return found


def _split(prefix: str) -> str | None:
    return split_of(re.split(r"[-_./]", prefix)[-1])


def _refuse_two_sets(pairs: list[_Pair]) -> None:
    seen: dict[str | None, Path] = {}
    for pair in pairs:
        if pair.split in seen:
            raise UserError(
                f"two files for the same split: {seen[pair.split]} and {pair.images}. "
                "Keep one data set in the folder."
            )
        seen[pair.split] = pair.images


def _open(file: Path) -> BinaryIO:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _image_shape(file: Path) -> tuple[int, ...]:
    """(N, H, W), (N, H, W, C) or (N, C, H, W)."""
    with closing(_open(file)) as stream:
        shape = _header(stream, file)
    if len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3))):
        return shape
    raise UserError(
        f"{file} has shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3."
    )


def _header(stream: BinaryIO, file: Path) -> tuple[int, ...]:
    """The array's shape: two zero bytes, the type, the number of axes, then a size for each."""
    magic = _exactly(stream, 4, file)
    if magic[:2] != b"\0\0" or magic[2] != _UBYTE or magic[3] not in (1, 3, 4):
        raise UserError(
            f"{file} is no idx file of bytes with 1, 3 or 4 axes (it starts with {magic.hex()}). "
            "Get it again, or take it out of the folder."
        )
    sizes = np.frombuffer(_exactly(stream, 4 * magic[3], file), ">u4")
    return tuple(int(size) for size in sizes)


def _read(stream: BinaryIO, count: int, file: Path) -> bytes:
    try:
        return stream.read(count)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{file} is broken ({error}). Get it again.") from error


def _exactly(stream: BinaryIO, count: int, file: Path) -> bytes:
    data = _read(stream, count, file)
    if len(data) != count:
        raise UserError(f"{file} is cut short: it says that more follows. Get it again.")
    return data


def _read_labels(file: Path) -> np.ndarray:
    with closing(_open(file)) as stream:
        shape = _header(stream, file)
        if len(shape) != 1:
            raise UserError(f"{file} has {len(shape)} axes; a file of labels has one.")
        return np.frombuffer(_exactly(stream, shape[0], file), np.uint8)


def _read_images(file: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    axes = shape[1:]
    channels_first = len(axes) == 3 and axes[2] not in (1, 3)
    with closing(_open(file)) as stream:
        _header(stream, file)
        for _ in range(shape[0]):
            pixels = np.frombuffer(_exactly(stream, math.prod(axes), file), np.uint8)
            image = pixels.reshape(axes)
            yield np.moveaxis(image, 0, 2) if channels_first else image
        if _read(stream, 1, file):  # also compares a gz file's checksum
            raise UserError(f"{file} is longer than its header says. Get it again.")
