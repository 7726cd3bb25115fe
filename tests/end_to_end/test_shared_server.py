"""A team's server: MLflow on PostgreSQL and S3 behind a password, and DVC's remotes.

Two machines share it by configuration alone; what they ran before there was one is delivered.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.services import ADMIN_PASSWORD, S3_KEYS, mlflow_server, postgresql, s3

from .conftest import Workspace
from .test_registry import CHAMPION, NAME, as_json, ask, serving

pytestmark = pytest.mark.slow
KEYS = {key.upper(): value for key, value in S3_KEYS.items()}


@dataclass(frozen=True)
class Team:
    """`first` has trained version 1, `second` version 2. `login` is all that they configure."""

    first: Workspace
    second: Workspace
    login: dict[str, str]
    s3: str


@pytest.fixture(scope="module")
def team(
    reproduced: Workspace, registered: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    first, second = reproduced.copy(folder / "first"), registered.copy(folder / "second")
    for workspace in (first, second):  # each had a store of its own, which no longer counts
        (workspace.root / "mlflow.db").unlink()
    with (
        postgresql() as database,
        s3(folder) as endpoint,
        mlflow_server(folder, database, endpoint) as uri,
    ):
        login = {
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": ADMIN_PASSWORD,
        }
        yield Team(first, second, login, endpoint)
    shutil.rmtree(folder)


def test_a_wrong_password_is_one_clear_line(team: Team) -> None:
    wrong = team.login | {"MLFLOW_TRACKING_PASSWORD": "wrong"}
    output = team.first.gan("promote", code=1, **wrong)
    assert "Traceback" not in output
    assert "cannot be reached" in output


@pytest.fixture(scope="module")
def first_promoted(team: Team) -> dict[str, Any]:
    return as_json(team.first.gan("promote", "--force", "--why", "x", "--json", **team.login))


def test_runs_made_before_there_was_a_server_are_delivered_and_promoted(
    team: Team, first_promoted: dict[str, Any]
) -> None:
    assert (first_promoted["verdict"], first_promoted["version"]) == ("forced", "1")
    assert not (team.first.root / "mlflow.db").exists()


@pytest.fixture(scope="module")
def promoted(team: Team, first_promoted: dict[str, Any]) -> dict[str, Any]:
    return as_json(team.second.gan("promote", "--force", "--why", "x", "--json", **team.login))


def test_another_machine_promotes_over_it(team: Team, promoted: dict[str, Any]) -> None:
    assert (promoted["version"], promoted["against"]) == ("2", "1")


def test_every_link_holds_by_what_the_server_has(team: Team, promoted: dict[str, Any]) -> None:
    (found,) = as_json(team.second.gan("verify", CHAMPION, "--json", **team.login))
    states = {link["name"]: link["state"] for link in found["links"]}
    assert set(states.values()) == {"ok"}, states


def test_a_machine_that_did_not_make_it_samples_traces_and_serves_it(
    team: Team, promoted: dict[str, Any], tmp_path: Path
) -> None:
    first, login = team.first, team.login
    first.gan("sample", "--model", CHAMPION, "-n", "1", "--seed", "3", "--out", "out", **login)
    traced = as_json(first.gan("trace", "out/seed3_00000.png", "--json", **login))
    assert (traced["proved"], traced["origin"]["model"]) == (True, f"{NAME}/2")
    with serving(first, tmp_path / "serve.log", **login) as address:
        assert ask(address, n=1, seed=3)["model"] == f"{NAME}/2"


def test_a_rollback_on_one_machine_is_seen_on_the_other(
    team: Team, promoted: dict[str, Any]
) -> None:
    assert f"models:/{NAME}/1 is the champion again" in team.first.gan("rollback", **team.login)
    seen = team.second.gan("promote", "--version", "1", **team.login)
    assert "is the champion already" in seen


def test_runs_and_artifacts_are_on_the_server(team: Team, promoted: dict[str, Any]) -> None:
    import boto3
    from mlflow.tracking import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        for key, value in team.login.items():
            patch.setenv(key, value)
        client = MlflowClient(
            tracking_uri=team.login["MLFLOW_TRACKING_URI"],
            registry_uri=team.login["MLFLOW_TRACKING_URI"],
        )
        experiment = client.get_experiment_by_name("gan")
        runs = client.search_runs([experiment.experiment_id])
    stages = sorted(run.data.tags["dvc_stage"] for run in runs)
    assert stages == ["evaluate", "evaluate", "train", "train"]
    session = boto3.session.Session(**S3_KEYS, region_name="us-east-1")
    bucket = session.resource("s3", endpoint_url=team.s3).Bucket("models")
    names = [item.key for item in bucket.objects.filter(Prefix="mlflow/")]
    assert any(name.endswith("generator.safetensors") for name in names)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_dvc_brings_back_from_a_remote_what_was_lost(team: Team, tmp_path: Path, kind: str) -> None:
    workspace = team.second
    url = str(tmp_path / "remote") if kind == "folder" else "s3://models/dvc"
    workspace.run("dvc", "remote", "add", "--local", "--force", "--default", "team", url)
    if kind == "s3":
        workspace.run("dvc", "remote", "modify", "--local", "team", "endpointurl", team.s3)
    workspace.run("dvc", "push", **KEYS)
    before = (workspace.root / "models/generator/best.safetensors").read_bytes()
    for lost in (".dvc/cache", "models/generator", "data/prepared"):
        shutil.rmtree(workspace.root / lost)
    workspace.run("dvc", "pull", **KEYS)
    assert (workspace.root / "models/generator/best.safetensors").read_bytes() == before
    assert json.loads(workspace.run("dvc", "status", "--json")) == {}
    workspace.run("dvc", "remote", "remove", "--local", "team")
