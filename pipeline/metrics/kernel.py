"""Kernel distance (Bińkowski et al. 2018) with the cubic kernel.

Same subsets and figures as torch-fidelity's, whose import and loop would take half of the time of
an evaluation; tests hold this to it.
"""

from __future__ import annotations

import numpy as np

# Rows of a kernel matrix that stay in a core's cache between the passes over them.
BLOCK = 64


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
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / d + 1)^3."""
    n, m = len(a), len(b)
    scale = 1 / np.sqrt(a.shape[1]).astype(a.dtype)
    a, b = a * scale, b * scale
    # Of a product with itself BLAS computes one half only.
    within_a, within_b, across = a @ a.T, b @ b.T, a @ b.T
    for products in (within_a, within_b):
        np.fill_diagonal(products, -1)  # has a kernel of 0: a point with itself does not count
    return (
        _kernel_sum(within_a) / (n * (n - 1))
        + _kernel_sum(within_b) / (m * (m - 1))
        - 2 * _kernel_sum(across) / (n * m)
    )


def _kernel_sum(products: np.ndarray) -> float:
    """Sum of (x.y / d + 1)^3 of all products (n, m) of scaled rows, which it overwrites."""
    total = 0.0
    for i in range(0, len(products), BLOCK):
        base = products[i : i + BLOCK]
        base += 1
        # A product is ten times as fast as numpy's power.
        cubes = base * base
        cubes *= base
        total += cubes.sum(dtype=np.float64)
    return float(total)
