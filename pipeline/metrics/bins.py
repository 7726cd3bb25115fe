"""Bins of feature space by k-means, for NDB (Richardson and Weiss 2018) and data without labels.

Written here rather than called from scikit-learn, whose import alone takes longer than an
evaluation's bins; a test holds its inertia to scikit-learn's.
"""

from __future__ import annotations

import numpy as np


def fit(features: np.ndarray, n_bins: int, *, seed: int = 0, rounds: int = 25) -> np.ndarray:
    """Centres (n_bins, d), float32, of k-means on features (N, d), N >= n_bins; k-means++ start."""
    rng = np.random.default_rng(seed)
    features = features.astype(np.float32)
    centres = features[rng.integers(len(features), size=n_bins)]
    nearest = np.full(len(features), np.inf)
    for i in range(1, n_bins):
        nearest = np.minimum(nearest, ((features - centres[i - 1]) ** 2).sum(axis=1))
        if nearest.sum() > 0:  # else fewer distinct rows than bins
            centres[i] = features[rng.choice(len(features), p=nearest / nearest.sum())]
    for _ in range(rounds):
        bins = assign(features, centres)
        counts = np.bincount(bins, minlength=n_bins)
        order = np.argsort(bins, kind="stable")
        starts = np.concatenate([[0], counts.cumsum()[:-1]])
        filled = counts > 0  # an emptied bin keeps its centre
        sums = np.add.reduceat(features[order], starts[filled], axis=0)
        fresh = sums / counts[filled, None]
        if np.array_equal(fresh, centres[filled]):
            break
        centres[filled] = fresh
    return centres


def assign(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index (N,) of the nearest centre to each row of features (N, d)."""
    features = features.astype(np.float32, copy=False)
    result = np.empty(len(features), np.int64)
    norms = (centres**2).sum(axis=1)
    for i in range(0, len(features), 4096):
        result[i : i + 4096] = (norms - 2 * features[i : i + 4096] @ centres.T).argmin(axis=1)
    return result
