"""Inception score (Salimans et al. 2016) of a classifier's logits."""

from __future__ import annotations

import numpy as np


def inception_score(
    logits: np.ndarray, *, splits: int = 10, seed: int = 2020
) -> tuple[float, float]:
    """Mean and deviation over splits of exp(mean KL(p(y|x) || p(y))), from 1 to K; logits (N, K).

    Shuffled and split as torch-fidelity does.
    """
    order = np.random.RandomState(seed).permutation(len(logits))
    values = []
    for i in range(splits):
        rows = order[i * len(order) // splits : (i + 1) * len(order) // splits]
        shifted = logits[rows].astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        totals = p.sum(axis=1)
        p /= totals[:, None]
        # sum p log p, as log p = shifted - log total
        negentropies = np.einsum("nk,nk->n", p, shifted) - np.log(totals)
        mean = p.mean(axis=0)
        cross = mean @ np.log(mean.clip(min=np.finfo(np.float64).tiny))
        values.append(np.exp(negentropies.mean() - cross))
    return float(np.mean(values)), float(np.std(values))
