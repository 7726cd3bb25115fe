"""Grids of images, written with Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.files import atomic_file


def grid(images: np.ndarray, columns: int, *, gap: int = 2, background: int = 255) -> np.ndarray:
    """uint8 (N, H, W, C) -> one uint8 (H', W', C) picture, row by row, `columns` to a row."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    picture = np.full(shape, background, np.uint8)
    for i, image in enumerate(images):
        top = gap + i // columns * (height + gap)
        left = gap + i % columns * (width + gap)
        picture[top : top + height, left : left + width] = image
    return picture


def one_class_a_row(
    images: np.ndarray, labels: np.ndarray, columns: int = 10, rows: int = 10
) -> np.ndarray:
    """The first images (N, H, W, C) of each class, `columns` a class, of at most `rows` classes.

    A class that has fewer is filled up with white ones.
    """
    parts = []
    for label in np.unique(labels)[:rows]:
        row = images[labels == label][:columns]
        parts += [row, np.full((columns - len(row), *images.shape[1:]), 255, images.dtype)]
    return np.concatenate(parts)


def save_grid(path: Path, images: np.ndarray, columns: int) -> None:
    """Write a grid as PNG; images below 64 pixels are enlarged so that a person sees them."""
    scale = max(1, 64 // images.shape[1])
    save_png(path, grid(images, columns).repeat(scale, axis=0).repeat(scale, axis=1))


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 1 or 3) as PNG, atomically."""
    from PIL import Image

    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    with atomic_file(path) as fresh:
        image.save(fresh, format="PNG")
