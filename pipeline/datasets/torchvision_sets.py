"""Published data sets by name, downloaded on first use by torchvision."""

from __future__ import annotations

import http.client
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import errors
from pipeline.datasets.records import Payload, Record
from pipeline.errors import UserError

_DIGITS = [str(digit) for digit in range(10)]

# What a download that fails can raise: URLError and timeouts are OSErrors, a wrong checksum or a
# missing `gdown` is a RuntimeError.
_FAILURES = (
    OSError,
    RuntimeError,
    EOFError,
    http.client.HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
)

Items = tuple[Any, Any]  # images (N arrays or paths) and labels (N) or None


def _mnist(dataset: Any) -> Items:
    return dataset.data.numpy(), dataset.targets.numpy()


def _channels_last(dataset: Any) -> Items:
    return dataset.data, dataset.targets


def _channels_first(dataset: Any) -> Items:
    return np.moveaxis(dataset.data, 1, 3), dataset.labels


def _celeba(dataset: Any) -> Items:
    folder = Path(dataset.root, dataset.base_folder, "img_align_celeba")
    return [folder / name for name in dataset.filename], None


@dataclass(frozen=True)
class PublishedSet:
    """How torchvision has it: the class, the arguments of each split, where the pixels are.

    `files` is the folder, below the download folder, of files that are put there by hand.
    `class_names`: None where the data set object carries them as `classes`.
    """

    torchvision_class: str
    splits: dict[str, dict[str, Any]]
    items: Callable[[Any], Items]
    files: str
    class_names: list[str] | None = None


class Torchvision:
    """A published set with its own test split; pixels are in memory (400 MB at most), or files."""

    def __init__(self, published: PublishedSet, datasets: dict[str, Any]) -> None:
        self._items = {split: published.items(dataset) for split, dataset in datasets.items()}
        labelled = all(labels is not None for _, labels in self._items.values())
        names = published.class_names or getattr(datasets["train"], "classes", None)
        self.class_names: list[str] | None = list(names) if labelled and names else None

    def __len__(self) -> int:
        return sum(len(images) for images, _ in self._items.values())

    def records(self) -> Iterator[Record]:
        for split, (images, labels) in self._items.items():
            for index in range(len(images)):
                payload: Payload = images[index]
                label = None if labels is None else int(labels[index])
                name = payload.name if isinstance(payload, Path) else f"{split}:{index}"
                yield Record(name, label, split, payload)


def open_set(name: str, cache: Path) -> Torchvision:
    """Open SETS[name], downloading it to `cache`/name where it is not there yet.

    Raises UserError where the download fails.
    """
    import torchvision.datasets
    from filelock import FileLock

    published = SETS[name]
    folder = cache / name
    folder.mkdir(parents=True, exist_ok=True)
    dataset_class = getattr(torchvision.datasets, published.torchvision_class)
    try:
        with FileLock(folder / ".lock"):  # queue workers share the folder
            datasets = {
                split: dataset_class(folder, download=True, **arguments)
                for split, arguments in published.splits.items()
            }
    except _FAILURES as error:
        if isinstance(error, OSError) and errors.explain(error):
            raise
        raise UserError(
            f"{name} could not be downloaded: {_first_line(error)}\n"
            f"Check the network and run the same command again, put its files into "
            f"{folder / published.files} by hand, or set data.source to mnist5k, which needs no "
            "download."
        ) from error
    return Torchvision(published, datasets)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_BY_FLAG = {"train": {"train": True}, "test": {"train": False}}
_BY_NAME = {"train": {"split": "train"}, "test": {"split": "test"}}

SETS = {
    "mnist": PublishedSet("MNIST", _BY_FLAG, _mnist, "MNIST/raw", _DIGITS),
    "fashion_mnist": PublishedSet("FashionMNIST", _BY_FLAG, _mnist, "FashionMNIST/raw"),
    "kmnist": PublishedSet("KMNIST", _BY_FLAG, _mnist, "KMNIST/raw"),
    "cifar10": PublishedSet("CIFAR10", _BY_FLAG, _channels_last, ""),
    "cifar100": PublishedSet("CIFAR100", _BY_FLAG, _channels_last, ""),
    "svhn": PublishedSet("SVHN", _BY_NAME, _channels_first, "", _DIGITS),
    "stl10": PublishedSet("STL10", _BY_NAME, _channels_first, ""),
    "celeba": PublishedSet(
        "CelebA",
        {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}},
        _celeba,
        "celeba",
    ),
}
