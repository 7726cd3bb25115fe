"""Models of MLflow's registry, as files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import store


def fetch(uri: str) -> Path:
    """Download the artifacts of `uri` (models:/NAME@ALIAS, models:/NAME/VERSION) to a new folder.

    Raises UserError where the store has no such model or cannot be reached.
    """

    for name, value in store.SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    mlflow.set_tracking_uri(store.uri())
    mlflow.set_registry_uri(store.uri())
    try:
        folder = mlflow.artifacts.download_artifacts(uri, dst_path=tempfile.mkdtemp(prefix="gan-"))
    except Exception as error:  # MLflow, requests, SQLAlchemy and storage clients raise their own
        raise UserError(f"model.init_from: {uri} cannot be fetched: {error}") from error
    return Path(folder)
