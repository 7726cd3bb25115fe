"""Exact nearest neighbours between large sets of long rows, such as images' pixels.

Rows longer than `SHORT` are compared in two steps. First in `AXES` principal axes of the base, with
the length of what these leave out as one more coordinate: by the triangle inequality, a distance
there is never more than the true one. Then only pairs whose bound lies below the best distance
found so far are measured in full. What comes out is exact; only the time depends on the axes.

All searches of an audit, 10,000 mirrored images and 10,000 held-out ones against 50,000 of CIFAR-10
as JPEG (3,072 numbers each), took 11 CPU-seconds of one Xeon core; docs/metrics_peers.md has the
same for made-up images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AXES = 192
SHORT = 256
# Rows that the axes are fitted to, and numbers of a block of bounds (64 MB).
FITTED, BLOCK = 4000, 1 << 24
# Pairs measured at once, and the share of a block from which one multiplication of whole rows is
# cheaper than pair by pair.
PAIRS, TOO_MANY = 1024, 1 / 50
# Bounds are lowered by this share of the squared lengths, which exceeds what float32 rounds away.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Axes:
    """Mean (D,) and orthonormal axes (D, k) of a set; axes None: the rows are short."""

    mean: np.ndarray
    axes: np.ndarray | None


@dataclass(frozen=True)
class Points:
    """Rows (N, D) as they were given, and their coordinates (N, k + 1), float32."""

    rows: np.ndarray
    coordinates: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> Points:
        """Those of the given indices."""
        return Points(self.rows[indices], self.coordinates[indices])


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance (N,) from each row of a (N, ...) to its nearest row of b (M, ...), and
    that row's index (N,). Numbers are taken as they are, of any type; rows are flattened."""
    axes = fit(b)
    return search(place(a, axes), place(b, axes))


def fit(base: np.ndarray, *, seed: int = 0) -> Axes:
    """Principal axes of rows (M, ...), nearly: of some of them, by subspace iteration."""
    base = _flat(base)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(base), min(len(base), FITTED), replace=False))
    some = base[chosen]
    mean = some.mean(axis=0)
    if base.shape[1] <= SHORT:
        return Axes(mean, None)
    some = (some - mean).astype(np.float32)
    axes = rng.normal(size=(base.shape[1], AXES))
    for _ in range(3):
        # In float64, or the axes would not be orthonormal enough to bound anything.
        axes = np.linalg.qr(axes)[0]
        last, axes = axes, (some.T @ (some @ axes.astype(np.float32))).astype(np.float64)
    return Axes(mean, last.astype(np.float32))


def place(rows: np.ndarray, axes: Axes) -> Points:
    """The rows (N, ...) with their coordinates."""
    rows = _flat(rows)
    width = rows.shape[1] if axes.axes is None else axes.axes.shape[1]
    coordinates = np.zeros((len(rows), width + 1), np.float32)
    for start in range(0, len(rows), PAIRS):
        block = slice(start, start + PAIRS)
        centred = (rows[block] - axes.mean).astype(np.float32)
        if axes.axes is None:
            coordinates[block, :-1] = centred
            continue
        inside = centred @ axes.axes
        rest = _squares(centred) - _squares(inside)
        coordinates[block, :-1] = inside
        coordinates[block, -1] = np.sqrt(np.maximum(rest, 0))
    return Points(rows, coordinates)


def search(a: Points, b: Points) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` of points placed on the same axes. Memory beside the points: some 200 MB."""
    distances, indices = np.empty(len(a), np.float32), np.empty(len(a), np.int64)
    # Stored the way it is read, and one buffer: a fresh one costs as much as a quarter of the sums.
    base = np.ascontiguousarray(_as_base(b.coordinates).T)
    height = max(1, BLOCK // len(b))
    buffer = np.empty((min(height, len(a)), len(b)), np.float32)
    for start in range(0, len(a), height):
        block = slice(start, min(start + height, len(a)))
        query = _as_query(a.coordinates[block])
        bounds = np.matmul(query, base, out=buffer[: len(query)])
        distances[block], indices[block] = _refine(a.rows[block], b.rows, bounds)
    return np.sqrt(distances), indices


def _refine(a: np.ndarray, b: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squared distances (N,) and their indices from lower bounds (N, M) on all of them."""
    index = bounds.argmin(axis=1)
    best = _between(a, b, np.arange(len(a)), index)
    open_ = bounds < best[:, None]
    if np.count_nonzero(open_) > TOO_MANY * open_.size:
        _bound_by_whole_rows(a, b, bounds)
        open_ = bounds < best[:, None]
    rows, columns = np.divmod(np.flatnonzero(open_), len(b))
    bound = bounds[rows, columns]
    # The most promising first: each distance found spares others.
    order = bound.argsort()
    for start in range(0, len(order), PAIRS):
        pairs = order[start : start + PAIRS]
        pairs = pairs[bound[pairs] < best[rows[pairs]]]
        squares = _between(a, b, rows[pairs], columns[pairs])
        # Of several pairs of a row the last assigned stays: the nearest.
        pairs, squares = pairs[squares.argsort()[::-1]], np.sort(squares)[::-1]
        nearer = squares < best[rows[pairs]]
        best[rows[pairs[nearer]]] = squares[nearer]
        index[rows[pairs[nearer]]] = columns[pairs[nearer]]
    return best, index


def _bound_by_whole_rows(a: np.ndarray, b: np.ndarray, bounds: np.ndarray) -> None:
    """Put bounds that only rounding keeps below the squared distances into `bounds` (N, M)."""
    mean = a.mean(axis=0)
    query = _as_query((a - mean).astype(np.float32))
    for start in range(0, len(b), PAIRS):
        block = slice(start, start + PAIRS)
        bounds[:, block] = query @ _as_base((b[block] - mean).astype(np.float32)).T


def _as_query(x: np.ndarray) -> np.ndarray:
    """With `_as_base`, squared distances as one product: [-2x, |x|², 1] . [y, 1, |y|²]."""
    lengths = (1 - ROUNDING) * _squares(x)
    return np.concatenate([-2 * x, lengths[:, None], np.ones((len(x), 1), x.dtype)], axis=1)


def _as_base(y: np.ndarray) -> np.ndarray:
    lengths = (1 - ROUNDING) * _squares(y)
    return np.concatenate([y, np.ones((len(y), 1), y.dtype), lengths[:, None]], axis=1)


def _between(a: np.ndarray, b: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Squared distances of a[rows] to b[columns], pair by pair."""
    exact = np.result_type(a, b, np.float32)
    result = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), PAIRS):
        block = slice(start, start + PAIRS)
        # The type is named because a difference of uint8 would wrap around.
        difference = np.subtract(a[rows[block]], b[columns[block]], dtype=exact)
        result[block] = _squares(difference)
    return result


def _squares(x: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", x, x)


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)
