"""The prepared data as every later stage reads it (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, paths
from pipeline.errors import UserError

FEWEST_REALS = 20  # of a split by which samples are judged


class Unfit(UserError):
    """The prepared data are too few, or the recipe does not go with them."""

    everywhere = True


def check_enough(n: int) -> None:
    """Raises Unfit where samples cannot be judged by a split of so many reals."""
    if n < FEWEST_REALS:
        raise Unfit(
            f"samples cannot be judged by {n} real images, only by {FEWEST_REALS} or more: raise "
            "data.val_fraction and data.test_fraction, or add images"
        )


@dataclass(frozen=True)
class Split:
    """Samples of one split, memory-mapped; labels int64 (N,), or None.

    Images are uint8 (N, H, W, C), points float32 (N, D).

    The order is random and fixed, so the first n images are a fair sample of the split.
    """

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def points(self) -> bool:
        """Whether these are points in place of images."""
        return self.images.ndim == 2


@dataclass(frozen=True)
class Prepared:
    """A prepared data set. `manifest` is its manifest.json, `digest` names its content.

    `image_size` and `channels` are an image's; points have none.
    """

    manifest: dict[str, Any]
    path: Path

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def image_size(self) -> int:
        return int(self.manifest["image_size"])

    @property
    def channels(self) -> int:
        return int(self.manifest["channels"])

    @property
    def points(self) -> bool:
        """Whether the samples are points of a mixture in place of images."""
        return bool(self.manifest["kind"] == "points")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (H, W, C), or (D,) of a point."""
        if self.points:
            return tuple(self.manifest["shape"])
        return (self.image_size, self.image_size, self.channels)

    @property
    def class_names(self) -> list[str] | None:
        """By class index; None without labels."""
        names: list[str] | None = self.manifest["class_names"]
        return names

    @property
    def n_classes(self) -> int:
        """0 without labels."""
        return len(self.class_names or [])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    def split(self, name: str) -> Split:
        """`name`: train, val or test."""
        labels = None
        if self.class_names is not None:
            labels = np.load(self.path / f"{name}_labels.npy")
        return Split(np.load(self.path / f"{name}.npy", mmap_mode="r"), labels)


def load(path: Path = paths.PREPARED) -> Prepared:
    """Open the prepared data at `path`. Raises UserError where there is none."""
    manifest = path / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"{path} has no prepared data: run `dvc repro prepare` first")
    return Prepared(files.read_json(manifest), path)
