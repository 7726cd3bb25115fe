"""Which of two models is nearer to the reals? A paired bootstrap without its two excesses.

A split of labelled data is stratified: its classes come in fixed numbers, and so do those of a
conditional model's samples. Resamples in which they vary take the
difference for more uncertain than it is. And near its floor a distance is quadratic in what is
resampled, so that the bootstrap's variance is L + 3 Q, where L is that of the linear part at the
truth, Q that of the quadratic part, and L + Q what is wanted. The linear part at the samples, in
closed form, has L + 2 Q. Both are known, and so is L + Q = 2 (L + 2 Q) - (L + 3 Q).
"""

from __future__ import annotations

import numpy as np

from pipeline import evaluation
from pipeline.evaluated import Samples
from pipeline.metrics import frechet
from pipeline.metrics.frechet import Difference

RESAMPLES = 200

Statistics = tuple[np.ndarray, np.ndarray]


def difference(
    challenger: Samples, champion: Samples, groups: np.ndarray, *, biased: bool, seed: int
) -> Difference:
    """The challenger's Fréchet distance less the champion's, with its interval.

    `groups` (M,) are the classes of the reals. `biased`: the figure is that of just so many
    samples, as `fid` is by convention. Each resample of the reals serves both models. Where there
    are no more samples than features, it is the plain bootstrap, which is too wide.
    """
    a, b = (side.space.astype(np.float64) for side in (challenger, champion))
    real = champion.space_real.astype(np.float64)
    plain = frechet.distance(a, real) - frechet.distance(b, real)
    if min(len(a), len(b), len(real)) <= real.shape[1]:
        found = frechet.paired_difference(a, b, real, resamples=RESAMPLES, seed=seed)
        delta, sd = found.delta, found.sd
    else:
        strata = groups if evaluation.stratified(champion.data["splits"]) else None
        # Samples of one latent vector are pairs, where both models have the same classes.
        pairs = len(a) == len(b) and np.array_equal(_classes(challenger), _classes(champion))
        rng = np.random.default_rng(seed)
        boot = []
        for _ in range(RESAMPLES):
            of_real = frechet.statistics(real[_resample(len(real), strata, rng)])
            rows_a = _resample(len(a), challenger.labels, rng)
            rows_b = rows_a if pairs else _resample(len(b), champion.labels, rng)
            one, other = (
                frechet.of_statistics(frechet.statistics(x), of_real)
                for x in (a[rows_a], b[rows_b])
            )
            boot.append(one - other)
        delta, bootstrapped = 2 * plain - float(np.mean(boot)), float(np.var(boot, ddof=1))
        linear = _linear_variance(a, b, real, strata, challenger.labels, champion.labels, pairs)
        # Q cannot be negative, nor L.
        sd = float(np.sqrt(np.clip(2 * linear - bootstrapped, linear / 2, linear)))
    if biased:
        delta = plain
    return Difference(delta, sd, delta - 1.96 * sd, delta + 1.96 * sd)


def _linear_variance(
    a: np.ndarray,
    b: np.ndarray,
    real: np.ndarray,
    strata: np.ndarray | None,
    labels_a: np.ndarray | None,
    labels_b: np.ndarray | None,
    pairs: bool,
) -> float:
    """Variance of the difference's first order: of the mean of its influences."""
    of_a, of_b, of_real = (frechet.statistics(x) for x in (a, b, real))
    in_a, in_b = _influence(a, of_a, of_real), _influence(b, of_b, of_real)
    if pairs:
        fakes = _variance_of_mean(in_a - in_b, labels_a)
    else:
        fakes = _variance_of_mean(in_a, labels_a) + _variance_of_mean(in_b, labels_b)
    reals = _influence(real, of_real, of_a) - _influence(real, of_real, of_b)
    return fakes + _variance_of_mean(reals, strata)


def _influence(rows: np.ndarray, own: Statistics, other: Statistics) -> np.ndarray:
    """What each row adds to the distance of its set to the other (up to a constant).

    With the optimal map T from N(own) to N(other): 2 (x - m)(m - m') + (x - m)(I - T)(x - m).
    """
    (mean, covariance), (other_mean, other_covariance) = own, other
    values, vectors = np.linalg.eigh(covariance)
    roots = np.sqrt(values.clip(min=1e-10 * values.max()))
    root, inverse = (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T
    values, vectors = np.linalg.eigh(root @ other_covariance @ root)
    middle = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    centred = rows - mean
    bent = centred - centred @ (inverse @ middle @ inverse)
    return 2 * centred @ (mean - other_mean) + np.sum(centred * bent, axis=1)


def _variance_of_mean(values: np.ndarray, strata: np.ndarray | None) -> float:
    if strata is None:
        return float(values.var(ddof=1)) / len(values)
    parts = [values[strata == k] for k in np.unique(strata)]
    return sum(len(x) * float(x.var(ddof=1)) for x in parts if len(x) > 1) / len(values) ** 2


def _classes(samples: Samples) -> np.ndarray:
    return np.zeros(len(samples.space), int) if samples.labels is None else samples.labels


def _resample(n: int, strata: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Rows of a resample; of each stratum as many as there are."""
    if strata is None:
        return rng.integers(n, size=n)
    members = [np.flatnonzero(strata == k) for k in np.unique(strata)]
    return np.concatenate([rows[rng.integers(len(rows), size=len(rows))] for rows in members])
