"""Are all classes there, and is each as varied as it should be?"""

from __future__ import annotations

import numpy as np

# A class with fewer samples says nothing about its spread.
FEWEST = 5


def frequencies(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Share (K,) of each class among labels (N,)."""
    return np.bincount(labels, minlength=n_classes) / len(labels)


def label_kl(fake_labels: np.ndarray, real_frequencies: np.ndarray) -> float:
    """KL(fakes' class histogram || reals' frequencies (K,)) in nats; 0 is ideal.

    Infinite where fakes have a class that reals lack, so `real_frequencies` must all be positive.
    """
    p = frequencies(fake_labels, len(real_frequencies))
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / real_frequencies[seen])))


def label_kl_floor(n_classes: int, n: int) -> float:
    """What `label_kl` is on average for n samples of a perfect generator (large n)."""
    return (n_classes - 1) / (2 * n)


def modes(labels: np.ndarray) -> int:
    """Number of classes seen at least once."""
    return len(np.unique(labels))


def confidence(logits: np.ndarray) -> float:
    """Mean probability of the most likely class, 1/K to 1."""
    return float(certainty(logits).mean())


def certainty(logits: np.ndarray) -> np.ndarray:
    """Probability (N,) of the most likely class by logits (N, K)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return 1 / np.exp(shifted).sum(axis=1)


def within_variances(features: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Mean squared distance (K,) to the class's own mean; NaN for a class of fewer than 5."""
    result = np.full(n_classes, np.nan)
    for label in np.flatnonzero(np.bincount(labels, minlength=n_classes) >= FEWEST):
        result[label] = features[labels == label].var(axis=0, ddof=1, dtype=np.float64).sum()
    return result


def within_var_ratio(fake_variances: np.ndarray, real_variances: np.ndarray) -> float:
    """Least ratio, over classes, of fakes' `within_variances` to reals'; 1 is ideal, 0 collapse.

    Classes with too few fakes or reals are left out; 0 where that leaves none.
    """
    ratios = fake_variances / real_variances
    return float(np.nanmin(ratios)) if np.isfinite(ratios).any() else 0.0


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence of two histograms (K,) in nats, 0 to log 2."""
    middle = (p + q) / 2
    total = 0.0
    for side in (p, q):
        seen = side > 0
        total += float(np.sum(side[seen] * np.log(side[seen] / middle[seen]))) / 2
    return max(total, 0.0)
