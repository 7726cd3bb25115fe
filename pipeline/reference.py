"""The reals that samples are held to, and the figures that are looked at in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.datasets.prepared import check_enough
from pipeline.metrics import bins, frechet, mixture, modes, neighbours
from pipeline.metrics.threads import single_threaded
from pipeline.schema import STACKED

NDB_BINS = 100
# Groups that stand in for classes where there are no labels.
UNLABELLED_GROUPS = 10
MONITOR_NEIGHBOURS = 5


@dataclass(frozen=True)
class Benchmark:
    """Data whose classes are equally likely modes, published to count them.

    `centres` (K, D) and `sigma` are those of a mixture of round Gaussians; None for images.
    """

    centres: np.ndarray | None = None
    sigma: float | None = None

    def found(self, features: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mode (N,) of each sample, and whether it counts (N,): of points, the good ones."""
        if self.centres is None or self.sigma is None:
            return logits.argmax(axis=1), np.ones(len(logits), bool)
        return mixture.nearest(features, self.centres, self.sigma)


@dataclass(frozen=True)
class Reference:
    """The reals that fakes are held to, with all that need not be computed twice.

    Features and logits are the data set's own extractor's, by which classes and signs of collapse
    are told; `Space` has those in which distances are measured. Groups are the classes that the
    extractor sees in an image; without labels k-means bins of the reals' features. `frequencies`
    (K,) are theirs: of the training labels, else of these reals. `benchmark`: what is known of the
    data of a mode benchmark, else None.
    """

    features: np.ndarray
    logits: np.ndarray
    groups: np.ndarray
    frequencies: np.ndarray
    group_centres: np.ndarray | None
    ndb_centres: np.ndarray
    ndb_frequencies: np.ndarray
    within_variances: np.ndarray
    statistics: frechet.Statistics
    median_nearest: float
    benchmark: Benchmark | None = None

    @property
    def labelled(self) -> bool:
        return self.group_centres is None

    def groups_of(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Group (N,) of each image."""
        if self.group_centres is None:
            return logits.argmax(axis=1)
        return bins.assign(features, self.group_centres)


def benchmark_of(manifest: dict[str, Any]) -> Benchmark | None:
    """What the manifest of a prepared data set says of a mode benchmark; None for other data."""
    if manifest["kind"] == "points":
        return Benchmark(np.array(manifest["centres"]), manifest["sigma"])
    return Benchmark() if manifest["source"] == STACKED else None


def build_reference(
    features: np.ndarray,
    logits: np.ndarray,
    class_counts: list[int] | None,
    benchmark: Benchmark | None = None,
) -> Reference:
    """Reference from reals' features (N, d) and logits (N, K).

    `class_counts` (K,) are those of the training labels; None: no labels. Raises UserError for
    fewer than `FEWEST_REALS`.
    """
    check_enough(len(features))
    with single_threaded():
        if class_counts is None:
            centres = bins.fit(features, min(UNLABELLED_GROUPS, len(features)))
            groups = bins.assign(features, centres)
            frequencies = modes.frequencies(groups, len(centres))
        else:
            centres = None
            groups = logits.argmax(axis=1)
            # A class without a training image counts as half of one, or label_kl could be infinite.
            counts = np.maximum(np.asarray(class_counts, np.float64), 0.5)
            frequencies = counts / counts.sum()
        ndb_centres = bins.fit(features, max(2, min(NDB_BINS, len(features) // 10)))
        ndb_bins = bins.assign(features, ndb_centres)
        return Reference(
            features=features,
            logits=logits,
            groups=groups,
            frequencies=frequencies,
            group_centres=centres,
            ndb_centres=ndb_centres,
            ndb_frequencies=modes.frequencies(ndb_bins, len(ndb_centres)),
            within_variances=modes.within_variances(features, groups, len(frequencies)),
            statistics=frechet.statistics(features),
            median_nearest=neighbours.median_nearest(features),
            benchmark=benchmark,
        )


def monitor(features: np.ndarray, logits: np.ndarray, reference: Reference) -> dict[str, float]:
    """`fd`, the four signals of mode collapse, and precision, recall, density and coverage.

    From fakes' features (N, d) and logits (N, K). Keys fd, label_kl, ndb_jsd, selfnn_ratio,
    within_var_ratio and the four; of a mode benchmark also its own.
    """
    n = min(len(features), len(reference.features))
    k = min(MONITOR_NEIGHBOURS, n - 1)
    with single_threaded():
        return {
            "fd": _fd(features, reference),
            **neighbours.precision_recall(reference.features[:n], features[:n], k=k),
            **collapse(features, logits, reference),
            **benchmark_figures(features, logits, reference),
        }


def collapse(features: np.ndarray, logits: np.ndarray, reference: Reference) -> dict[str, float]:
    """The four signals of mode collapse, of fakes' features (N, d) and logits (N, K).

    Keys label_kl, ndb_jsd, selfnn_ratio, within_var_ratio; each sees what another is blind to.
    """
    groups = reference.groups_of(features, logits)
    n_groups = len(reference.frequencies)
    ndb_bins = bins.assign(features, reference.ndb_centres)
    ndb = modes.frequencies(ndb_bins, len(reference.ndb_centres))
    variances = modes.within_variances(features, groups, n_groups)
    return {
        "label_kl": modes.label_kl(groups, reference.frequencies),
        "ndb_jsd": modes.jensen_shannon(ndb, reference.ndb_frequencies),
        "selfnn_ratio": neighbours.selfnn_ratio(
            features, reference.features, of_reals=reference.median_nearest
        ),
        "within_var_ratio": modes.within_var_ratio(variances, reference.within_variances),
    }


def benchmark_figures(
    features: np.ndarray, logits: np.ndarray, reference: Reference
) -> dict[str, float]:
    """The figures of the published mode benchmarks; none on other data.

    `modes` counts as they do, by the samples that count; so it takes the place of the plain one.
    """
    if reference.benchmark is None:
        return {}
    groups, counted = reference.benchmark.found(features, logits)
    n_modes = len(reference.frequencies)
    result = {
        "modes": modes.modes(groups[counted]),
        "reverse_kl": mixture.reverse_kl(groups[counted], n_modes),
        "reverse_kl_floor": mixture.reverse_kl_floor(n_modes, int(counted.sum())),
    }
    if reference.benchmark.centres is not None:
        result["hq"] = float(counted.mean())
    return result


def _fd(features: np.ndarray, reference: Reference) -> float:
    if min(len(features), len(reference.features)) <= features.shape[1]:
        return frechet.distance(features, reference.features)
    return frechet.of_statistics(frechet.statistics(features), reference.statistics)
