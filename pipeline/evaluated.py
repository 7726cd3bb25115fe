"""An evaluation as its stage leaves it: figures, protocol, and what its extractors saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files

ABOUT = "evaluation.json"
PER_CLASS = "per_class.csv"
# Where distances are measured in features other than those of the data set's own extractor.
SPACE, SPACE_REAL = "space.npy", "space_real.npy"


@dataclass(frozen=True)
class Samples:
    """What another evaluation of the same protocol can be compared with, pair by pair.

    Of the samples and of the reals they were held to: features (N, d), (M, d) and logits (N, K),
    (M, K) of the data set's own extractor, and `space` (N, D), (M, D), the features in which
    distances are measured. `labels` (N,): the classes asked for, or None. `data` is the manifest of
    the prepared data, `eval_key` names the evaluation.
    """

    features: np.ndarray
    logits: np.ndarray
    real_features: np.ndarray
    real_logits: np.ndarray
    space: np.ndarray
    space_real: np.ndarray
    labels: np.ndarray | None
    data: dict[str, Any]
    eval_key: str

    def write(self, folder: Path) -> None:
        """Write the arrays and evaluation.json."""
        np.save(folder / "features.npy", self.features)
        np.save(folder / "logits.npy", self.logits)
        np.save(folder / "real_features.npy", self.real_features)
        np.save(folder / "real_logits.npy", self.real_logits)
        if self.space is not self.features:
            np.save(folder / SPACE, self.space)
            np.save(folder / SPACE_REAL, self.space_real)
        if self.labels is not None:
            np.save(folder / "labels.npy", self.labels)
        files.write_json(folder / ABOUT, {"eval_key": self.eval_key, "data": self.data})

    @classmethod
    def read(cls, folder: Path) -> Samples:
        """What `write` wrote. Raises FileNotFoundError where some of it is missing."""
        features, real_features = (np.load(folder / f"{x}features.npy") for x in ("", "real_"))
        apart = (folder / SPACE).exists()
        labels = folder / "labels.npy"
        return cls(
            features=features,
            logits=np.load(folder / "logits.npy"),
            real_features=real_features,
            real_logits=np.load(folder / "real_logits.npy"),
            space=np.load(folder / SPACE) if apart else features,
            space_real=np.load(folder / SPACE_REAL) if apart else real_features,
            labels=np.load(labels) if labels.exists() else None,
            **files.read_json(folder / ABOUT),
        )


@dataclass(frozen=True)
class Evaluated:
    """One evaluation. `missing` says why there are no `samples`."""

    name: str
    metrics: dict[str, float]
    protocol: dict[str, Any]
    samples: Samples | None = None
    missing: str = ""
