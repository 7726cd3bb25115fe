"""Samples of a known mixture: which are good, and is every mode there?

The figures of VEEGAN (arXiv:1705.07761) and PacGAN (arXiv:1712.04086): a sample within three
deviations of its nearest mode is of high quality, a mode with at least one such sample is found.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.metrics import modes

DEVIATIONS = 3.0
IDEAL_HQ = 1 - math.exp(-(DEVIATIONS**2) / 2)  # of a round Gaussian in the plane: 0.9889


def nearest(points: np.ndarray, centres: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Of points (N, D): the nearest of the centres (K, D), int64 (N,), and whether it is near.

    Near, of high quality, is within three `sigma`, bool (N,).
    """
    squares = ((points[:, None, :].astype(np.float64) - centres) ** 2).sum(axis=2)
    found = squares.argmin(axis=1)
    return found, squares.min(axis=1) < (DEVIATIONS * sigma) ** 2


def reverse_kl(labels: np.ndarray, n_modes: int) -> float:
    """KL(histogram of the samples' modes (N,) || uniform over all modes), 0 to log n_modes.

    Of no sample at all: log n_modes, as of samples in one mode only.
    """
    if not len(labels):
        return math.log(n_modes)
    return modes.label_kl(labels, np.full(n_modes, 1 / n_modes))


def reverse_kl_interval(labels: np.ndarray, n_modes: int, *, seed: int = 0) -> tuple[float, float]:
    """Low and high end of an interval for `reverse_kl` of infinitely many samples, 95% or more."""
    if not len(labels):
        return 0.0, math.log(n_modes)
    return modes.label_kl_interval(labels, np.full(n_modes, 1 / n_modes), seed=seed)


def reverse_kl_floor(n_modes: int, n: int) -> float:
    """What `reverse_kl` is on average for `n` samples of a perfect sampler, (K - 1) / 2N."""
    return modes.label_kl_floor(n_modes, max(n, 1))
