"""Points in the plane as a picture, drawn with numpy alone."""

from __future__ import annotations

import numpy as np

SIZE = 480  # pixels
MARGIN = 0.15  # of the reals' extent, on each side
FAINT, STRONG = np.array([190, 196, 204]), np.array([0, 114, 178])
OPACITY = 0.45  # of one point


def scatter(fakes: np.ndarray, reals: np.ndarray, *, size: int = SIZE) -> np.ndarray:
    """Fakes (N, 2) in blue over faint reals (M, 2): uint8 (size, size, 3), y upwards.

    The reals set the frame; fakes beyond it are left out.
    """
    low, high = reals.min(axis=0), reals.max(axis=0)
    half = max(float((high - low).max()) / 2 * (1 + 2 * MARGIN), 1e-6)
    middle = (low + high) / 2
    picture = np.full((size, size, 3), 255.0)
    for points, colour in ((reals, FAINT), (fakes, STRONG)):
        ink = 1 - (1 - OPACITY) ** _counts(points, middle - half, 2 * half / size, size)
        picture += ink[:, :, None] * (colour - picture)
    return np.rint(picture).astype(np.uint8)


def _counts(points: np.ndarray, corner: np.ndarray, pixel: float, size: int) -> np.ndarray:
    """How many points (N, 2) cover each pixel (size, size): a point is a cross of five."""
    places = np.floor((points - corner) / pixel)
    inside = ((places >= 1) & (places < size - 1)).all(axis=1)
    columns, rows = places[inside].astype(np.int64).T
    counts = np.zeros((size, size))
    for right, down in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
        np.add.at(counts, (size - 1 - rows + down, columns + right), 1)
    return counts
