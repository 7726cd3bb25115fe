"""Data sets: sources of images, and the prepared arrays that every later stage reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.datasets.folder import open_folder
from pipeline.datasets.idx import open_idx
from pipeline.datasets.mnist5k import open_mnist5k
from pipeline.datasets.parquet import open_parquet
from pipeline.datasets.records import Source
from pipeline.datasets.torchvision_sets import open_set
from pipeline.errors import ConfigError


def open_source(name: str, *, path: Path, cache: Path) -> Source:
    """The source SOURCES[name]. `path`: the user's own images. `cache`: a folder for downloads.

    Raises ConfigError for an unknown name, UserError where the images are not there.
    """
    if name not in SOURCES:
        raise ConfigError(f"unknown source {name!r}; choose from {list(SOURCES)}")
    return SOURCES[name](path, cache)


def _published(name: str) -> Callable[[Path, Path], Source]:
    return lambda path, cache: open_set(name, cache)


SOURCES: dict[str, Callable[[Path, Path], Source]] = {
    "mnist5k": open_mnist5k,
    "mnist": _published("mnist"),
    "fashion_mnist": _published("fashion_mnist"),
    "kmnist": _published("kmnist"),
    "cifar10": _published("cifar10"),
    "cifar100": _published("cifar100"),
    "svhn": _published("svhn"),
    "stl10": _published("stl10"),
    "celeba": _published("celeba"),
    "folder": open_folder,
    "parquet": open_parquet,
    "idx": open_idx,
}
