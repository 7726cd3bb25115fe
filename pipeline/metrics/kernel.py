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
    a, b = a.astype(np.float32, copy=False), b.astype(np.float32, copy=False)
    rng = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        rows_a, rows_b = (rng.choice(len(x), size, replace=False) for x in (a, b))
        values[i] = mmd2(a[rows_a], b[rows_b])
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
    scale = 1 / np.sqrt(a.shape[1]).astype(a.dtype)
    a, b = a * scale, b * scale
    return _mean_within(a) + _mean_within(b) - 2 * _mean_across(a, b)


def _mean_within(x: np.ndarray) -> float:
    """Mean of the kernel, less 1, over all pairs of different scaled rows (N, d)."""
    n = len(x)
    products = x @ x.T  # of a product with itself BLAS computes one half only
    total = x.sum(axis=0, dtype=np.float64)
    linear = float(total @ total) - products.trace(dtype=np.float64)
    np.fill_diagonal(products, 0)
    return (3 * linear + _higher(products)) / (n * (n - 1))


def _mean_across(x: np.ndarray, y: np.ndarray) -> float:
    """Mean of the kernel, less 1, over all pairs of scaled rows (N, d) and (M, d)."""
    linear = x.sum(axis=0, dtype=np.float64) @ y.sum(axis=0, dtype=np.float64)
    return (3 * float(linear) + _higher(x @ y.T)) / (len(x) * len(y))


def _higher(products: np.ndarray) -> float:
    """Sum of 3 s² + s³ over all products (N, M)."""
    total = 0.0
    squares = np.empty(BLOCK * products.shape[1], products.dtype)
    for i in range(0, len(products), BLOCK):
        s = products[i : i + BLOCK].ravel()
        square = np.multiply(s, s, out=squares[: len(s)])
        total += 3 * float(s @ s) + float(square @ s)
    return total
