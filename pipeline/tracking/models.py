"""Models in MLflow: the packages that evaluations log, and those of the registry as files."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import UserError
from pipeline.tracking import store
from pipeline.tracking.record import RunRecord

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.tracking import MlflowClient

CONFIG = Path("artifacts/model/config.json")  # in a package


def is_of(package: Path, eval_key: str) -> bool:
    """Does the folder hold the package of this evaluation?"""
    config = package / CONFIG
    return config.is_file() and files.read_json(config)["eval_key"] == eval_key


def log(
    client: MlflowClient, experiment_id: str, run_id: str, package: Path, evaluation: RunRecord
) -> LoggedModel | None:
    """The model of an evaluation, made from its package by the training run `run_id`.

    One that was only half uploaded is uploaded again. None where `package` is of another
    evaluation and the store has none of this one.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    model = find(client, experiment_id, run_id, evaluation.key)
    if model is not None and model.status == LoggedModelStatus.READY:
        return model
    if not is_of(package, evaluation.key):
        return None
    config = files.read_json(package / CONFIG)
    if model is None:
        model = client.create_logged_model(
            experiment_id,
            name=f"generator-{evaluation.key[:8]}",
            source_run_id=run_id,
            tags={
                "train_key": evaluation.train_key,
                "eval_key": evaluation.key,
                "weights_sha256": config["weights"]["generator"],
            },
            params={
                **{key: str(value) for key, value in config["generator"].items()},
                "checkpoint": config["checkpoint"],
                "best_step": str(config["best_step"]),
            },
            model_type="generator",
        )
    _upload(client, model, package, run_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def find(
    client: MlflowClient, experiment_id: str, run_id: str, eval_key: str
) -> LoggedModel | None:
    """The model that an evaluation logged; `run_id` is its training's run."""
    found = client.search_logged_models([experiment_id], f"tags.eval_key = '{eval_key}'")
    # A deleted training leaves its model behind, which must not be taken for this one's.
    return next((model for model in found if model.source_run_id == run_id), None)


def _upload(client: MlflowClient, model: LoggedModel, package: Path, run_id: str) -> None:
    """The package's files, and an MLmodel that knows its run and its own id."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "model"
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        described = Model.load(str(copy))
        described.run_id, described.model_id = run_id, model.model_id
        described.artifact_path = model.artifact_location
        described.save(str(copy / "MLmodel"))
        client.log_model_artifacts(model.model_id, str(copy))


def fetch(uri: str, tag: str = "model.init_from") -> Path:
    """Download the artifacts of `uri` (models:/NAME@ALIAS, models:/NAME/VERSION) to a new folder.

    It is removed when this process ends.
    Raises UserError, which begins with `tag`, where the store has no such model or cannot be
    reached.
    """
    store.settle()
    import mlflow

    mlflow.set_tracking_uri(store.uri())
    mlflow.set_registry_uri(store.uri())
    folder = tempfile.mkdtemp(prefix="gan-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
    except Exception as error:  # MLflow, requests, SQLAlchemy and storage clients raise their own
        raise UserError(f"{tag}: {uri} cannot be fetched: {error}") from error
