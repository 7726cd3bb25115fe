from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking import store

WORKER = """
import sys
sys.path[:0] = sys.argv[1:3]
import outs
from pathlib import Path
from pipeline.tracking import deliver, store
client, experiment_id = store.ready("gan")
root = Path(sys.argv[3])
record = outs.train_record(key=root.name * 64)
outs.write_training(root, record)
deliver.deliver_training(client, experiment_id, root)
"""


def test_store_lies_in_the_shared_root_with_its_artifacts(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = workspace / "temporary"
    elsewhere.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    monkeypatch.chdir(elsewhere)
    client, experiment_id = store.ready("gan")

    assert store.uri() == f"sqlite:///{workspace}/mlflow.db"
    for experiment in (client.get_experiment(experiment_id), client.get_experiment("0")):
        assert experiment.artifact_location.startswith((workspace / "mlartifacts").as_uri())
    assert list(elsewhere.iterdir()) == []


def test_store_is_made_once_and_keeps_wal(workspace: Path) -> None:
    first = store.ready("gan")[1]
    again = store.ready("gan")[1]
    connection = sqlite3.connect(workspace / "mlflow.db")

    assert first == again
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    assert store.ready("other")[1] != first


@pytest.mark.slow
def test_a_store_that_mlflow_made_is_taken_over(workspace: Path) -> None:
    from mlflow.tracking import MlflowClient

    experiment_id = MlflowClient(store.uri()).create_experiment("gan")

    assert store.ready("gan")[1] == experiment_id
    connection = sqlite3.connect(workspace / "mlflow.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_relative_sqlite_uri_counts_from_the_shared_root(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///sub/runs.db")
    store.ready("gan")

    assert (workspace / "sub/runs.db").exists()


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000/a")

    assert store.shown_uri() == "https://host:5000/a"


def test_deleted_experiment_is_the_users_to_restore() -> None:
    client, experiment_id = store.ready("gan")
    client.delete_experiment(experiment_id)

    with pytest.raises(UserError, match=r"gan was deleted.*tracking\.experiment"):
        store.ready("gan")


@pytest.mark.slow
def test_eight_processes_share_a_fresh_store(workspace: Path) -> None:
    repository = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                repository,
                str(Path(__file__).parent),
                str(workspace / name),
            ],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for name in "abcdefgh"
    ]
    errors = [worker.communicate()[1].decode() for worker in workers]

    assert [worker.returncode for worker in workers] == [0] * 8, errors
    client, experiment_id = store.ready("gan")
    runs = client.search_runs([experiment_id])
    assert sorted(run.data.tags["train_key"][0] for run in runs) == list("abcdefgh")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(len(client.get_metric_history(run.info.run_id, "loss_g")) == 4 for run in runs)
