"""Inception score (Salimans et al. 2016) of a classifier's logits."""

from __future__ import annotations

import numpy as np


def inception_score(
    logits: np.ndarray, *, splits: int = 10, seed: int = 2020
) -> tuple[float, float]:
    """Mean and deviation over splits of exp(mean KL(p(y|x) || p(y))), from 1 to K; logits (N, K).

    Shuffled and split as torch-fidelity does.
    """
    logits = logits[np.random.RandomState(seed).permutation(len(logits))].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    values = []
    for i in range(splits):
        rows = slice(i * len(p) // splits, (i + 1) * len(p) // splits)
        divergence = p[rows] * (log_p[rows] - np.log(p[rows].mean(axis=0)))
        values.append(np.exp(divergence.sum(axis=1).mean()))
    return float(np.mean(values)), float(np.std(values))
