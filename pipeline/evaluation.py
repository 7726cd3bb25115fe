"""What a set of samples is worth: the families of metrics brought together, and the protocol.

A new family is one function and one line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.datasets.prepared import check_enough
from pipeline.metrics import bins, frechet, kernel, mind, mixture, modes, neighbours, scores
from pipeline.metrics.intervals import wilson

NDB_BINS = 100
# Groups that stand in for classes where there are no labels.
UNLABELLED_GROUPS = 10
MONITOR_NEIGHBOURS = 5
# Images per feature from which bootstrap and fit know the bias of a finite sample. The debiased
# interval held 97% at 4 images a feature, 71% at 2 and 1% at 1 (32 features, 80 draws each).
FOR_BIAS = 4
# A source of images whose classes are modes to be counted.
STACKED = "stacked_mnist"


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


@dataclass(frozen=True)
class Fakes:
    """Samples: images uint8 (N, H, W, C) or points float32 (N, D), the labels asked for, and what
    the data set's own extractor sees in them: features (N, d) and logits (N, K).
    """

    features: np.ndarray
    logits: np.ndarray
    images: np.ndarray
    requested: np.ndarray | None = None


@dataclass(frozen=True)
class Space:
    """Features in which distances are measured: the data set's own extractor's, or Inception's.

    Of fakes (N, d), of the reals they are held to (M, d), and of training reals, for the floor.
    `logits` (N, K) of the fakes give the Inception score; None: there is none. The Fréchet
    distance is called `key`; `distance` and `kid` compute it and the kernel distance. `classes`
    (M,) are the reals', where a redraw of them would have as many of each, else None.
    """

    fakes: np.ndarray
    reals: np.ndarray
    train: np.ndarray
    logits: np.ndarray | None = None
    key: str = "fd"
    distance: Callable[[np.ndarray, np.ndarray], float] = frechet.distance
    kid: Callable[[np.ndarray, np.ndarray], float] = kernel.kid
    classes: np.ndarray | None = None


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    neighbours: int = 5
    bootstraps: int = 200
    seed: int = 0


def benchmark_of(manifest: dict[str, Any]) -> Benchmark | None:
    """What the manifest of a prepared data set says of a mode benchmark; None for other data."""
    if manifest["kind"] == "points":
        return Benchmark(np.array(manifest["centres"]), manifest["sigma"])
    return Benchmark() if manifest["source"] == STACKED else None


def stratified(splits: dict[str, Any]) -> bool:
    """Is each class of the test split within one image of its share of the training images?"""
    train, test = (splits.get(name, {}).get("class_counts") for name in ("train", "test"))
    if not train or not test:
        return False
    shares = np.asarray(train) / np.sum(train) * np.sum(test)
    return bool((np.abs(np.asarray(test) - shares) <= 1).all())


def single_threaded() -> threadpool_limits:
    """Context in which BLAS keeps to one thread.

    The metrics' matrices are small: more threads gain little, cost fifty times as much where
    another process holds a core, and would change the last digits.
    """
    return threadpool_limits(1, user_api="blas")


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
            **_of_benchmark(features, logits, reference),
        }


def evaluate(
    fakes: Fakes,
    reference: Reference,
    space: Space,
    settings: Settings,
    *,
    on_family: Callable[[str], None] = lambda name: None,
) -> dict[str, float]:
    """Every metric as a flat dictionary. `on_family(name)` is called after each of `FAMILIES`.

    Distances use all fakes and reals. The neighbours' figures, which move with the numbers,
    use as many fakes as there are reals or as many reals as there are fakes.
    """
    result: dict[str, float] = {}
    with single_threaded():
        for name, family in FAMILIES.items():
            result |= family(fakes, reference, space, settings)
            on_family(name)
    return {**result, "n_real": len(space.reals), "n_fake": len(space.fakes)}


def _fd(features: np.ndarray, reference: Reference) -> float:
    if min(len(features), len(reference.features)) <= features.shape[1]:
        return frechet.distance(features, reference.features)
    return frechet.of_statistics(frechet.statistics(features), reference.statistics)


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


def _frechet(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    """The distance, its floor and its interval.

    That of `fd` is for the distance of the distributions, with the bias of a finite sample taken
    off, where there are images enough for each feature to know it. By convention FID keeps that
    bias, and with 2,048 features no bootstrap of some thousand images knows it: its interval, as
    that of `fd` from few images, is for the figure at these numbers of images.
    """
    knows_bias = min(len(space.fakes), len(space.reals)) >= FOR_BIAS * space.fakes.shape[1]
    rng = np.random.default_rng(settings.seed)
    n = min(len(space.fakes), len(space.train))
    chosen = rng.choice(len(space.train), n, replace=False)
    of_train = space.train[chosen]
    distance = space.distance(space.fakes, space.reals)
    low, high = frechet.interval(
        space.fakes,
        space.reals,
        strata=(fakes.requested, space.classes),
        resamples=settings.bootstraps,
        seed=settings.seed,
    )
    if space.key == "fid" or not knows_bias:
        half = (high - low) / 2
        low, high = distance - half, distance + half
    low, high = max(low, 0.0), max(high, 0.0)  # where nothing differs half of it lies below
    mind_low, mind_high = mind.interval(space.fakes, space.reals, seed=settings.seed)
    result = {
        space.key: distance,
        f"{space.key}_floor": space.distance(of_train, space.reals),
        f"{space.key}_ci_low": low,
        f"{space.key}_ci_high": high,
        "mind": mind.mind(space.fakes, space.reals, seed=settings.seed),
        "mind_floor": mind.mind(of_train, space.reals, seed=settings.seed),
        "mind_ci_low": mind_low,
        "mind_ci_high": mind_high,
    }
    if knows_bias:
        result[f"{space.key}_inf"] = frechet.infinity(space.fakes, space.reals, seed=settings.seed)
    return result


def _kernel(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    return {
        "kid": space.kid(space.fakes, space.reals),
        "kid_se": kernel.kid_se(space.fakes, space.reals),
    }


def _neighbours(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    n = min(len(space.fakes), len(space.reals))
    real, fake = space.reals[:n], space.fakes[:n]
    return neighbours.precision_recall_intervals(
        real, fake, k=settings.neighbours, seed=settings.seed
    )


def _modes(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    groups = reference.groups_of(fakes.features, fakes.logits)
    ndb_bins = bins.assign(fakes.features, reference.ndb_centres)
    ndb = modes.frequencies(ndb_bins, len(reference.ndb_centres))
    numbers = len(groups), len(reference.groups)
    seed = settings.seed
    intervals = {
        "label_kl": modes.label_kl_interval(groups, reference.frequencies, seed=seed),
        "ndb_jsd": modes.jensen_shannon_interval(
            ndb, reference.ndb_frequencies, *numbers, seed=seed
        ),
        "selfnn_ratio": neighbours.selfnn_interval(fakes.features, reference.features, seed=seed),
        "within_var_ratio": modes.within_var_interval(
            (fakes.features, groups),
            (reference.features, reference.groups),
            len(reference.frequencies),
            seed=seed,
        ),
    }
    return {
        **collapse(fakes.features, fakes.logits, reference),
        **_ends(intervals),
        "label_kl_floor": modes.label_kl_floor(len(reference.frequencies), len(fakes.features)),
        "modes": modes.modes(groups),
        "n_groups": len(reference.frequencies),
        "dup_rate": neighbours.dup_rate(fakes.images),
    }


def _benchmark(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    result = _of_benchmark(fakes.features, fakes.logits, reference)
    if reference.benchmark is None:
        return result
    groups, counted = reference.benchmark.found(fakes.features, fakes.logits)
    n_modes = len(reference.frequencies)
    intervals = {
        "reverse_kl": mixture.reverse_kl_interval(groups[counted], n_modes, seed=settings.seed)
    }
    if "hq" in result:
        intervals["hq"] = wilson(counted.sum(), len(counted))
    return {**result, **_ends(intervals)}


def _ends(intervals: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Intervals by their figures, as *_ci_low and *_ci_high."""
    return {
        f"{name}_ci_{end}": value
        for name, interval in intervals.items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }


def _of_benchmark(
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


def _classifier(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    """What only a classifier can say; of the data's classes, nothing without labels."""
    result: dict[str, float] = {}
    if space.logits is not None:
        mean, deviation = scores.inception_score(space.logits)
        result |= {"is_mean": mean, "is_std": deviation}
    if reference.labelled:
        result["confidence"] = modes.confidence(fakes.logits)
        result["confidence_real"] = modes.confidence(reference.logits)
        if fakes.requested is not None:
            hits = fakes.logits.argmax(axis=1) == fakes.requested
            result["label_accuracy"] = float(hits.mean())
            result |= _ends({"label_accuracy": wilson(hits.sum(), len(hits))})
    return result


def _controls(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    results = controls(reference, seed=settings.seed)
    return {
        **{f"control_{name}": float(passed) for name, passed in results.items()},
        "controls": float(all(results.values())),
    }


def controls(reference: Reference, *, seed: int = 0) -> dict[str, bool]:
    """Do the metrics see what is planted, and nothing where there is nothing to see?

    real_vs_real: the distance between two random halves of the reals is compatible with 0 (four
    deviations of the bootstrap); where they are few, in as many random directions of the features
    as the bootstrap knows the bias for. dropped_class: without their largest class the reals'
    label_kl rises by at least half of what it should; left out where there is one class only.
    """
    rng = np.random.default_rng(seed)
    halves = np.array_split(rng.permutation(len(reference.features)), 2)
    features, known = reference.features, max(len(halves[1]) // FOR_BIAS, 1)
    if features.shape[1] > known:
        directions = np.linalg.qr(rng.normal(size=(features.shape[1], known)))[0]
        features = features @ directions
    first, second = (features[half] for half in halves)
    low, _ = frechet.interval(first, second, resamples=50, seed=seed, sds=4)
    result = {"real_vs_real": low <= 0}
    counts = np.bincount(reference.groups, minlength=len(reference.frequencies))
    largest = counts.argmax()
    if 0 < counts[largest] < len(reference.groups):
        # Against the reals' own frequencies: against those of a few thousand others, a small set
        # that happens to have too many of its largest class would look better without it.
        own = counts / counts.sum()
        rest = reference.groups[reference.groups != largest]
        rise = modes.label_kl(rest, own) - modes.label_kl(reference.groups, own)
        result["dropped_class"] = bool(rise >= -np.log(1 - own[largest]) / 2)
    return result


def protocol(
    *,
    extractor: str,
    extractor_digest: str,
    domain_digest: str,
    n_real: int,
    n_fake: int,
    split: str,
    split_sha256: str,
    image_size: int | None,
    channels: int | None,
    resize_filter: str | None,
    neighbours: int,
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """All that numbers must share to be compared, and the versions that computed them.

    `domain_digest` is the data set's own extractor's, which tells the classes also where the
    distances are Inception's. Points have no `image_size`, `channels` and `resize_filter`.
    """
    from importlib.metadata import version

    libraries = ["torch", "numpy", "pillow"]
    if extractor != "domain":
        libraries.append("torch-fidelity")

    return {
        "extractor": extractor,
        "extractor_digest": extractor_digest,
        "domain_digest": domain_digest,
        "n_real": n_real,
        "n_fake": n_fake,
        "split": split,
        "split_sha256": split_sha256,
        "image_size": image_size,
        "channels": channels,
        "resize_filter": resize_filter,
        "neighbours": neighbours,
        "bootstraps": bootstraps,
        "seed": seed,
        "versions": {name: version(name) for name in libraries},
    }


FAMILIES: dict[str, Callable[[Fakes, Reference, Space, Settings], dict[str, float]]] = {
    "frechet": _frechet,
    "kernel": _kernel,
    "neighbours": _neighbours,
    "modes": _modes,
    "benchmark": _benchmark,
    "classifier": _classifier,
    "controls": _controls,
}
