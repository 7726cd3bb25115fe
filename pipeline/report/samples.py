"""Which images the page shows: chosen by position and seed, never by looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.grids import grid
from pipeline.sampling import generate, latents

COLUMNS = 10
MOST_ROWS = 20
SHOWN_SIZE = 128  # pixels at which an image is shown at most
SHOWN_PLOT = 240  # pixels of a scatter plot among others
GRID_GAP = 2  # of pipeline.grids.grid
NEAREST = 3
# Multiplications that a search for neighbours may take: about a second.
WORK = 2e10


class Sampler:
    """The evaluated samples made again: those of `seed`, with the labels that were asked for."""

    def __init__(
        self, generator: nn.Module, *, n: int, seed: int, labels: np.ndarray | None
    ) -> None:
        self.generator, self.labels, self.seed = generator, labels, seed
        self.latents = latents(n, generator.latent_dim, seed)  # type: ignore[arg-type]

    def __call__(self, chosen: np.ndarray) -> np.ndarray:
        """Images uint8 (n, H, W, C) of the samples at positions `chosen` (n,)."""
        labels = None if self.labels is None else self.labels[chosen]
        return generate(self.generator, self.latents[torch.from_numpy(chosen)], labels)

    def interpolations(self, rows: int, columns: int = COLUMNS) -> np.ndarray:
        """Images (rows * columns, H, W, C): in each row from one latent vector to another.

        A row keeps its class, that of its place (row i: the i-th class that was asked for).
        """
        ends = latents(2 * rows, self.generator.latent_dim, self.seed + 1)  # type: ignore[arg-type]
        paths = [slerp(ends[2 * i], ends[2 * i + 1], columns) for i in range(rows)]
        return generate(self.generator, torch.cat(paths), self.row_labels(rows, columns))

    def row_labels(self, rows: int, columns: int = 1) -> np.ndarray | None:
        """The class of each interpolated image; None where classes are not asked for."""
        if self.labels is None:
            return None
        classes = np.unique(self.labels)
        return np.repeat(classes[np.arange(rows) % len(classes)], columns)


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Vectors (steps, d) from `start` (d,) to `end` on the arc between them (Shoemake 1985).

    On a straight line the middle would be nearer to 0 than a normal vector ever is.
    """
    t = torch.linspace(0, 1, steps)[:, None]
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
    return (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)


def rows_by_class(labels: np.ndarray, columns: int) -> dict[int, np.ndarray]:
    """Positions of the first `columns` images of each class, of the first 20 classes at most."""
    classes = np.unique(labels)[:MOST_ROWS]
    return {int(k): np.flatnonzero(labels == k)[:columns] for k in classes}


def one_a_class(labels: np.ndarray | None, n: int, total: int) -> np.ndarray:
    """`n` positions: the first of each class, then the second, ...; without labels the first n."""
    if labels is None:
        return np.arange(min(n, total))
    rank = np.zeros(total, np.int64)
    for label in np.unique(labels):
        here = labels == label
        rank[here] = np.arange(here.sum())
    return np.lexsort((labels, rank))[:n]


def rows_picture(rows: list[np.ndarray], columns: int) -> np.ndarray:
    """Rows of images (n <= columns, H, W, C) as one picture; a short row ends white."""
    filled = []
    for row in rows:
        blank = np.full((columns - len(row), *row.shape[1:]), 255, np.uint8)
        filled += [row, blank]
    return grid(np.concatenate(filled), columns)


def fit(images: np.ndarray) -> np.ndarray:
    """Images (n, H, W, C) at the size at which they are shown: whole pixels larger, or smaller."""
    from PIL import Image

    size = images.shape[1]
    if size <= SHOWN_SIZE:
        factor = max(1, round(80 / size))
        return images.repeat(factor, axis=1).repeat(factor, axis=2)
    modes = {1: "L", 3: "RGB"}
    shape = (len(images), SHOWN_SIZE, SHOWN_SIZE, images.shape[3])
    shrunk = [
        np.asarray(
            Image.fromarray(image.squeeze(), modes[images.shape[3]]).resize((SHOWN_SIZE,) * 2)
        )
        for image in images
    ]
    return np.stack(shrunk).reshape(shape)


def shrunk(path: Path, size: int) -> np.ndarray:
    """A square picture from a file, uint8 (size, size, 3)."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size, size)))


def moments(folder: Path, n: int) -> list[tuple[int, Path]]:
    """Step and file of `n` of the grids of fixed latents, the early ones closer in time."""
    found = sorted((int(path.stem.removeprefix("step_")), path) for path in folder.glob("step_*"))
    if not found:
        return []
    chosen = np.unique(np.geomspace(1, len(found), min(n, len(found))).round().astype(int) - 1)
    return [found[i] for i in chosen]


def strip(path: Path, image_size: int, n: int = COLUMNS) -> np.ndarray:
    """The first `n` images (n, H, W, C) of a grid of training, column by column.

    With one class a row these are n classes before a second image of any.
    """
    from PIL import Image

    with Image.open(path) as image:
        picture = np.atleast_3d(np.asarray(image))
    cell = image_size + GRID_GAP
    scale = picture.shape[1] // (COLUMNS * cell + GRID_GAP)
    picture = picture[::scale, ::scale]
    rows = (picture.shape[0] - GRID_GAP) // cell
    corners = [
        (GRID_GAP + row * cell, GRID_GAP + column * cell)
        for column in range(COLUMNS)
        for row in range(rows)
    ]
    return np.stack([picture[y : y + image_size, x : x + image_size] for y, x in corners[:n]])


def nearest(queries: np.ndarray, references: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and distances (n, k) of the k rows of `references` nearest to each query (n, d)."""
    found = np.concatenate(
        [block.argpartition(k - 1, axis=1)[:, :k] for block in _squares(queries, references)]
    )
    # Once more for the few that were found, without the cancellation.
    offsets = references[found.ravel()].reshape(*found.shape, -1) - queries[:, None]
    distances = np.linalg.norm(offsets, axis=2)
    order = distances.argsort(axis=1, kind="stable")
    return np.take_along_axis(found, order, 1), np.take_along_axis(distances, order, 1)


def nearest_distance(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Distance (n,) from each query (n, d) to its nearest row of `references`."""
    blocks = [block.min(axis=1) for block in _squares(queries, references)]
    return np.sqrt(np.maximum(np.concatenate(blocks), 0))


def _squares(queries: np.ndarray, references: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances (rows, len(references)) of the queries, a block of them at a time."""
    mean = references.mean(axis=0)
    references = (references - mean).astype(np.float32)
    queries = (queries - mean).astype(np.float32)
    norms = np.einsum("nd,nd->n", references, references)
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256]
        squares = block @ (-2 * references.T)
        squares += norms
        squares += np.einsum("nd,nd->n", block, block)[:, None]
        yield squares


def first_rows(features: np.ndarray, references: np.ndarray) -> np.ndarray:
    """So many of the first rows of `features` as a search among `references` does quickly."""
    return features[: max(100, int(WORK / references.size))]
