"""Sample the trained generator and measure the samples against the test split."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import (
    audit,
    evaluation,
    extractor,
    files,
    inception,
    launch,
    lineage,
    logs,
    paths,
)
from pipeline.config import Evaluate, check, read_yaml
from pipeline.datasets import prepared
from pipeline.errors import UserError
from pipeline.evaluated import PER_CLASS, Samples
from pipeline.grids import one_class_a_row, save_grid, save_png
from pipeline.metrics.per_class import ClassFigures
from pipeline.networks.build import load_generator
from pipeline.progress import bar
from pipeline.sampling import class_labels, sample_images
from pipeline.scatter import scatter
from pipeline.tracking import record
from pipeline.tracking.deliver import deliver_or_keep
from pipeline.training.devices import pick_device

log = logging.getLogger(__name__)

GRID_COLUMNS, GRID_ROWS = 10, 20


def main() -> None:
    values = read_yaml(paths.PARAMS)
    params = check(values)
    config = params.evaluate
    data = prepared.load()
    counts = data.manifest["splits"]["train"]["class_counts"]
    device = pick_device(params.train.device)
    generator, trained = load_generator(paths.GENERATOR, which=config.checkpoint)
    judge, judge_config = extractor.load(), extractor.load_config()
    n = _number_of_samples(config, data)
    labels = class_labels(counts, n, config.seed) if trained["n_classes"] else None
    inputs = lineage.stage_inputs("evaluate", values)
    weights = _inception_weights(config, data)
    if weights:  # what is in the file decides the figures, not where it is
        inputs["params"]["evaluate.inception_weights"] = weights.sha256
    run = record.start(
        "evaluate",
        lineage.stage_key(inputs, trained["train_key"]),
        experiment=params.tracking.experiment,
        params={"evaluate": values["evaluate"]},
        dataset={"name": data.name, "digest": data.digest, "source": params.data.source},
        train_key=trained["train_key"],
    )

    with bar("sample, images", n) as advance:
        images = sample_images(
            generator,
            n=n,
            seed=config.seed,
            labels=labels,
            batch_size=config.batch_size,
            device=device,
            on_batch=advance,
        )
    with bar("extract, images", n) as advance:
        features, logits = extractor.extract(
            judge, images, batch_size=config.batch_size, device=device, on_batch=advance
        )
    reference = evaluation.build_reference(
        np.load(paths.FEATURES / "test.npy"),
        np.load(paths.FEATURES / "test_logits.npy"),
        counts,
        evaluation.benchmark_of(data.manifest),
    )
    if weights:
        space = _inception_space(weights, data, images, device)
    else:
        train_features = np.load(paths.FEATURES / "train.npy")
        scored = logits if reference.labelled and not data.points else None
        space = evaluation.Space(features, reference.features, train_features, scored)
    if not launch.leave():
        return
    with bar("evaluate, steps", len(evaluation.FAMILIES)) as advance:
        metrics = evaluation.evaluate(
            evaluation.Fakes(features, logits, images, labels),
            reference,
            space,
            evaluation.Settings(
                neighbours=config.neighbours,
                bootstraps=config.bootstraps,
                seed=config.seed,
            ),
            on_family=lambda name: advance(note=name),
        )
    table: list[ClassFigures] = []
    if not data.points:
        train, test = data.split("train"), data.split("test")
        with bar("copies of training images", 1) as advance:
            metrics |= audit.copies(images, train, test, seed=config.seed)
            advance()
        if labels is not None and train.labels is not None and test.labels is not None:
            found, table = audit.classes(
                space,
                labels,
                logits.argmax(axis=1),
                reals=test.labels,
                train=train.labels[: len(space.train)],
            )
            metrics |= found
            if config.cas and judge_config["task"] == "classes":
                metrics |= _accuracy_score(images, labels, judge_config, reference, test, device)
    controls = [value for name, value in metrics.items() if name.startswith("control_")]
    metrics["controls"] = float(all(controls))
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"{', '.join(bad)} cannot be computed from these samples: look at the newest grid of "
            f"{paths.TRAIN_REPORT} and train again (lower rates, another loss)"
        )
    protocol = evaluation.protocol(
        extractor=weights.extractor if weights else config.extractor,
        extractor_digest=weights.sha256 if weights else judge_config["digest"],
        domain_digest=judge_config["digest"],
        n_real=len(reference.features),
        n_fake=len(images),
        split="test",
        split_sha256=data.manifest["splits"]["test"]["sha256"],
        image_size=None if data.points else data.image_size,
        channels=None if data.points else data.channels,
        resize_filter=data.manifest.get("resize_filter"),
        neighbours=config.neighbours,
        bootstraps=config.bootstraps,
        seed=config.seed,
    )
    with files.atomic_folder(paths.EVALUATION) as folder:
        Samples(
            features=features,
            logits=logits,
            real_features=reference.features,
            real_logits=reference.logits,
            space=space.fakes,
            space_real=space.reals,
            labels=labels,
            data=data.manifest,
            eval_key=run.key,
        ).write(folder)
    with files.atomic_folder(paths.EVALUATION_REPORT) as folder:
        _draw(folder / "samples.png", images, labels, data)
        files.write_json(folder / "protocol.json", protocol)
        if table:
            files.write_table(folder / PER_CLASS, [vars(row) for row in table])
        record.finish(run, metrics=metrics).write(folder)
    files.write_json(paths.METRICS, metrics)
    _say(metrics, space.key)
    deliver_or_keep("evaluate")


def _draw(
    path: Path, samples: np.ndarray, labels: np.ndarray | None, data: prepared.Prepared
) -> None:
    if data.points:
        save_png(path, scatter(samples, data.split("test").images[: len(samples)]))
    elif labels is None:
        save_grid(path, samples[: GRID_COLUMNS * GRID_COLUMNS], GRID_COLUMNS)
    else:
        save_grid(path, one_class_a_row(samples, labels, GRID_COLUMNS, GRID_ROWS), GRID_COLUMNS)


def _number_of_samples(config: Evaluate, data: prepared.Prepared) -> int:
    """Fakes to draw: no more than there are training images, which set the floor at the same N."""
    n = min(config.samples, len(data.split("train")))
    if n < config.samples:
        log.info("evaluate.samples: %d, as the train split has no more images for the floor", n)
    fewest = min(n, len(data.split("test")))
    if config.neighbours >= fewest:
        raise UserError(
            f"evaluate.neighbours is {config.neighbours}, but only {fewest} images are compared: "
            "lower it, or raise data.test_fraction"
        )
    return n


def _accuracy_score(
    images: np.ndarray,
    requested: np.ndarray,
    judge: dict[str, Any],
    reference: evaluation.Reference,
    test: prepared.Split,
    device: torch.device,
) -> dict[str, float]:
    """CAS of the samples, by a classifier taught as the data set's own extractor was."""
    training = judge["training"]
    hits = reference.logits.argmax(axis=1) == test.labels
    with bar("cas, images", training["epochs"] * len(images)) as advance:
        return audit.accuracy_score(
            images,
            requested,
            test,
            of_reals=float(hits.mean()),
            training=training,
            on_epoch=lambda epoch, loss: advance(len(images), note=f"loss {loss:.3f}"),
            device=device,
        )


def _inception_weights(config: Evaluate, data: prepared.Prepared) -> inception.Weights | None:
    """Found before anything is sampled; None where the data set's own extractor judges."""
    if config.extractor != "inception":
        return None
    if data.manifest["kind"] != "image":
        raise UserError(
            f"evaluate.extractor: inception sees images, and {data.name} has none: set it to domain"
        )
    return inception.find(config.inception_weights)


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


def _say(metrics: dict[str, float], distance: str) -> None:
    told = (distance, f"{distance}_floor", "label_kl", "precision", "recall")
    log.info(
        "%s %.3g (reals at the same N: %.3g), label_kl %.4f, precision %.3f, recall %.3f",
        distance,
        *(metrics[key] for key in told),
    )
    if "reverse_kl" in metrics:
        log.info(
            "modes %d of %d, reverse KL %.4f (perfect sampler: %.4f)%s",
            *(metrics[key] for key in ("modes", "n_groups", "reverse_kl", "reverse_kl_floor")),
            f", {metrics['hq']:.1%} of high quality" if "hq" in metrics else "",
        )
    failed = [name for name, value in metrics.items() if name.startswith("control_") and not value]
    if failed:
        log.warning("%s failed: do not trust these figures", ", ".join(failed))


if __name__ == "__main__":
    logs.setup()
    launch.run(main, "pipeline.stages.evaluate")
