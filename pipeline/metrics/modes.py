"""Are all classes there, and is each as varied as it should be?"""

from __future__ import annotations

import numpy as np

from pipeline.metrics.intervals import Z, reflected

# A class with fewer samples says nothing about its spread.
FEWEST = 5


def frequencies(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Share (K,) of each class among labels (N,)."""
    return np.bincount(labels, minlength=n_classes) / len(labels)


def label_kl(fake_labels: np.ndarray, real_frequencies: np.ndarray) -> float:
    """KL(fakes' class histogram || reals' frequencies (K,)) in nats; 0 is ideal.

    Infinite where fakes have a class that reals lack, so `real_frequencies` must all be positive.
    """
    return float(_divergence(frequencies(fake_labels, len(real_frequencies)), real_frequencies))


def label_kl_interval(
    fake_labels: np.ndarray, real_frequencies: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Low and high end of an interval for `label_kl` of infinitely many fakes, 95% or more.

    The plain figure overestimates that by `label_kl_floor` and may lie above the interval.
    """
    n = len(fake_labels)
    p = frequencies(fake_labels, len(real_frequencies))
    boot = np.random.default_rng(seed).multinomial(n, p, size=resamples) / n
    return reflected(label_kl(fake_labels, real_frequencies), _divergence(boot, real_frequencies))


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


def within_var_interval(
    fakes: tuple[np.ndarray, np.ndarray],
    reals: tuple[np.ndarray, np.ndarray],
    n_classes: int,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """Low and high end of a 95% interval around `within_var_ratio`, of features (N, d) and labels
    (N,) on each side.

    It is for the figure's mean over redraws of both sides at these numbers: the least of several
    ratios is below the least true one, the more the fewer images a class has. Of fewer than some
    hundred images a class it holds less often.
    """
    rng = np.random.default_rng(seed)
    boot = [_resampled_variances(*side, n_classes, resamples, rng) for side in (fakes, reals)]
    figures = [within_variances(*side, n_classes) for side in (fakes, reals)]
    ratios = np.array([within_var_ratio(a, b) for a, b in zip(*boot, strict=True)])
    figure = within_var_ratio(*figures)
    if ratios.min() <= 0:  # a class without any variety, or none large enough
        return 0.0, figure
    factor = float(np.exp(Z * np.std(np.log(ratios), ddof=1)))  # variances err by factors
    return figure / factor, figure * factor


def _resampled_variances(
    features: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """`within_variances` (resamples, K) of resampled rows, each class around its whole's mean."""
    squares, known = np.zeros(len(labels)), np.zeros(n_classes, bool)
    for label in np.flatnonzero(np.bincount(labels, minlength=n_classes) >= FEWEST):
        own = features[labels == label].astype(np.float64)
        unbiased = len(own) / (len(own) - 1)
        squares[labels == label] = unbiased * ((own - own.mean(axis=0)) ** 2).sum(axis=1)
        known[label] = True
    result = np.empty((resamples, n_classes))
    for i in range(resamples):
        counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)))
        n = np.bincount(labels, weights=counts, minlength=n_classes)
        sums = np.bincount(labels, weights=counts * squares, minlength=n_classes)
        result[i] = np.divide(sums, n, out=np.full(n_classes, np.nan), where=known & (n > 0))
    return result


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence of two histograms (K,) in nats, 0 to log 2."""
    return float(_jensen_shannon(p, q))


def jensen_shannon_interval(
    p: np.ndarray, q: np.ndarray, n: int, m: int, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Low and high end of an interval for what `jensen_shannon` would be of infinite sets, 95% or
    more, from histograms of n and of m samples over given bins. The plain figure overestimates."""
    rng = np.random.default_rng(seed)
    boot = (rng.multinomial(k, x, size=resamples) / k for k, x in ((n, p), (m, q)))
    return reflected(jensen_shannon(p, q), _jensen_shannon(*boot))


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    middle = (p + q) / 2
    return np.maximum(_divergence(p, middle) / 2 + _divergence(q, middle) / 2, 0)


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL divergence of histograms (..., K) in nats; bins that p lacks add nothing."""
    ratios = np.divide(p, q, out=np.ones(np.broadcast(p, q).shape), where=p > 0)
    return np.sum(p * np.log(ratios), axis=-1)
