"""Where things lie. Stage outs are relative to the working directory; what outlives a run is not.

`dvc exp run --temp` and queue runs work in a temporary copy of the repository, which vanishes
with them. What several runs share (checkpoints, downloads, the MLflow store) therefore lies under
`shared_root()`, the repository that the user sees.
"""

from __future__ import annotations

import os
from pathlib import Path

PARAMS = Path("params.yaml")
DVC_YAML = Path("dvc.yaml")
PRESETS = Path("presets")

PREPARED = Path("data/prepared")
FEATURES = Path("models/features")
GENERATOR = Path("models/generator")
DISCRIMINATOR = Path("models/discriminator")
EVALUATION = Path("models/evaluation")
PACKAGE = Path("models/package")
TRAIN_REPORT = Path("reports/train")
EVALUATION_REPORT = Path("reports/evaluation")
METRICS = Path("reports/metrics.json")
PROTOCOL = Path("reports/protocol.json")  # that of METRICS, in git beside it
REPORT = Path("reports/index.html")


def shared_root() -> Path:
    """The user's repository: `$DVC_ROOT` inside a DVC stage, else the working directory."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def checkpoints() -> Path:
    return shared_root() / ".checkpoints"


def downloads() -> Path:
    return shared_root() / ".cache" / "downloads"


def benchmarks() -> Path:
    return shared_root() / ".cache" / "benchmarks"


def feature_cache() -> Path:
    """Features of reals by an extractor that takes long, named by content."""
    return shared_root() / ".cache" / "features"


def undelivered() -> Path:
    """Runs that no tracking server has taken yet; `gan sync` delivers them."""
    return shared_root() / ".undelivered"


def tuning() -> Path:
    """The studies of `gan tune`, and what their trials leave behind."""
    return shared_root() / ".tuning"
