"""From a version to everything that it came from, and from any of that back to versions."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.tracking import evaluations, locks, models
from pipeline.tracking.record import DIFF, PARAMS

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking import MlflowClient

PARAMS_FILE = f"config/{PARAMS}"
DIFF_FILE = f"code/{DIFF}.txt"
LOCK_FILE = f"{locks.FOLDER}/{locks.LOCK}"
# Tags of versions by which one is found from what it came from.
BACK = ("git_commit", "data_digest", "train_key", "eval_key", "weights_sha256", "dvc_exp_name")
DIGITS = 7
ALSO = ("dvc_exp_name", "tune_study", "tune_trial", "git_untracked")


@dataclass(frozen=True)
class Origin:
    """A version, the runs that made it, and their files (None: not in the store)."""

    version: ModelVersion
    training: Run
    evaluation: Run
    aliases: list[str]
    params: bytes | None
    diff: bytes | None
    lock: bytes | None
    evaluated_params: bytes | None = None
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"models:/{self.version.name}/{self.version.version}"


def origin(client: MlflowClient, uri: str) -> Origin:
    """Everything that `uri` (models:/NAME/VERSION or models:/NAME@ALIAS) came from.

    Raises UserError where the version or one of its runs is not in the store.
    """
    from mlflow.exceptions import MlflowException

    version = version_at(client, uri)
    evaluation = evaluations.run_of(client, f"models:/{version.name}/{version.version}")
    parent = evaluation.data.tags["mlflow.parentRunId"]
    try:
        training = client.get_run(parent)
    except MlflowException as error:
        raise UserError(f"{uri}: its training run {parent} is not in the store") from error
    tags = training.data.tags | evaluation.data.tags
    named = client.get_registered_model(version.name).aliases
    return Origin(
        version,
        training,
        evaluation,
        sorted(alias for alias, number in named.items() if str(number) == str(version.version)),
        _artifact(client, training, PARAMS_FILE),
        _artifact(client, training, DIFF_FILE),
        _artifact(client, evaluation, LOCK_FILE),
        _artifact(client, evaluation, PARAMS_FILE),
        {
            "training run": f"{training.info.run_name} ({training.info.run_id})",
            "evaluation run": f"{evaluation.info.run_name} ({evaluation.info.run_id})",
            "commit": training.data.tags["git_commit"],
            **{
                key: tags[key]
                for key in ("dvc_exp_name", "tune_study", "tune_trial")
                if key in tags
            },
        },
    )


def version_at(client: MlflowClient, uri: str) -> ModelVersion:
    """Raises UserError where there is no such version."""
    from mlflow.exceptions import MlflowException

    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))", uri)
    if match is None:
        raise UserError(f"{uri}: write models:/name/version or models:/name@alias")
    name, version, alias = match.groups()
    try:
        if version:
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        aliases = registered(client, name).aliases
        known = f"has the aliases {', '.join(sorted(aliases))}" if aliases else "has no alias yet"
        told = str(error.message).rstrip(".")
        raise UserError(f"{uri}: {told}; {name} {known}, and gan ui shows its versions") from None


def fetch_version(client: MlflowClient, uri: str) -> tuple[ModelVersion, Path]:
    """A version and a new folder with its package. Raises UserError where there is none."""
    version = version_at(client, uri)
    return version, models.fetch(f"models:/{version.name}/{version.version}", tag=uri)


def registered(client: MlflowClient, name: str) -> RegisteredModel:
    """Raises UserError where no model has that name."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"{name}: {error.message}") from None
        raise UserError(f"{name} is not registered yet: gan promote registers a model") from None


def versions_of(client: MlflowClient, name: str) -> list[str]:
    """Versions, as URIs, that came from what `name` stands for.

    A commit, a data set's digest, a key, a hash of weights (each by its first digits), a study of
    `gan tune` or one of its trials (STUDY/TRIAL), a DVC experiment, or a run by name or id.
    """
    found = []
    study, _, trial = name.partition("/")
    for version in client.search_model_versions():
        tags = version.tags
        of_run = name in (version.run_id, tags.get("training_run"), tags.get("evaluation_run"))
        of_study = tags.get("tune_study") == study and trial in ("", tags.get("tune_trial"))
        if of_run or of_study or any(_begins(tags.get(key, ""), name) for key in BACK):
            found.append(f"models:/{version.name}/{version.version}")
    if not found and not name.startswith("models:/"):
        for run in client.search_runs(
            [x.experiment_id for x in client.search_experiments()],
            f"attributes.run_name = '{name}'" if re.fullmatch(r"[\w .:@-]+", name) else "",
            max_results=50,
        ):
            if run.info.run_name == name and "model_version" in run.data.tags:
                found.append(f"models:/{run.data.tags['model_version']}")
    return sorted(set(found))


def _begins(value: str, name: str) -> bool:
    return bool(value) and (value == name or (len(name) >= DIGITS and value.startswith(name)))


def _artifact(client: MlflowClient, run: Run, path: str) -> bytes | None:
    folder = Path(path).parent.as_posix()
    if path not in {file.path for file in client.list_artifacts(run.info.run_id, folder)}:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        return Path(client.download_artifacts(run.info.run_id, path, scratch)).read_bytes()
