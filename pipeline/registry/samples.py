"""Samples as files that say where they came from, and a manifest of each batch.

The manifest has the SHA-256 of every file and of its pixels, and is logged with the model's run, so
that an image is known even where its metadata was stripped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, grids, outputs
from pipeline.errors import UserError
from pipeline.networks.build import load_generator
from pipeline.registry import credentials, fresh, package, provenance, trained
from pipeline.registry.provenance import Origin
from pipeline.sampling import requested_labels, sample_images
from pipeline.tracking import deliver, runs, store

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FOLDER = "samples"  # the artifact folder of a run's manifests
TAG = "has_samples"
COLUMNS = 10
ARCHIVE, TABLE = ".zip", ".csv"


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
    """Samples of a training's generator, and the share that D accepted where it chose.

    Raises UserError where the folder holds none.
    """
    trained.check(folder, ("config.json", f"{which}.safetensors"))
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
    from pipeline.config import load_tracking
    from pipeline.registry.lineage import fetch_version

    client, _ = deliver.reach(load_tracking().experiment)
    version, folder = fetch_version(client, uri)
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


def is_file(out: Path, *, as_grid: bool) -> bool:
    """Whether all goes into the one file `out`, and not into a folder of that name."""
    return out.suffix == ".png" if as_grid else out.suffix in (ARCHIVE, TABLE)


def check_out(out: Path, *, as_grid: bool) -> None:
    """Raises UserError where `out` cannot be written, or a folder would have an image's name."""
    from PIL import Image

    if is_file(out, as_grid=as_grid):
        outputs.check_file(out)
        return
    if not out.is_dir() and out.suffix.lower() in Image.registered_extensions():
        raise UserError(
            f"--out {out}: a grid is a PNG; name it NAME.png, or give a folder"
            if as_grid
            else f"--out {out}: one picture of all takes --grid and NAME.png; else give a folder "
            "or NAME.zip"
        )
    outputs.check_folder(out)


def write(
    batch: Batch, out: Path, *, as_grid: bool, signing: credentials.Signing | None = None
) -> Path:
    """Write a PNG an image, or one grid of all; and the manifest. Returns where they are.

    A grid goes to `out` where that is a .png file, else to grid.png in it. Where `out` is a .zip
    file, the images and the manifest are in it. Grids and archives are signed where `signing` says
    with what. In a folder the manifest keeps what it says of other images there.
    """
    samples = batch.samples
    entries: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    if out.suffix == ARCHIVE:
        return _write_archive(batch, out, signing)
    if as_grid:
        path = out if out.suffix == ".png" else out / "grid.png"
        scale = max(1, 64 // samples.shape[1])
        picture = grids.grid(samples, min(len(samples), COLUMNS))
        picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        origin = dataclasses.replace(batch.origin, scale=scale)
        entries.append(_write(path, picture, origin, signing))
        manifest = path.with_suffix(".json")
    else:
        path = out
        names = {_name(origin) for origin in _origins(batch)}
        others = _others(out / MANIFEST, names)
        for image, origin in zip(samples, _origins(batch), strict=True):
            entries.append(_write(out / _name(origin), image, origin))
        manifest = out / MANIFEST
    told = _manifest(batch, entries)
    files.write_json(manifest, {**told, "earlier": others} if others else told)
    _log(told, manifest, batch)
    return path


def _others(manifest: Path, names: set[str]) -> list[dict[str, Any]]:
    """The manifests of earlier batches in the same folder, of files that are there and stay.

    Raises UserError where the file is none of ours.
    """
    if not manifest.exists():
        return []
    try:
        last = files.read_json(manifest)
        batches = [last, *last.pop("earlier", [])]
        for batch in batches:
            batch["files"] = [
                entry
                for entry in batch["files"]
                if entry["name"] not in names and (manifest.parent / entry["name"]).is_file()
            ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(
            f"{manifest} is no manifest of samples and would be lost: give --out another folder"
        ) from None
    return [batch for batch in batches if batch["files"]]


def _write_archive(batch: Batch, out: Path, signing: credentials.Signing | None) -> Path:
    """The images and their manifest in one file; the manifest is beside it, too."""
    with tempfile.TemporaryDirectory() as scratch:
        inner = Path(scratch)
        entries = [
            _write(inner / _name(origin), image, origin)
            for image, origin in zip(batch.samples, _origins(batch), strict=True)
        ]
        told = _manifest(batch, entries)
        files.write_json(inner / MANIFEST, told)
        out.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(out, "w") as archive:  # PNGs are compressed
            for path in sorted(inner.iterdir()):
                entry = zipfile.ZipInfo(path.name)  # the same content is the same file
                archive.writestr(entry, path.read_bytes())
        manifest = out.with_suffix(".json")
        shutil.copyfile(inner / MANIFEST, manifest)
    if signing is not None:
        credentials.sign(out, signing, batch.origin)
    _log(told, manifest, batch)
    return out


def _origins(batch: Batch) -> Iterator[Origin]:
    for i in range(len(batch.samples)):
        yield dataclasses.replace(batch.origin, index=i)


def _name(origin: Origin) -> str:
    return f"seed{origin.seed}_{origin.index:05d}.png"


def _manifest(batch: Batch, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {**dataclasses.asdict(batch.origin), "train_key": batch.train_key, "files": entries}


def _write(
    path: Path,
    picture: np.ndarray,
    origin: Origin,
    signing: credentials.Signing | None = None,
) -> dict[str, Any]:
    files.write_bytes(path, provenance.png(picture, origin))
    if signing is not None:
        credentials.sign(path, signing, origin)
    return {
        "name": path.name,
        "index": origin.index,
        "sha256": files.file_hash(path),
        "pixels_sha256": package.samples_hash(picture),
    }


def _log(told: dict[str, Any], manifest: Path, batch: Batch) -> None:
    """Log the batch's manifest with the training's run; a warning where that cannot be."""
    from pipeline.config import load_tracking

    try:
        client, experiment_id = store.ready(load_tracking().experiment)
        run = runs.find(client, experiment_id, "train", batch.train_key)
        if run is None:
            log.warning("no run has this training, so %s is logged with none: gan sync", manifest)
            return
        text = json.dumps(told, indent=2) + "\n"
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        client.log_text(run.info.run_id, text, f"{FOLDER}/{name}")
        client.set_tag(run.info.run_id, TAG, "true")
    except Exception as error:  # MLflow, requests, SQLAlchemy and storage clients raise their own
        log.warning(
            "MLflow at %s did not take the manifest (%s); it is in %s",
            store.shown_uri(),
            deliver.reason(error),
            manifest,
        )
