"""Sample the trained generator and measure the samples against the test split."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np

from pipeline import (
    evaluation,
    extractor,
    files,
    inception,
    launch,
    lineage,
    logs,
    paths,
    scoring,
)
from pipeline.config import check, read_yaml
from pipeline.datasets import prepared
from pipeline.errors import UserError
from pipeline.evaluated import PER_CLASS
from pipeline.grids import one_class_a_row, save_grid, save_png
from pipeline.networks.build import load_generator
from pipeline.progress import bar
from pipeline.registry import package
from pipeline.sampling import class_labels, sample_images
from pipeline.scatter import scatter
from pipeline.schema import Evaluate
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
    n = _number_of_samples(config, data)
    labels = class_labels(counts, n, config.seed) if trained["n_classes"] else None
    inputs = lineage.stage_inputs("evaluate", values)
    weights = _inception_weights(config, data)
    if weights:  # what is in the file decides the figures, not where it is
        inputs["params"]["evaluate.inception_weights"] = weights.sha256
    launch.agree(inputs)
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
    judge = scoring.Judge(
        data=data,
        network=extractor.load(),
        config=extractor.load_config(),
        weights=weights,
        settings=evaluation.Settings(
            neighbours=config.neighbours, bootstraps=config.bootstraps, seed=config.seed
        ),
        cas=config.cas,
        batch_size=config.batch_size,
        device=device,
    )
    seen = scoring.see(images, labels, judge)
    if not launch.leave():
        return
    scored = scoring.score(images, labels, judge, seen, eval_key=run.key)
    metrics, table = scored.metrics, scored.table
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"{', '.join(bad)} cannot be computed from these samples: look at the newest grid of "
            f"{paths.TRAIN_REPORT} and train again (lower rates, another loss)"
        )
    with files.atomic_folder(paths.EVALUATION) as folder:
        scored.samples.write(folder)
    with files.atomic_folder(paths.EVALUATION_REPORT) as folder:
        _draw(folder / "samples.png", images, labels, data)
        protocol = scoring.protocol(judge, extractor=config.extractor, n_fake=n)
        files.write_json(folder / "protocol.json", protocol)
        if table:
            files.write_table(folder / PER_CLASS, [vars(row) for row in table])
        record.finish(run, metrics=metrics).write(folder)
    files.write_json(paths.METRICS, metrics)
    files.write_json(paths.PROTOCOL, [protocol])  # a mapping's values DVC would show as figures
    package.write(
        paths.PACKAGE,
        paths.GENERATOR,
        which=config.checkpoint,
        eval_key=run.key,
        samples=images,
        seed=config.seed,
        batch_size=config.batch_size,
        device=device.type,
    )
    _say(metrics, scored.key)
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


def _inception_weights(config: Evaluate, data: prepared.Prepared) -> inception.Weights | None:
    """Found before anything is sampled; None where the data set's own extractor judges."""
    if config.extractor != "inception":
        return None
    if data.manifest["kind"] != "image":
        raise UserError(
            f"evaluate.extractor: inception sees images, and {data.name} has none: set it to domain"
        )
    return inception.find(config.inception_weights)


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
