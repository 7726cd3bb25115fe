"""Nearest-neighbour metrics, computed in tiles: memory grows with N, not with its square."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

# A tile of float32 distances is 1 MB: it stays in a core's cache between the passes over it.
BLOCK = 512


def precision_recall(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Features (N, d) and (M, d), with N and M above k. All lie in 0..1 but density, which has no
    upper bound. They move with N and M: compare only figures of equal numbers. Beside the features
    it holds a float32 copy of them and little more.
    """
    mean = real.mean(axis=0)
    real_points, fake_points = _points(real, mean), _points(fake, mean)
    real_radii, fake_radii = _radii(real_points, k), _radii(fake_points, k)
    inside_real = np.zeros(len(fake), np.int64)  # in how many reals' balls a fake lies
    recalled = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for rows, columns, squares in _tiles(real_points, fake_points):
        inside = squares <= real_radii[rows, None]
        # Four times as fast as the sum of booleans.
        inside_real[columns] += inside.view(np.uint8).sum(axis=0, dtype=np.uint16)
        covered[rows] |= inside.any(axis=1)
        recalled[rows] |= (squares <= fake_radii[columns]).any(axis=1)
    return {
        "precision": float((inside_real > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside_real.mean() / k),
        "coverage": float(covered.mean()),
    }


def selfnn_ratio(fake: np.ndarray, real: np.ndarray) -> float:
    """Median nearest-neighbour distance among fakes over that among reals: 1 is ideal, 0 collapse.

    The larger set is cut to the size of the smaller, since the distance shrinks with N.
    """
    n = min(len(fake), len(real))
    of_fakes, of_reals = (np.median(np.sqrt(radii(x[:n], k=1))) for x in (fake, real))
    return float(of_fakes / max(of_reals, np.finfo(np.float32).tiny))


def dup_rate(images: np.ndarray) -> float:
    """Share of images, uint8 (N, ...), that repeat an earlier one exactly."""
    digests = {hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images}
    return 1 - len(digests) / len(images)


def radii(features: np.ndarray, *, k: int) -> np.ndarray:
    """Squared distance (N,), float32, from each row of (N, d) to its k-th nearest other row."""
    return _radii(_points(features, features.mean(axis=0)), k)


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    nearest = np.full((len(points), k), np.nan, np.float32)  # NaN: none seen yet, sorts last
    for rows, columns, squares in _tiles(points, points, upper=True):
        if rows == columns:
            np.fill_diagonal(squares, np.inf)
        else:
            _keep_least(nearest[columns], squares.T)
        _keep_least(nearest[rows], squares)
    return np.maximum(nearest.max(axis=1), 0)  # rounding can take a distance of 0 below it


def _keep_least(nearest: np.ndarray, squares: np.ndarray) -> None:
    """Update `nearest` (n, k), the least seen in each row, by the rows of `squares` (n, m)."""
    k = nearest.shape[1]
    # Most rows have nothing nearer in most tiles. Negated, so that a NaN counts as a change.
    changed = ~(squares.min(axis=1) >= nearest.max(axis=1))
    candidates = np.concatenate([nearest[changed], squares[changed]], axis=1)
    candidates.partition(k - 1, axis=1)
    nearest[changed] = candidates[:, :k]


def _points(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows (x, 1, |x|²) in float32, x less the mean so that |x|² + |y|² - 2xy cancels little."""
    n, d = features.shape
    points = np.ones((n, d + 2), np.float32)
    x = np.subtract(features, mean, out=points[:, :d])
    np.einsum("nd,nd->n", x, x, out=points[:, d + 1])
    return points


def _tiles(
    a: np.ndarray, b: np.ndarray, *, upper: bool = False
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Squared distances between `_points` a and b: rows of a, rows of b, tile (rows, columns).

    `upper`: only the tiles on and above the diagonal. The norms are two columns of the product,
    (-2x, |x|², 1)(y, 1, |y|²), which saves the passes over each tile that adding them would cost.
    """
    d = a.shape[1] - 2
    for i in range(0, len(a), BLOCK):
        left = -2 * a[i : i + BLOCK]
        left[:, d], left[:, d + 1] = a[i : i + BLOCK, d + 1], 1
        rows = slice(i, i + len(left))
        for j in range(i if upper else 0, len(b), BLOCK):
            yield rows, slice(j, min(j + BLOCK, len(b))), left @ b[j : j + BLOCK].T
