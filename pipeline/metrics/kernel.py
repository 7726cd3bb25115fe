"""Kernel distance (Bińkowski et al. 2018) with the cubic kernel.

Same subsets and figures as torch-fidelity's, whose import and loop would take half of the time of
an evaluation; tests hold this to it.
"""

from __future__ import annotations

import numpy as np

# Rows of a kernel matrix that stay in a core's cache between the passes over them.
BLOCK = 32


def kid(
    a: np.ndarray,
    b: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> float:
    """Mean unbiased squared MMD over random subsets of two sets of features (N, d), (M, d).

    About 0, either sign, for equal distributions. A set smaller than `subset_size` cuts it.
    """
    size = min(subset_size, len(a), len(b))
    a, b = _scaled(a.astype(np.float32, copy=False)), _scaled(b.astype(np.float32, copy=False))
    # One piece of memory for all subsets: fresh pages would cost as much as what is done in them.
    chosen = np.empty((2, size, a.shape[1]), np.float32)
    products = np.empty((size, size), np.float32)
    rng = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        for x, part in zip((a, b), chosen, strict=True):
            np.take(x, rng.choice(len(x), size, replace=False), axis=0, out=part, mode="clip")
        values[i] = _mmd2(chosen[0], chosen[1], products)
    return float(values.mean())


def kid_se(a: np.ndarray, b: np.ndarray, *, blocks: int = 10) -> float:
    """Standard error of the kernel distance, from its spread over disjoint blocks of both sets.

    The spread over `kid`'s subsets would not do: they overlap, the more the smaller the sets.
    """
    size_a, size_b = len(a) // blocks, len(b) // blocks
    values = [
        mmd2(a[i * size_a : (i + 1) * size_a], b[i * size_b : (i + 1) * size_b])
        for i in range(blocks)
    ]
    return float(np.std(values, ddof=1) / np.sqrt(blocks))


def mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / d + 1)^3.

    With s = x.y / d the kernel is 1 + 3 s + 3 s² + s³. The ones cancel, and the sum of s over all
    pairs is the product of two sums of rows: what is left to sum is smaller than the kernel and
    loses fewer digits in float32.
    """
    return _mmd2(_scaled(a), _scaled(b))


def _scaled(x: np.ndarray) -> np.ndarray:
    """Rows whose products are s."""
    return x * (1 / np.sqrt(x.shape[1]).astype(x.dtype))


def _mmd2(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> float:
    """`mmd2` of scaled rows. `out` is memory for N x N products of as many rows of both."""
    sum_a, sum_b = (x.sum(axis=0, dtype=np.float64) for x in (a, b))
    across = 3 * float(sum_a @ sum_b) + _higher(np.matmul(a, b.T, out=out))
    return (
        _mean_within(a, sum_a, out) + _mean_within(b, sum_b, out) - 2 * across / (len(a) * len(b))
    )


def _mean_within(x: np.ndarray, total: np.ndarray, out: np.ndarray | None) -> float:
    """Mean of the kernel, less 1, over all pairs of different scaled rows (N, d) of this sum."""
    n = len(x)
    products = np.matmul(x, x.T, out=out)  # of a product with itself BLAS computes one half only
    linear = float(total @ total) - products.trace(dtype=np.float64)
    np.fill_diagonal(products, 0)
    return (3 * linear + _higher(products)) / (n * (n - 1))


def _higher(products: np.ndarray) -> float:
    """Sum of 3 s² + s³ over all products (N, M)."""
    total = 0.0
    squares = np.empty(BLOCK * products.shape[1], products.dtype)
    for i in range(0, len(products), BLOCK):
        s = products[i : i + BLOCK].ravel()
        square = np.multiply(s, s, out=squares[: len(s)])
        total += 3 * float(s @ s) + float(square @ s)
    return total
