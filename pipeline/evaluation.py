"""What a set of samples is worth: the families of metrics brought together, and the protocol.

A new family is one function and one line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.controls import controls
from pipeline.metrics import bins, frechet, kernel, mind, mixture, modes, neighbours, scores
from pipeline.metrics.intervals import wilson
from pipeline.metrics.threads import single_threaded
from pipeline.reference import Reference, benchmark_figures, collapse


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


def stratified(splits: dict[str, Any]) -> bool:
    """Is each class of the test split within one image of its share of the training images?"""
    train, test = (splits.get(name, {}).get("class_counts") for name in ("train", "test"))
    if not train or not test:
        return False
    shares = np.asarray(train) / np.sum(train) * np.sum(test)
    return bool((np.abs(np.asarray(test) - shares) <= 1).all())


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


def _frechet(
    fakes: Fakes, reference: Reference, space: Space, settings: Settings
) -> dict[str, float]:
    """The distance, its floor and its interval.

    That of `fd` is for the distance of the distributions, with the bias of a finite sample taken
    off, where there are images enough for each feature to know it. By convention FID keeps that
    bias, and with 2,048 features no bootstrap of some thousand images knows it: its interval, as
    that of `fd` from few images, is for the figure at these numbers of images.
    """
    knows_bias = min(len(space.fakes), len(space.reals)) >= frechet.FOR_BIAS * space.fakes.shape[1]
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
    result = benchmark_figures(fakes.features, fakes.logits, reference)
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
