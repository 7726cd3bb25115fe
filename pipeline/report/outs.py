"""What the stages wrote, read for the page."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import extractor, files, paths
from pipeline.datasets import prepared
from pipeline.evaluated import PER_CLASS
from pipeline.metrics.per_class import ClassFigures
from pipeline.tracking.deliver import EVENTS, PROTOCOL, read_history
from pipeline.tracking.record import RunRecord


@dataclass(frozen=True)
class Outs:
    """The outs of prepare, features, train and evaluate.

    `history` maps each column to float64 (rows,), NaN where the cell is empty. `features` (N, d),
    `logits` (N, K) and `labels` (N,), the classes asked for or None, are those of the evaluated
    samples; `train_features` and `test_features` of the reals, memory-mapped. `per_class` is empty
    where the model is not conditional. `events` (step, kind, text) are what the training told.
    `told`: how the extractor did on val, None where there was nothing to tell.
    """

    data: prepared.Prepared
    training: RunRecord
    evaluation: RunRecord
    history: dict[str, np.ndarray]
    grids: Path
    metrics: dict[str, float]
    protocol: dict[str, Any]
    model: dict[str, Any]
    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray | None
    per_class: list[ClassFigures]
    train_features: np.ndarray
    test_features: np.ndarray
    events: list[dict[str, str]]
    told: extractor.Told | None

    @property
    def checkpoint(self) -> str:
        """Which checkpoint was evaluated: best or last."""
        return str(self.evaluation.params["evaluate.checkpoint"])

    @property
    def seed(self) -> int:
        """Seed of the evaluated samples' latent vectors."""
        return int(self.evaluation.params["evaluate.seed"])

    @property
    def blind(self) -> extractor.Told | None:
        """How the extractor did where it was near chance, else None."""
        return self.told if self.told is not None and self.told.blind else None

    @property
    def class_counts(self) -> np.ndarray | None:
        """Training images (K,) of each class; None without labels that could be told."""
        counts = self.data.manifest["splits"]["train"]["class_counts"]
        if self.blind:
            return None
        return None if counts is None else np.asarray(counts)


def load(root: Path = Path()) -> Outs:
    """Read the outs below `root`."""
    evaluation, data = root / paths.EVALUATION, prepared.load(root / paths.PREPARED)
    labels = evaluation / "labels.npy"
    return Outs(
        data=data,
        training=RunRecord.read(root / paths.TRAIN_REPORT),
        evaluation=RunRecord.read(root / paths.EVALUATION_REPORT),
        history=_columns(root / paths.TRAIN_REPORT / "history.csv"),
        grids=root / paths.TRAIN_REPORT / "grids",
        metrics=files.read_json(root / paths.METRICS),
        protocol=files.read_json(root / paths.EVALUATION_REPORT / PROTOCOL),
        model=files.read_json(root / paths.GENERATOR / "config.json"),
        features=np.load(evaluation / "features.npy", mmap_mode="r"),
        logits=np.load(evaluation / "logits.npy", mmap_mode="r"),
        labels=np.load(labels) if labels.exists() else None,
        per_class=read_per_class(root / paths.EVALUATION_REPORT / PER_CLASS),
        train_features=np.load(root / paths.FEATURES / "train.npy", mmap_mode="r"),
        test_features=np.load(root / paths.FEATURES / "test.npy", mmap_mode="r"),
        events=_rows(root / paths.TRAIN_REPORT / EVENTS),
        told=extractor.told(data, root / paths.FEATURES),
    )


def read_per_class(path: Path) -> list[ClassFigures]:
    """The rows of per_class.csv; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            ClassFigures(
                label=int(row["label"]),
                n_fake=int(row["n_fake"]),
                n_real=int(row["n_real"]),
                fd=float(row["fd"]),
                fd_floor=float(row["fd_floor"]),
                accuracy=float(row["accuracy"]),
            )
            for row in csv.DictReader(file)
        ]


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _columns(path: Path) -> dict[str, np.ndarray]:
    rows = read_history(path)
    names = list(rows[0]) if rows else []
    return {name: np.array([row[name] for row in rows], dtype=float) for name in names}
