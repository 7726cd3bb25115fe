"""Nearest-neighbour metrics, computed in blocks: memory grows with N, not with its square."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

BLOCK = 2048


def precision_recall(real: np.ndarray, fake: np.ndarray, *, k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Features (N, d) and (M, d), with N and M above k. All lie in 0..1 but density, which has no
    upper bound. They move with N and M: compare only figures of equal numbers.
    """
    real, fake = _centred(real, fake)
    real_radii, fake_radii = radii(real, k=k), radii(fake, k=k)
    inside_real = np.zeros(len(fake), np.int64)  # in how many reals' balls a fake lies
    recalled = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for rows, squares in _blocks(real, fake):
        inside = squares <= real_radii[rows, None]
        inside_real += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (squares <= fake_radii).any(axis=1)
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
    fake, real = _centred(fake[:n], real[:n])
    of_fakes, of_reals = (np.median(np.sqrt(radii(x, k=1))) for x in (fake, real))
    return float(of_fakes / max(of_reals, np.finfo(np.float32).tiny))


def dup_rate(images: np.ndarray) -> float:
    """Share of images, uint8 (N, ...), that repeat an earlier one exactly."""
    digests = {hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in images}
    return 1 - len(digests) / len(images)


def radii(features: np.ndarray, *, k: int) -> np.ndarray:
    """Squared distance (N,) from each row to its k-th nearest other row."""
    result = np.empty(len(features), features.dtype)
    for rows, squares in _blocks(features, features):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf
        result[rows] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return result


def _centred(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float32, moved so that |x|² + |y|² - 2xy cancels little."""
    mean = a.mean(axis=0)
    return (a - mean).astype(np.float32), (b - mean).astype(np.float32)


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of a's rows, each with the squared distances (rows, len(b)) from them to b."""
    b_norms = np.einsum("nd,nd->n", b, b)
    for start in range(0, len(a), BLOCK):
        rows = slice(start, min(start + BLOCK, len(a)))
        block = a[rows]
        squares = block @ (-2 * b.T)
        squares += np.einsum("nd,nd->n", block, block)[:, None]
        squares += b_norms
        yield rows, np.maximum(squares, 0, out=squares)
