"""Nearest-neighbour metrics, computed in tiles: memory grows with N, not with its square."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from pipeline.metrics.intervals import wilson

# A tile of float32 distances is 1 MB: it stays in a core's cache between the passes over it.
BLOCK = 512

_COUNT_AND_NUMBER = np.stack([np.ones(BLOCK, np.float32), np.arange(BLOCK, dtype=np.float32)])


def precision_recall(
    real: np.ndarray, fake: np.ndarray, *, k: int = 5, intervals: bool = False
) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Features (N, d) and (M, d), with N and M above k. All lie in 0..1 but density, which has no
    upper bound. They move with N and M: compare only figures of equal numbers. Beside the features
    it holds a float32 copy of them and little more.

    `intervals` adds *_ci_low and *_ci_high of precision, recall and coverage: they hold the mean
    over redraws of both sets, at these N and M, in 95% of cases or more. Density has none: no cheap
    one kept its promise.
    """
    mean = real.mean(axis=0)
    real_points, fake_points = _points(real, mean), _points(fake, mean)
    real_radii, fake_radii = _radii(real_points, k), _radii(fake_points, k)
    hits = {
        "precision": _Hits(len(fake), len(real)),
        "recall": _Hits(len(real), len(fake)),
        "coverage": _Hits(len(real), len(fake)),
    }
    for rows, columns, squares in _tiles(real_points, fake_points):
        in_real_ball = (squares <= real_radii[rows, None]).astype(np.float32)
        hits["precision"].add(columns, rows, in_real_ball.T)
        hits["coverage"].add(rows, columns, in_real_ball)
        hits["recall"].add(rows, columns, (squares <= fake_radii[columns]).astype(np.float32))
    result = {
        "precision": hits["precision"].share(),
        "recall": hits["recall"].share(),
        "density": float(hits["precision"].counts.mean() / k),
        "coverage": hits["coverage"].share(),
    }
    if intervals:
        for name, of_name in hits.items():
            result[f"{name}_ci_low"], result[f"{name}_ci_high"] = of_name.interval()
    return result


class _Hits:
    """How often each of n points is hit by others, and by which where it is only one."""

    def __init__(self, n: int, n_others: int) -> None:
        self.counts = np.zeros(n, np.int64)
        self._numbers = np.zeros(n, np.int64)  # sum of those of the others that hit
        self._n_others = n_others

    def add(self, points: slice, others: slice, hit: np.ndarray) -> None:
        """Take in a tile of 0 and 1, float32: a product counts faster than a sum of booleans."""
        counts, numbers = _COUNT_AND_NUMBER[:, : hit.shape[1]] @ hit.T
        counts = counts.astype(np.int64)
        self.counts[points] += counts
        self._numbers[points] += others.start * counts + numbers.astype(np.int64)

    def share(self) -> float:
        """Share of points hit at least once."""
        return float((self.counts > 0).mean())

    def interval(self) -> tuple[float, float]:
        """Wilson's for `share`, with as many trials as the variance of both sets leaves.

        That of the points is a share's, p (1 - p) / n. That of the others is at most the sum of
        squares of what `share` loses without each of them in turn (Efron and Stein 1981): its sole
        hits. What their going would change in the radii is left out.
        """
        n, share = len(self.counts), self.share()
        sole = np.bincount(self._numbers[self.counts == 1], minlength=self._n_others) / n
        own = share * (1 - share) / n
        trials = n / (1 + np.sum(sole**2) / own) if own > 0 else n
        return wilson(share * trials, trials)


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
