"""Nearest-neighbour metrics, computed in tiles: memory grows with N, not with its square."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np

from pipeline.metrics.intervals import wilson

# A tile of float32 distances is 1 MB: it stays in a core's cache between the passes over it.
BLOCK = 512
# Random splits behind an interval, and the most rows of a half: enough for a variance.
SPLITS, HALF = 10, 2000
STUDENT = 2.228  # Student's t with as many degrees of freedom as there are splits
FIGURES = ("precision", "recall", "density", "coverage")


def precision_recall(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Features (N, d) and (M, d), with N and M above k. All lie in 0..1 but density, which has no
    upper bound. They move with N and M: compare only figures of equal numbers. Beside the features
    it holds a float32 copy of them and little more.
    """
    return _figures(real, fake, k=k, k_density=k)


def _figures(real: np.ndarray, fake: np.ndarray, *, k: int, k_density: int) -> dict[str, float]:
    """The four, density by balls to the `k_density`-th neighbour, which is at most k."""
    mean = real.mean(axis=0)
    real_points, fake_points = _points(real, mean), _points(fake, mean)
    nearest = _nearest(real_points, k)
    real_radii, fake_radii = _largest(nearest), _largest(_nearest(fake_points, k))
    density_radii = real_radii
    if k_density < k:
        density_radii = _largest(np.sort(nearest, axis=1)[:, :k_density])
    balls = 0  # all fakes in all reals' balls
    near = np.zeros(len(fake), bool)
    recalled = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for rows, columns, squares in _tiles(real_points, fake_points):
        inside = squares <= real_radii[rows, None]
        near[columns] |= inside.any(axis=0)
        covered[rows] |= inside.any(axis=1)
        recalled[rows] |= (squares <= fake_radii[columns]).any(axis=1)
        if k_density < k:
            inside = squares <= density_radii[rows, None]
        balls += int(np.count_nonzero(inside))
    return {
        "precision": float(near.mean()),
        "recall": float(recalled.mean()),
        "density": float(balls / (k_density * len(fake))),
        "coverage": float(covered.mean()),
    }


def precision_recall_intervals(
    real: np.ndarray, fake: np.ndarray, *, k: int = 5, seed: int = 0
) -> dict[str, float]:
    """`precision_recall` and 95% intervals of its four figures, as *_ci_low and *_ci_high.

    They are for a figure's mean over redraws of both sets at these N and M. Below some 5 k rows of
    each mode they hold less often; with 4 k rows or fewer there are none.

    Both sets are split at random into halves, ten times: how far the figure of one half is from
    that of the other tells the variance at half the number, which is twice that at the whole. (A
    bootstrap is of no use here: its repeated rows would be each other's neighbours.) The three
    shares have Wilson's interval with as many trials as that variance amounts to; density, which
    grows with N where features have many dimensions, has one of its logarithm, by how far the
    halves differ as a share of their mean. Time: six times that of the figures for up to 4,000
    rows, twice for 10,000.
    """
    figures = precision_recall(real, fake, k=k)
    if min(len(real), len(fake)) <= 4 * k:
        return figures
    values, share = _of_halves(real, fake, k=k, seed=seed)
    # The variance goes as 1 / N.
    variances = share * np.mean((values[:, 0] - values[:, 1]) ** 2, axis=0) / 2
    result = dict(figures)
    for name, variance, of_half in zip(FIGURES, variances, values.mean((0, 1)), strict=True):
        if name == "density":
            factor = np.exp(STUDENT * np.sqrt(variance) / max(of_half, np.finfo(float).tiny))
            low, high = figures[name] / factor, figures[name] * factor
        else:
            certain = variance == 0 or figures[name] in (0, 1)
            trials = min(len(real), len(fake)) if certain else of_half * (1 - of_half) / variance
            low, high = wilson(figures[name] * trials, trials, z=STUDENT)
        result |= {f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}
    return result


def _of_halves(
    real: np.ndarray, fake: np.ndarray, *, k: int, seed: int
) -> tuple[np.ndarray, float]:
    """Figures (splits, 2, 4) of disjoint random parts, and their share of each set."""
    share = min(0.5, HALF / max(len(real), len(fake)))
    # With k neighbours a part's balls are wider than those of the whole, and the parts' densities
    # differ too little (intervals held 91% of the time); with share * k they are as wide, but a
    # ball of one or two neighbours is noise (up to 100%). In between 93 to 99%.
    k_density = math.ceil(k / 2)
    rng = np.random.default_rng(seed)
    values = np.empty((SPLITS, 2, len(FIGURES)))
    for i in range(SPLITS):
        orders = [rng.permutation(len(x)) for x in (real, fake)]
        for part in range(2):
            parts = (
                x[order[part * size : (part + 1) * size]]
                for x, order in zip((real, fake), orders, strict=True)
                for size in [int(share * len(x))]
            )
            figures = _figures(*parts, k=k, k_density=k_density)
            values[i, part] = [figures[name] for name in FIGURES]
    return values, share


def selfnn_ratio(fake: np.ndarray, real: np.ndarray, *, of_reals: float | None = None) -> float:
    """Median nearest-neighbour distance among fakes over that among reals: 1 is ideal, 0 collapse.

    The larger set is cut to the size of the smaller, since the distance shrinks with N. `of_reals`,
    `median_nearest` of all reals, spares half of the work where there are as many fakes or more.
    """
    n = min(len(fake), len(real))
    if of_reals is None or n < len(real):
        of_reals = median_nearest(real[:n])
    return median_nearest(fake[:n]) / max(of_reals, float(np.finfo(np.float32).tiny))


def median_nearest(features: np.ndarray) -> float:
    """Median distance from a row of (N, d) to its nearest other row."""
    return float(np.median(np.sqrt(radii(features, k=1))))


def selfnn_interval(fake: np.ndarray, real: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Low and high end of a 95% interval around `selfnn_ratio`, by the same halves as the others.

    Of features (N, d), (M, d) with N and M of 8 or more.
    """
    n = min(len(fake), len(real))
    size = min(n // 2, HALF)
    rng = np.random.default_rng(seed)
    squares = []
    for _ in range(SPLITS):
        fakes, reals = (rng.permutation(n)[: 2 * size].reshape(2, size) for _ in range(2))
        first, second = (selfnn_ratio(fake[fakes[i]], real[reals[i]]) for i in range(2))
        squares.append((first - second) ** 2)
    figure = selfnn_ratio(fake, real)
    half = STUDENT * float(np.sqrt(size / n * np.mean(squares) / 2))
    return max(figure - half, 0.0), figure + half


def dup_rate(images: np.ndarray) -> float:
    """Share of images, uint8 (N, ...), that repeat an earlier one exactly."""
    digests = {hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images}
    return 1 - len(digests) / len(images)


def radii(features: np.ndarray, *, k: int) -> np.ndarray:
    """Squared distance (N,), float32, from each row of (N, d) to its k-th nearest other row."""
    return _largest(_nearest(_points(features, features.mean(axis=0)), k))


def _largest(nearest: np.ndarray) -> np.ndarray:
    return np.maximum(nearest.max(axis=1), 0)  # rounding can take a distance of 0 below it


def _nearest(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distances (N, k), in no order, from each point to its k nearest others."""
    nearest = np.full((len(points), k), np.nan, np.float32)  # NaN: none seen yet, sorts last
    for rows, columns, squares in _tiles(points, points, upper=True):
        if rows == columns:
            np.fill_diagonal(squares, np.inf)
        else:
            _keep_least(nearest[columns], squares.T)
        _keep_least(nearest[rows], squares)
    return nearest


def _keep_least(nearest: np.ndarray, squares: np.ndarray) -> None:
    """Update `nearest` (n, k), the least seen in each row, by the rows of `squares` (n, m)."""
    k = nearest.shape[1]
    if k == 1:  # a third of the time
        least = squares.min(axis=1)
        if np.isnan(least).any():
            least = np.fmin.reduce(squares, axis=1)  # slower, and passes over what is no number
        np.fmin(nearest[:, 0], least, out=nearest[:, 0])
        return
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
    A tile is there until the next one takes its memory: fresh memory would cost as much again.
    """
    d = a.shape[1] - 2
    buffer = np.empty(BLOCK * BLOCK, np.float32)
    for i in range(0, len(a), BLOCK):
        left = -2 * a[i : i + BLOCK]
        left[:, d], left[:, d + 1] = a[i : i + BLOCK, d + 1], 1
        rows = slice(i, i + len(left))
        for j in range(i if upper else 0, len(b), BLOCK):
            columns = slice(j, min(j + BLOCK, len(b)))
            right = b[columns]
            tile = buffer[: len(left) * len(right)].reshape(len(left), len(right))
            yield rows, columns, np.matmul(left, right.T, out=tile)
