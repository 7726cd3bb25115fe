"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017)."""

from __future__ import annotations

import numpy as np

Statistics = tuple[np.ndarray, np.ndarray]


def statistics(features: np.ndarray) -> Statistics:
    """Mean (d,) and unbiased covariance (d, d), in float64, of features (N, d), N > 1."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance, in squared units, of two sets of features (N, d) and (M, d)."""
    if min(len(a), len(b)) <= a.shape[1]:
        return _of_few(a, b)
    return of_statistics(statistics(a), statistics(b))


def of_statistics(a: Statistics, b: Statistics) -> float:
    """The distance from means and covariances.

    tr (S1 S2)^1/2 is the sum of the roots of the eigenvalues of L^T S2 L, where S1 = L L^T.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    root = _factor(cov_a)
    eigenvalues = np.linalg.eigvalsh(root.T @ cov_b @ root)
    trace_of_root = np.sqrt(eigenvalues.clip(min=0)).sum()
    return float(
        np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * trace_of_root
    )


def _factor(covariance: np.ndarray) -> np.ndarray:
    """L with L L^T = covariance, also where that is singular (collapsed samples)."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        eigenvalues, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(eigenvalues.clip(min=0))


def _of_few(a: np.ndarray, b: np.ndarray) -> float:
    """The distance where N <= d: tr (S1 S2)^1/2 is a nuclear norm, and no covariance is formed."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    a = (a - mean_a) / np.sqrt(len(a) - 1)
    b = (b - mean_b) / np.sqrt(len(b) - 1)
    trace_of_root = np.linalg.norm(a @ b.T, ord="nuc")
    return float(np.sum((mean_a - mean_b) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * trace_of_root)


def interval(
    a: np.ndarray, b: np.ndarray, *, resamples: int = 200, seed: int = 0, sds: float = 1.96
) -> tuple[float, float]:
    """Low and high end of the debiased bootstrap interval `2 FD - mean(boot) ± sds SD(boot)`.

    Both sides are resampled. It is an interval for the distance of the two distributions; the plain
    distance at finite N overestimates that, and may lie above the interval.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    # One shift of both changes no distance, and keeps the one-pass covariance below exact.
    a, b = a - a.mean(axis=0), b - a.mean(axis=0)
    rng = np.random.default_rng(seed)
    few = min(len(a), len(b)) <= a.shape[1]
    boot = np.empty(resamples)
    for i in range(resamples):
        counts_a, counts_b = (rng.multinomial(len(x), np.full(len(x), 1 / len(x))) for x in (a, b))
        if few:
            boot[i] = _of_few(a.repeat(counts_a, axis=0), b.repeat(counts_b, axis=0))
        else:
            boot[i] = of_statistics(_weighted(a, counts_a), _weighted(b, counts_b))
    centre, half = 2 * distance(a, b) - boot.mean(), sds * boot.std(ddof=1)
    return float(centre - half), float(centre + half)


def _weighted(features: np.ndarray, counts: np.ndarray) -> Statistics:
    """`statistics` of float64 features whose rows count `counts` times, in one pass."""
    n = counts.sum()
    used = counts.nonzero()[0]
    rows, weights = features[used], counts[used].astype(np.float64)
    mean = weights @ rows / n
    rows *= np.sqrt(weights)[:, None]
    return mean, (rows.T @ rows - n * np.outer(mean, mean)) / (n - 1)
