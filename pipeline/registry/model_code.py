"""The packaged generator as MLflow loads it: a request is a row, an answer is a row.

MLflow runs this file where the model is loaded. The modules of `pipeline` that it imports are in
the package's code/ folder, so neither the repository nor its package needs to be there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from pydantic import BaseModel, ConfigDict, Field, field_validator

import pipeline
from pipeline import grids
from pipeline.errors import UserError
from pipeline.networks.build import generator_from
from pipeline.registry import provenance
from pipeline.sampling import class_labels, generate, latents, requested_labels

FORMATS = ("png", "arrays", "grid")
MOST = 10_000  # samples of one request, all its rows together
MOST_BYTES = 256 * 2**20  # and of their pixels
SERVED_AS = "GAN_MODEL_VERSION"  # environment: the version's name, for the images' metadata
COLUMNS = 10  # of a grid


class SampleRequest(BaseModel):
    """One row: `n` samples of `seed`.

    label: a class by name or number; none: classes in the proportions of the training data, as the
    evaluation drew them. truncation: below 1 likelier samples, less variety. format: png (base64,
    one an image), arrays (nested lists of uint8, of points floats) or grid (one PNG of all).
    """

    model_config = ConfigDict(extra="forbid")

    n: int = Field(1, ge=1, le=MOST)
    seed: int = Field(0, ge=0, lt=2**63)
    label: str | None = None
    truncation: float = Field(1.0, gt=0, le=1)
    format: str = "png"

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {value!r}")
        return value


class SampleAnswer(BaseModel):
    """One row of the answer; what the request did not ask for is absent.

    `model` is the version that is served, `weights` the SHA-256 of the generator's file. `images`
    and `grid` are PNG files in base64, `arrays` uint8 images (n, H, W, C), `points` (n, D).
    """

    seed: int
    format: str
    model: str
    weights: str
    labels: list[int] | None = None
    images: list[str] | None = None
    grid: str | None = None
    arrays: list[list[list[list[int]]]] | None = None
    points: list[list[float]] | None = None


class Generator(PythonModel):
    """Samples on request, from the weights of the package."""

    def load_context(self, context: Any) -> None:
        from safetensors.torch import load_file

        folder = Path(context.artifacts["model"])
        _refuse_other_code(folder.parent.parent / "code" / "pipeline")
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = folder / "generator.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        if digest != self.config["weights"]["generator"]:
            raise MlflowException.invalid_parameter_value(
                f"{weights} has changed since it was packaged: its SHA-256 is {digest}"
            )
        self.generator = generator_from(self.config, load_file(weights))
        self.run = _run_id(folder.parent.parent)

    def predict(  # type: ignore[override]
        self, model_input: list[SampleRequest]
    ) -> list[SampleAnswer]:
        """A row of an answer for each row of the request.

        MLflow takes the schema from the hint and sends what it gets: plain dictionaries, as a
        million pixels would take long to validate.
        """
        self._refuse_too_much(model_input)
        return [self._answer(row) for row in model_input]  # type: ignore[misc]

    def sample(
        self,
        n: int,
        seed: int,
        label: str | None = None,
        truncation: float = 1.0,
        labelling: str = "data",
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Images uint8 (n, H, W, C), or points (n, D), and their classes (n,), None without."""
        labels = self.labels(n, seed, label, labelling)
        vectors = latents(n, self.config["generator"]["latent_dim"], seed)
        samples = generate(
            self.generator,
            vectors,
            labels,
            batch_size=self.config["sampled"]["batch_size"],
            truncation=truncation,
        )
        return samples, labels

    def labels(self, n: int, seed: int, label: str | None, labelling: str) -> np.ndarray | None:
        """The classes (n,) that a request stands for; None for an unconditional model.

        Where none is asked for: `data`, as many of each as the training data have, or `turn`.
        """
        classes, names = self.config["n_classes"], self.config["class_names"]
        if not classes or label is not None or labelling == "turn":
            return requested_labels(n, classes, names, label)
        return class_labels(self.config["class_counts"], n, seed)

    def _answer(self, row: SampleRequest) -> dict[str, Any]:
        try:
            samples, labels = self.sample(row.n, row.seed, row.label, row.truncation)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(
                str(error).replace("--label", "label")
            ) from None
        answer: dict[str, Any] = {
            "seed": row.seed,
            "format": row.format,
            "model": os.environ.get(SERVED_AS, ""),
            "weights": self.config["weights"]["generator"],
        }
        if labels is not None:
            answer["labels"] = labels.tolist()
        if row.format == "arrays":
            answer["arrays" if samples.ndim == 4 else "points"] = samples.tolist()
        elif row.format == "grid":
            picture = grids.grid(samples, min(row.n, COLUMNS))
            origin = self.origin(row, range(row.n))
            answer["grid"] = _base64(provenance.png(picture, next(origin)))
        else:
            origins = self.origin(row, range(row.n))
            answer["images"] = [
                _base64(provenance.png(image, origin))
                for image, origin in zip(samples, origins, strict=True)
            ]
        return answer

    def origin(self, row: SampleRequest, indices: range) -> Iterator[provenance.Origin]:
        """What the metadata of each image says."""
        for index in indices:
            yield provenance.Origin(
                model=os.environ.get(SERVED_AS, ""),
                weights=self.config["weights"]["generator"],
                run=self.run,
                seed=row.seed,
                index=None if row.format == "grid" else index,
                n=row.n,
                label=row.label or "",
                truncation=row.truncation,
            )

    def _refuse_too_much(self, rows: list[SampleRequest]) -> None:
        shape = self.config["generator"]["shape"]
        if len(shape) == 1 and any(row.format != "arrays" for row in rows):
            raise MlflowException.invalid_parameter_value(
                "format: this model makes points, which have no picture: arrays"
            )
        most = min(MOST, MOST_BYTES // int(np.prod(shape)))
        total = sum(row.n for row in rows)
        if total > most:
            raise MlflowException.invalid_parameter_value(
                f"n: {total} samples in one request; this model gives at most {most}"
            )


def _refuse_other_code(folder: Path) -> None:
    """Two packages in one process would share the modules of whichever came first."""
    loaded = Path(pipeline.__file__).parent
    if loaded.resolve() == folder.resolve():
        return
    for file in folder.rglob("*.py"):
        other = loaded / file.relative_to(folder)
        if not other.is_file() or other.read_bytes() != file.read_bytes():
            raise MlflowException.invalid_parameter_value(
                f"this process has loaded another version of {file.relative_to(folder.parent)} "
                f"from {loaded}: load each packaged model in a process of its own"
            )


def _run_id(root: Path) -> str:
    from mlflow.models import Model

    return Model.load(str(root)).run_id or ""


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


set_model(Generator())
