"""Which model, seed and index made an image: by its metadata or its pixels, proved by making it."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files, grids, paths
from pipeline.errors import UserError
from pipeline.registry import credentials, fresh, package, provenance, samples
from pipeline.registry.credentials import Credentials
from pipeline.registry.provenance import Origin
from pipeline.tracking import models

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Traced:
    """`found_by`: metadata or pixels. `proved`: made again, the pixels are the same.

    `model` is what made it again: a version, or a folder. `credentials`: what C2PA's say, where the
    image has any and c2pa-python is here.
    """

    origin: Origin
    found_by: str
    model: str
    proved: bool
    text: str
    credentials: Credentials | None = None


def trace(client: MlflowClient, image: Path) -> Traced:
    """Raises UserError where nothing says where the image came from, or its model is gone."""
    picture = _read(image)
    origin, found_by = origin_of(image), "metadata"
    if origin is None:
        origin, found_by = _by_pixels(client, picture), "pixels"
    if origin is None:
        raise UserError(
            f"{image} has no metadata of this pipeline, and no manifest in the store has its "
            "pixels: it was made elsewhere, or changed since"
        )
    for model, make in _makers(client, origin):
        again = make()
        same = again.shape == picture.shape and bool(np.array_equal(again, picture))
        text = "made again, pixel for pixel" if same else _difference(again, picture)
        return Traced(origin, found_by, model, same, text, _credentials(image))
    raise UserError(
        f"{image} says that it is of weights {origin.weights[:12]}, which neither a registered "
        f"version nor {paths.GENERATOR} has"
    )


def _credentials(image: Path) -> Credentials | None:
    known = image.suffix in credentials.FORMATS and credentials.has_library()
    return credentials.read(image) if known else None


def origin_of(image: Path) -> Origin | None:
    """What the image's metadata say; None where they say nothing of this pipeline."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image) as opened:
            opened.load()
            packet = opened.info.get(provenance.KEYWORD) or opened.info.get("xmp", "")
    except FileNotFoundError:
        raise UserError(f"{image} does not exist") from None
    except UnidentifiedImageError:
        raise UserError(f"{image} is no image") from None
    return provenance.parse(packet.decode() if isinstance(packet, bytes) else packet)


def _read(image: Path) -> np.ndarray:
    """uint8 (H, W, 1 or 3)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image) as opened:
            picture = np.asarray(
                opened.convert("L" if opened.mode in ("1", "L", "I;16") else "RGB")
            )
    except FileNotFoundError:
        raise UserError(f"{image} does not exist") from None
    except UnidentifiedImageError:
        raise UserError(f"{image} is no image") from None
    return picture if picture.ndim == 3 else picture[:, :, None]


def _by_pixels(client: MlflowClient, picture: np.ndarray) -> Origin | None:
    """The origin by the manifests in the store."""
    digest = package.samples_hash(picture)
    experiments = [x.experiment_id for x in client.search_experiments()]
    for run in client.search_runs(experiments, f"tags.{samples.TAG} = 'true'"):
        for file in client.list_artifacts(run.info.run_id, samples.FOLDER):
            with tempfile.TemporaryDirectory() as scratch:
                manifest = files.read_json(
                    Path(client.download_artifacts(run.info.run_id, file.path, scratch))
                )
            for entry in manifest["files"]:
                if entry["pixels_sha256"] == digest:
                    known = {key: manifest[key] for key in Origin.__dataclass_fields__}
                    return Origin(**{**known, "index": entry["index"]})
    return None


def _makers(client: MlflowClient, origin: Origin) -> Any:
    """What can make it again: registered versions of its weights, then the workspace."""
    request: dict[str, Any] = {
        "n": origin.n,
        "seed": origin.seed,
        "label": origin.label or None,
        "truncation": origin.truncation,
    }
    if not origin.selection:
        found = client.search_model_versions(f"tags.weights_sha256 = '{_hex(origin.weights)}'")
        for version in sorted(found, key=lambda v: f"{v.name}/{v.version}" != origin.model):
            uri = f"models:/{version.name}/{version.version}"

            def from_package(uri: str = uri) -> np.ndarray:
                made, _ = fresh.sample(
                    models.fetch(uri, tag=uri), **request, labelling=origin.labelling
                )
                return _pick(made, origin)

            yield uri, from_package
    for which in ("best", "last"):
        path = paths.GENERATOR / f"{which}.safetensors"
        if path.is_file() and files.file_hash(path) == origin.weights:

            def from_folder(which: str = which) -> np.ndarray:
                made, _ = samples.of_folder(
                    paths.GENERATOR, which=which, reject=bool(origin.selection), **request
                )
                return _pick(made.samples, origin)

            yield str(path), from_folder


def _pick(made: np.ndarray, origin: Origin) -> np.ndarray:
    if origin.index is not None:
        return made[origin.index]
    picture = grids.grid(made, min(origin.n, samples.COLUMNS))
    return picture.repeat(origin.scale, axis=0).repeat(origin.scale, axis=1)


def _difference(again: np.ndarray, picture: np.ndarray) -> str:
    if again.shape != picture.shape:
        return f"it is {picture.shape[1]} x {picture.shape[0]} pixels, not as it was made"
    apart = np.abs(again.astype(int) - picture)
    return (
        f"{(apart > 0).mean():.1%} of its pixels are not those that the model makes "
        f"(by up to {apart.max()} of 255): it was changed, or the processor is another"
    )


def _hex(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise UserError(f"its metadata name no weights: {text[:20]!r}")
    return text


def to_json(traced: Traced) -> str:
    return json.dumps(dataclasses.asdict(traced), indent=2)
