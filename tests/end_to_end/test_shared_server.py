"""The same commands against a team's server: PostgreSQL, S3 and basic auth; DVC remotes likewise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Workspace
from tests.services import ADMIN_PASSWORD, S3_KEYS, mlflow_server, postgresql, s3

pytestmark = pytest.mark.slow
MODEL = "gan-mnist5k"


def test_a_team_shares_a_server_by_configuration_alone(workspace: Workspace) -> None:
    import boto3
    import psycopg

    folder = workspace.root.parent
    with (
        postgresql(folder) as database,
        s3(folder) as endpoint,
        mlflow_server(folder, database, endpoint) as server,
    ):
        team = {
            "MLFLOW_TRACKING_URI": server,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": ADMIN_PASSWORD,
        }
        refused = workspace.run("gan", "sync", code=1, **(team | {"MLFLOW_TRACKING_PASSWORD": "x"}))
        assert "cannot be reached" in refused
        workspace.run("gan", "sync", **team)
        workspace.run("gan", "promote", code=1, **team)
        workspace.run("gan", "promote", "--force", "--why", "the first", **team)
        verified = workspace.run("gan", "verify", f"models:/{MODEL}@champion", **team)
        assert "broken" not in verified
        model = ("--model", f"models:/{MODEL}@champion")
        workspace.run("gan", "sample", "-n", "2", *model, **team)
        picture = str(workspace.root / "samples" / "seed0_00001.png")
        assert "proved" in workspace.run("gan", "trace", picture, **team)
        workspace.run("gan", "rollback", code=1, **team)

        keys = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **S3_KEYS)
        stored = [x["Key"] for x in keys.list_objects_v2(Bucket="models")["Contents"]]
        assert any(key.endswith("generator.safetensors") for key in stored)
        with psycopg.connect(database) as connection:
            rows = connection.execute("select alias from registered_model_aliases").fetchall()
        assert rows == [("champion",)]
        _push_and_pull(workspace, endpoint)


def _push_and_pull(workspace: Workspace, endpoint: str) -> None:
    """DVC's remotes: S3, and a local folder."""
    credentials = {
        "AWS_ACCESS_KEY_ID": S3_KEYS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": S3_KEYS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    folder: Path = workspace.root.parent / "remote"
    workspace.run("dvc", "remote", "add", "team", "s3://models/dvc")
    workspace.run("dvc", "remote", "modify", "team", "endpointurl", endpoint)
    workspace.run("dvc", "remote", "add", "here", str(folder))
    for remote in ("team", "here"):
        workspace.run("dvc", "push", "--remote", remote, **credentials)
        shutil.rmtree(workspace.root / ".dvc" / "cache")
        shutil.rmtree(workspace.root / "models")
        workspace.run("dvc", "pull", "--remote", remote, **credentials)
        assert (workspace.root / "models" / "generator" / "best.safetensors").is_file()
