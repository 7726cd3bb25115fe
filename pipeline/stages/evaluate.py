"""Sample the trained generator and measure the samples against the test split."""

from __future__ import annotations

import logging

import numpy as np

from pipeline import errors, evaluation, extractor, files, lineage, logs, paths
from pipeline.config import check, read_yaml
from pipeline.datasets import prepared
from pipeline.grids import save_grid
from pipeline.networks import load_generator
from pipeline.progress import bar
from pipeline.sampling import class_labels, sample_images
from pipeline.tracking import record
from pipeline.tracking.deliver import deliver_or_keep
from pipeline.training.devices import pick_device

log = logging.getLogger(__name__)

GRID_COLUMNS = 10
GRID_ROWS = 20


def main() -> None:
    values = read_yaml(paths.PARAMS)
    params = check(values)
    config = params.evaluate
    data = prepared.load()
    counts = data.manifest["splits"]["train"]["class_counts"]
    device = pick_device(params.train.device)
    generator, trained = load_generator(paths.GENERATOR, which=config.checkpoint)
    judge, judge_config = extractor.load(), extractor.load_config()
    labels = class_labels(counts, config.samples, config.seed) if trained["n_classes"] else None
    run = record.start(
        "evaluate",
        lineage.stage_key(lineage.stage_inputs("evaluate", values), trained["train_key"]),
        experiment=params.tracking.experiment,
        params={"evaluate": values["evaluate"]},
        dataset={"name": data.name, "digest": data.digest, "source": params.data.source},
        train_key=trained["train_key"],
    )

    with bar("evaluate, steps", 2 + len(evaluation.FAMILIES)) as advance:
        images = sample_images(
            generator,
            n=config.samples,
            seed=config.seed,
            labels=labels,
            batch_size=config.batch_size,
            device=device,
        )
        advance(note="sampled")
        features, logits = extractor.extract(
            judge, images, batch_size=config.batch_size, device=device
        )
        advance(note="features")
        reference = evaluation.build_reference(
            np.load(paths.FEATURES / "test.npy"),
            np.load(paths.FEATURES / "test_logits.npy"),
            counts,
        )
        metrics = evaluation.evaluate(
            evaluation.Fakes(features, logits, images, labels),
            reference,
            evaluation.Settings(
                np.load(paths.FEATURES / "train.npy"),
                neighbours=config.neighbours,
                bootstraps=config.bootstraps,
                seed=config.seed,
            ),
            on_family=lambda name: advance(note=name),
        )
    protocol = evaluation.protocol(
        extractor=config.extractor,
        extractor_digest=judge_config["digest"],
        n_real=len(reference.features),
        n_fake=len(images),
        split="test",
        split_sha256=data.manifest["splits"]["test"]["sha256"],
        image_size=data.image_size,
        channels=data.channels,
        resize_filter=data.manifest["resize_filter"],
        neighbours=config.neighbours,
        bootstraps=config.bootstraps,
        seed=config.seed,
    )
    with files.atomic_folder(paths.EVALUATION) as folder:
        np.save(folder / "features.npy", features)
        np.save(folder / "logits.npy", logits)
        if labels is not None:
            np.save(folder / "labels.npy", labels)
    with files.atomic_folder(paths.EVALUATION_REPORT) as folder:
        save_grid(folder / "samples.png", uncurated(images, labels), GRID_COLUMNS)
        files.write_json(folder / "protocol.json", protocol)
        record.finish(run, metrics=metrics).write(folder)
    files.write_json(paths.METRICS, metrics)
    _say(metrics)
    deliver_or_keep("evaluate")


def uncurated(images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """The first samples for a grid of 10 columns: one class a row, where classes were asked for."""
    if labels is None:
        return images[: GRID_COLUMNS * GRID_COLUMNS]
    rows = []
    for label in np.unique(labels)[:GRID_ROWS]:
        row = images[labels == label][:GRID_COLUMNS]
        blank = np.full((GRID_COLUMNS - len(row), *images.shape[1:]), 255, np.uint8)
        rows += [row, blank]
    return np.concatenate(rows)


def _say(metrics: dict[str, float]) -> None:
    log.info(
        "fd %.2f (reals at the same N: %.2f), label_kl %.4f, precision %.3f, recall %.3f",
        *(metrics[key] for key in ("fd", "fd_floor", "label_kl", "precision", "recall")),
    )
    failed = [name for name, value in metrics.items() if name.startswith("control_") and not value]
    if failed:
        log.warning("%s failed: do not trust these figures", ", ".join(failed))


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
