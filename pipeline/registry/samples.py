"""Samples as files that say where they came from, and a manifest of each batch.

The manifest has the SHA-256 of every file and of its pixels, and is logged with the model's run, so
that an image is known even where its metadata was stripped.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, grids
from pipeline.networks.build import load_generator
from pipeline.registry import fresh, package, provenance
from pipeline.registry.provenance import Origin
from pipeline.sampling import requested_labels, sample_images
from pipeline.tracking import deliver, models, runs, store

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FOLDER = "samples"  # the artifact folder of a run's manifests
TAG = "has_samples"
COLUMNS = 10


@dataclass(frozen=True)
class Batch:
    """Samples uint8 (n, H, W, C) or points (n, D), and what all of them share."""

    samples: np.ndarray
    origin: Origin
    train_key: str
    experiment: str = ""


def of_folder(
    folder: Path,
    *,
    which: str,
    n: int,
    seed: int,
    label: str | None = None,
    truncation: float = 1.0,
    reject: bool = False,
) -> tuple[Batch, float | None]:
    """Samples of a training's generator, and the share that D accepted where it chose."""
    generator, config = load_generator(folder, which=which)
    labels = requested_labels(n, config["n_classes"], config["class_names"], label)
    share = None
    if reject:
        from pipeline import rejection

        samples, share = rejection.of_training(
            generator, folder, n=n, seed=seed, labels=labels, truncation=truncation
        )
    else:
        samples = sample_images(generator, n=n, seed=seed, labels=labels, truncation=truncation)
    origin = Origin(
        model="",
        weights=config["weights"][which],
        run=config["train_key"],
        seed=seed,
        index=None,
        n=n,
        label=label or "",
        truncation=truncation,
        labelling="turn",
        selection="reject" if reject else "",
    )
    return Batch(samples, origin, config["train_key"]), share


def of_model(
    uri: str,
    *,
    n: int,
    seed: int,
    label: str | None = None,
    truncation: float = 1.0,
    labelling: str = "turn",
) -> Batch:
    """Samples of a registered model, by its package in a process of its own."""
    from pipeline.config import load_params
    from pipeline.registry.lineage import version_at

    client, _ = deliver.reach(load_params().tracking.experiment)
    version = version_at(client, uri)
    folder = models.fetch(f"models:/{version.name}/{version.version}", tag=uri)
    config = package.read_config(folder)
    if label is not None:  # a wrong class is said here, not by the process
        requested_labels(n, config["n_classes"], config["class_names"], label)
    samples, _ = fresh.sample(
        folder, n=n, seed=seed, label=label, truncation=truncation, labelling=labelling
    )
    origin = Origin(
        model=f"{version.name}/{version.version}",
        weights=config["weights"]["generator"],
        run=version.run_id or "",
        seed=seed,
        index=None,
        n=n,
        label=label or "",
        truncation=truncation,
        labelling=labelling,
    )
    return Batch(samples, origin, config["train_key"])


def write(batch: Batch, out: Path, *, as_grid: bool) -> Path:
    """Write a PNG an image, or one grid of all; and the manifest. Returns where they are.

    A grid goes to `out` where that is a .png file, else to grid.png in it.
    """
    samples = batch.samples
    entries = []
    if as_grid:
        path = out if out.suffix == ".png" else out / "grid.png"
        scale = max(1, 64 // samples.shape[1])
        picture = grids.grid(samples, min(len(samples), COLUMNS))
        picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        entries.append(_write(path, picture, dataclasses.replace(batch.origin, scale=scale)))
        manifest = path.with_suffix(".json")
    else:
        path = out
        for i, image in enumerate(samples):
            origin = dataclasses.replace(batch.origin, index=i)
            name = f"seed{origin.seed}_{i:05d}.png"
            entries.append(_write(out / name, image, origin))
        manifest = out / MANIFEST
    files.write_json(
        manifest,
        {**dataclasses.asdict(batch.origin), "train_key": batch.train_key, "files": entries},
    )
    _log(manifest, batch)
    return path


def _write(path: Path, picture: np.ndarray, origin: Origin) -> dict[str, Any]:
    files.write_bytes(path, provenance.png(picture, origin))
    return {
        "name": path.name,
        "index": origin.index,
        "sha256": files.file_hash(path),
        "pixels_sha256": package.samples_hash(picture),
    }


def _log(manifest: Path, batch: Batch) -> None:
    """Log the manifest with the training's run; a warning where that cannot be."""
    from pipeline.config import load_params

    try:
        client, experiment_id = store.ready(load_params().tracking.experiment)
        run = runs.find(client, experiment_id, "train", batch.train_key)
        if run is None:
            log.warning("no run has this training, so %s is logged with none: gan sync", manifest)
            return
        name = f"{files.file_hash(manifest)[:16]}.json"
        client.log_text(run.info.run_id, manifest.read_text(encoding="utf-8"), f"{FOLDER}/{name}")
        client.set_tag(run.info.run_id, TAG, "true")
    except Exception as error:  # MLflow, requests, SQLAlchemy and storage clients raise their own
        log.warning(
            "MLflow at %s did not take the manifest (%s); it is in %s",
            store.shown_uri(),
            deliver.reason(error),
            manifest,
        )
