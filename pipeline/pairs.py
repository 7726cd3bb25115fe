"""How one evaluation's figures differ from another's, by the features of their samples.

A family of figures is a function of a `Pair`; a new one goes into `PAIRED`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import nearer
from pipeline.evaluated import Evaluated, Samples
from pipeline.metrics import bins, mind, mixture, modes, neighbours, paired
from pipeline.metrics.frechet import Difference
from pipeline.metrics.threads import single_threaded
from pipeline.reference import Reference, benchmark_of, build_reference

RESAMPLES = 200
SLICED_RESAMPLES = 50
SEED = 0


def differences(
    a: Evaluated,
    b: Evaluated,
    of_a: Samples,
    of_b: Samples,
    *,
    families: Sequence[Family] | None = None,
) -> dict[str, Difference]:
    """B's figures less A's, from the features of their samples; `families`: by default all."""
    with single_threaded():
        reference = build_reference(
            of_a.real_features,
            of_a.real_logits,
            of_a.data["splits"]["train"]["class_counts"],
            benchmark_of(of_a.data),
        )
        pair = Pair(a, b, of_a, of_b, reference)
        result: dict[str, Difference] = {}
        for family in PAIRED if families is None else families:
            result |= family(pair)
    return result


@dataclass(frozen=True)
class Pair:
    """What a family of paired differences is made of."""

    a: Evaluated
    b: Evaluated
    of_a: Samples
    of_b: Samples
    reference: Reference

    def around(self, keys: list[str], sds: np.ndarray) -> dict[str, Difference]:
        """The differences of the figures as they are, and their deviations as an interval."""
        result = {}
        for key, sd in zip(keys, sds.tolist(), strict=True):
            if key in self.a.metrics and key in self.b.metrics:
                delta = self.b.metrics[key] - self.a.metrics[key]
                result[key] = Difference(delta, sd, delta - 1.96 * sd, delta + 1.96 * sd)
        return result

    def groups(self, samples: Samples) -> np.ndarray:
        return self.reference.groups_of(samples.features, samples.logits)


Family = Callable[[Pair], dict[str, Difference]]


def _frechet(pair: Pair) -> dict[str, Difference]:
    biased = "fid" in pair.a.metrics  # by convention it keeps the bias of a finite sample
    found = nearer.difference(pair.of_b, pair.of_a, pair.reference.groups, biased=biased, seed=SEED)
    return {"fid" if biased else "fd": found}


def _sliced(pair: Pair) -> dict[str, Difference]:
    """`mind` has no cheap variance: fewer directions and rows than its own show enough of it."""
    real = pair.of_a.space_real
    rows = min(len(pair.of_a.space), len(real))
    n = min(rows, paired.LARGEST)
    rng = np.random.default_rng(SEED)
    values = []
    for _ in range(SLICED_RESAMPLES):
        chosen, chosen_real = rng.integers(rows, size=n), rng.integers(len(real), size=n)
        b, a = (
            mind.mind(of.space[chosen], real[chosen_real], projections=100, seed=SEED)
            for of in (pair.of_b, pair.of_a)
        )
        values.append(b - a)
    return pair.around(["mind"], np.std([values], axis=1, ddof=1) * np.sqrt(n / rows))


def _kernel(pair: Pair) -> dict[str, Difference]:
    return {"kid": paired.kid(pair.of_b.space, pair.of_a.space, pair.of_a.space_real)}


def _neighbours(pair: Pair) -> dict[str, Difference]:
    real, k = pair.of_a.space_real, int(pair.a.protocol["neighbours"])
    n = min(len(pair.of_a.space), len(real))
    keys = ["precision", "recall", "density", "coverage"]

    def figures(fake: np.ndarray, reals: np.ndarray) -> np.ndarray:
        values = neighbours.precision_recall(reals, fake, k=k)
        return np.array([values[key] for key in keys])

    def difference(rows: np.ndarray, real_rows: np.ndarray) -> np.ndarray:
        reals = real[real_rows]
        return figures(pair.of_b.space[rows], reals) - figures(pair.of_a.space[rows], reals)

    if paired.subsample_size(n) <= k:
        return {}
    return pair.around(keys, paired.subsample_sd(difference, n, seed=SEED))


def _nearest(pair: Pair) -> dict[str, Difference]:
    real = pair.of_a.real_features
    n = min(len(pair.of_a.features), len(real))

    def difference(rows: np.ndarray, real_rows: np.ndarray) -> np.ndarray:
        b, a = (
            neighbours.selfnn_ratio(samples.features[rows], real[real_rows])
            for samples in (pair.of_b, pair.of_a)
        )
        return np.array([b - a])

    if paired.subsample_size(n) < 2:
        return {}
    return pair.around(["selfnn_ratio"], paired.subsample_sd(difference, n, seed=SEED))


def _histograms(pair: Pair) -> dict[str, Difference]:
    reference = pair.reference
    of_a, of_b = (
        (pair.groups(samples), bins.assign(samples.features, reference.ndb_centres))
        for samples in (pair.of_a, pair.of_b)
    )

    def figures(sides: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> np.ndarray:
        groups, places = (side.repeat(counts) for side in sides)
        ndb = modes.frequencies(places, len(reference.ndb_centres))
        return np.array(
            [
                modes.label_kl(groups, reference.frequencies),
                modes.jensen_shannon(ndb, reference.ndb_frequencies),
            ]
        )

    sds = paired.bootstrap_sd(
        lambda counts: figures(of_b, counts) - figures(of_a, counts),
        len(of_a[0]),
        resamples=RESAMPLES,
        seed=SEED,
    )
    return pair.around(["label_kl", "ndb_jsd"], sds)


def _benchmark(pair: Pair) -> dict[str, Difference]:
    """Figures of mode benchmarks; not the number of modes, of which a resample has fewer."""
    benchmark, n_modes = pair.reference.benchmark, len(pair.reference.frequencies)
    if benchmark is None:
        return {}
    of_a, of_b = (benchmark.found(x.features, x.logits) for x in (pair.of_a, pair.of_b))

    def figures(side: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> np.ndarray:
        groups, counted = (values.repeat(counts) for values in side)
        return np.array([mixture.reverse_kl(groups[counted], n_modes), counted.mean()])

    sds = paired.bootstrap_sd(
        lambda counts: figures(of_b, counts) - figures(of_a, counts),
        len(of_a[0]),
        resamples=RESAMPLES,
        seed=SEED,
    )
    return pair.around(["reverse_kl", "hq"], sds)


def _variances(pair: Pair) -> dict[str, Difference]:
    n_groups = len(pair.reference.frequencies)

    def squares(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Groups (N,) and squared distances (N,) to the group's mean, of groups large enough."""
        groups = pair.groups(samples)
        result = np.full(len(groups), np.nan)
        for group in np.flatnonzero(np.bincount(groups) >= modes.FEWEST):
            own = samples.features[groups == group].astype(np.float64)
            result[groups == group] = ((own - own.mean(axis=0)) ** 2).sum(axis=1)
        return groups, result

    def ratio(side: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> float:
        groups, values = side
        n = np.bincount(groups, weights=counts, minlength=n_groups)
        sums = np.bincount(groups, weights=counts * values, minlength=n_groups)
        means = np.divide(sums, n, out=np.full(n_groups, np.nan), where=n > 0)
        return modes.within_var_ratio(means, pair.reference.within_variances)

    of_a, of_b = squares(pair.of_a), squares(pair.of_b)
    sds = paired.bootstrap_sd(
        lambda counts: np.array([ratio(of_b, counts) - ratio(of_a, counts)]),
        len(of_a[0]),
        resamples=RESAMPLES,
        seed=SEED,
    )
    return pair.around(["within_var_ratio"], sds)


def _means(pair: Pair) -> dict[str, Difference]:
    """Figures that are the mean of one value a sample."""
    columns = {"confidence": [modes.certainty(x.logits) for x in (pair.of_a, pair.of_b)]}
    if pair.of_a.labels is not None and pair.of_b.labels is not None:
        columns["label_accuracy"] = [
            (x.logits.argmax(axis=1) == x.labels).astype(float) for x in (pair.of_a, pair.of_b)
        ]
    sds = [np.std(b - a, ddof=1) / np.sqrt(len(a)) for a, b in columns.values()]
    return pair.around(list(columns), np.array(sds))


PAIRED: tuple[Family, ...] = (
    _frechet,
    _sliced,
    _kernel,
    _neighbours,
    _nearest,
    _histograms,
    _benchmark,
    _variances,
    _means,
)
