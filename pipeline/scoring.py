"""Samples held to the prepared test split: all their figures, and what is kept of them.

The evaluate stage scores one generator so, and the promotion gate two.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from pipeline import audit, evaluation, extractor, inception, paths
from pipeline.datasets import prepared
from pipeline.evaluated import Samples
from pipeline.metrics.per_class import ClassFigures
from pipeline.progress import bar
from pipeline.reference import Reference, benchmark_of, build_reference


@dataclass(frozen=True)
class Scored:
    """`table` is the distance class by class, of a conditional model."""

    metrics: dict[str, float]
    samples: Samples
    key: str
    table: list[ClassFigures] = field(default_factory=list)


@dataclass(frozen=True)
class Judge:
    """What samples are held to: the prepared data, its extractor, and Inception's weights or None.

    `cas` also trains a classifier on a conditional model's samples.
    """

    data: prepared.Prepared
    network: extractor.AnyExtractor
    config: dict[str, Any]
    weights: inception.Weights | None
    settings: evaluation.Settings
    cas: bool
    batch_size: int
    device: torch.device

    @property
    def manifest(self) -> dict[str, Any]:
        """The data as the extractor sees them: unlabelled where it cannot tell the classes."""
        return extractor.as_seen(self.data)


@dataclass(frozen=True)
class Seen:
    """What the extractors see in samples, and in the reals that these are held to.

    `cas` are the figures of a classifier taught by the samples, where one is asked for.
    """

    features: np.ndarray
    logits: np.ndarray
    reference: Reference
    space: evaluation.Space
    cas: dict[str, float] = field(default_factory=dict)


def see(images: np.ndarray, labels: np.ndarray | None, judge: Judge) -> Seen:
    """Of samples uint8 (N, H, W, C) or points (N, D), and the classes asked for.

    It is all that networks do for the figures: several processes share the work.
    """
    data, device = judge.data, judge.device
    with bar("extract, images", len(images)) as advance:
        features, logits = extractor.extract(
            judge.network,
            images,
            batch_size=judge.batch_size,
            device=device,
            on_batch=advance,
        )
    reference = build_reference(
        np.load(paths.FEATURES / "test.npy"),
        np.load(paths.FEATURES / "test_logits.npy"),
        judge.manifest["splits"]["train"]["class_counts"],
        benchmark_of(data.manifest),
    )
    if judge.weights:
        space = _inception_space(judge.weights, data, images, device)
    else:
        train_features = np.load(paths.FEATURES / "train.npy")
        scored = logits if reference.labelled and not data.points else None
        space = evaluation.Space(features, reference.features, train_features, scored)
    if evaluation.stratified(data.manifest["splits"]):
        space = replace(space, classes=data.split("test").labels)
    accuracy: dict[str, float] = {}
    if judge.cas and labels is not None and judge.config["task"] == "classes":
        accuracy = _accuracy_score(images, labels, judge, reference)
    return Seen(features, logits, reference, space, accuracy)


def score(
    images: np.ndarray,
    labels: np.ndarray | None,
    judge: Judge,
    seen: Seen,
    *,
    eval_key: str = "",
) -> Scored:
    """Every figure of samples uint8 (N, H, W, C) or points (N, D), and the classes asked for."""
    data = judge.data
    features, logits, reference, space = seen.features, seen.logits, seen.reference, seen.space
    with bar("evaluate, steps", len(evaluation.FAMILIES)) as advance:
        metrics = evaluation.evaluate(
            evaluation.Fakes(features, logits, images, labels),
            reference,
            space,
            judge.settings,
            on_family=lambda name: advance(note=name),
        )
    table: list[ClassFigures] = []
    if not data.points:
        train, test = data.split("train"), data.split("test")
        with bar("copies of training images", 1) as advance:
            metrics |= audit.copies(images, train, test, seed=judge.settings.seed)
            advance()
        if labels is not None and train.labels is not None and test.labels is not None:
            found, table = audit.classes(
                space,
                labels,
                logits.argmax(axis=1),
                reals=test.labels,
                train=train.labels[: len(space.train)],
            )
            metrics |= found | seen.cas
    controls = [value for name, value in metrics.items() if name.startswith("control_")]
    metrics["controls"] = float(all(controls))
    samples = Samples(
        features=features,
        logits=logits,
        real_features=reference.features,
        real_logits=reference.logits,
        space=space.fakes,
        space_real=space.reals,
        labels=labels,
        data=judge.manifest,
        eval_key=eval_key,
    )
    return Scored(metrics, samples, space.key, table)


def protocol(judge: Judge, *, extractor: str, n_fake: int) -> dict[str, Any]:
    """All that figures of this judge must share with others to be compared."""
    data, weights = judge.data, judge.weights
    return evaluation.protocol(
        extractor=weights.extractor if weights else extractor,
        extractor_digest=weights.sha256 if weights else judge.config["digest"],
        domain_digest=judge.config["digest"],
        n_real=len(data.split("test")),
        n_fake=n_fake,
        split="test",
        split_sha256=data.manifest["splits"]["test"]["sha256"],
        image_size=None if data.points else data.image_size,
        channels=None if data.points else data.channels,
        resize_filter=data.manifest.get("resize_filter"),
        neighbours=judge.settings.neighbours,
        bootstraps=judge.settings.bootstraps,
        seed=judge.settings.seed,
    )


def _accuracy_score(
    images: np.ndarray,
    requested: np.ndarray,
    judge: Judge,
    reference: Reference,
) -> dict[str, float]:
    """CAS of the samples, by a classifier taught as the data set's own extractor was."""
    training, test = judge.config["training"], judge.data.split("test")
    hits = reference.logits.argmax(axis=1) == test.labels
    with bar("cas, images", training["epochs"] * len(images)) as advance:
        return audit.accuracy_score(
            images,
            requested,
            test,
            of_reals=float(hits.mean()),
            training=training,
            on_epoch=lambda epoch, loss: advance(len(images), note=f"loss {loss:.3f}"),
            device=judge.device,
        )


def _inception_space(
    weights: inception.Weights, data: prepared.Prepared, images: np.ndarray, device: torch.device
) -> evaluation.Space:
    """Inception's features of the samples, of the test split, and of as many training images."""
    network = inception.load(weights)
    reals = {}
    for name, n in (("test", None), ("train", len(images))):
        reals[name] = inception.real_features(
            network,
            weights,
            data.split(name).images[:n],
            data.manifest["splits"][name]["sha256"],
            device=device,
            title=f"inception, {name} images",
        )
    features, logits = inception.extract(network, images, device=device, title="inception, samples")
    return evaluation.Space(
        features,
        reals["test"],
        reals["train"],
        logits,
        key="fid",
        distance=inception.fid,
        kid=inception.kid,
    )
