from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.processes import this_process
from pipeline.tracking import deliver, runs, store
from pipeline.tracking.live import LiveRun

from . import outs

pytestmark = pytest.mark.usefixtures("quick_store")

A = "a" * 64
RUNNING = {"status": "RUNNING", "ended": None}


def the_run(key: str = A):
    client, experiment_id = store.ready("gan")
    return runs.find(client, experiment_id, "train", key)


def steps(key: str = A) -> list[int]:
    client, _ = store.ready("gan")
    return [point.step for point in client.get_metric_history(the_run(key).info.run_id, "loss_g")]


def dead_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{socket.gethostname()}:{process.pid}"


def test_a_running_training_shows_its_curves_and_pictures(workspace: Path) -> None:
    outs.write_training(workspace, outs.train_record(A))
    live = LiveRun(outs.train_record(A, **RUNNING), upload_every=0.0)
    live.log(outs.history()[:2])
    live.image(100, workspace / paths.TRAIN_REPORT / "grids/step_000100.png")
    live.close()

    assert the_run().info.status == "RUNNING"
    assert the_run().data.tags[runs.PROCESS] == this_process()
    assert the_run().data.params["train.lr_g"] == "0.0002"
    assert steps() == [50, 100]
    assert runs.logged_images(store.ready("gan")[0], the_run().info.run_id) == {("samples", 100)}


def test_a_live_run_completed_by_delivery_equals_one_delivered_at_once(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs.write_training(workspace, outs.train_record(A))
    deliver.sync()
    directly = outs.everything(*store.ready("gan"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/live.db")
    live = LiveRun(outs.train_record(A, **RUNNING), upload_every=0.0)
    live.log(outs.history()[:3])
    live.image(100, workspace / paths.TRAIN_REPORT / "grids/step_000100.png")
    live.close()
    deliver.sync()

    assert outs.everything(*store.ready("gan")) == directly


def test_an_alarm_is_on_the_run_while_it_goes_on() -> None:
    live = LiveRun(outs.train_record(A, **RUNNING), upload_every=3600.0)
    live.tag({"alarm": "step 50: collapse"})
    live._background._executor.submit(lambda: None).result()
    assert the_run().data.tags["alarm"] == "step 50: collapse"
    assert the_run().info.status == "RUNNING"
    live.close()


def test_rows_wait_for_the_next_upload_or_for_the_end() -> None:
    live = LiveRun(outs.train_record(A, **RUNNING), upload_every=3600.0)
    live.log(outs.history()[:3])
    live._background._executor.submit(lambda: None).result()
    assert steps() == []
    live.close(status="KILLED")

    assert steps() == [50, 100, 150]
    assert the_run().info.status == "KILLED"


def test_a_resumed_training_continues_its_run() -> None:
    first = LiveRun(outs.train_record(A, **RUNNING), upload_every=0.0)
    first.log(outs.history()[:3])
    first.close(status="KILLED")
    run_id = the_run().info.run_id
    second = LiveRun(
        outs.train_record(A, started=outs.STARTED + 10**6, **RUNNING), upload_every=0.0
    )
    second.log(outs.history()[1:])
    second.close()

    assert the_run().info.run_id == run_id
    assert the_run().info.status == "RUNNING"
    assert steps() == [50, 100, 150, 200]


def test_runs_of_dead_processes_end_and_those_of_others_go_on() -> None:
    client, experiment_id = store.ready("gan")
    owners = {
        "1": dead_process(),
        "2": this_process(),
        "3": "another-host:1:0",
        A[0]: dead_process(),
    }
    for name, owner in owners.items():
        run = runs.find_or_create(client, experiment_id, outs.train_record(name * 64, **RUNNING))
        client.set_tag(run.info.run_id, runs.PROCESS, owner)
    LiveRun(outs.train_record(A, **RUNNING)).close()

    assert {name: the_run(name * 64).info.status for name in owners} == {
        "1": "KILLED", "2": "RUNNING", "3": "RUNNING", "a": "RUNNING",
    }  # fmt: skip


def test_a_training_repeated_by_force_leaves_its_finished_run_alone(workspace: Path) -> None:
    outs.write_training(workspace, outs.train_record(A))
    deliver.sync()
    before = outs.everything(*store.ready("gan"))
    live = LiveRun(outs.train_record(A, started=outs.STARTED + 10**6, **RUNNING), upload_every=0.0)
    live.log(outs.history(points=9))
    live.close()

    assert outs.everything(*store.ready("gan")) == before


def test_a_silent_server_costs_one_warning_and_no_waiting(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "100")
    with socket.socket() as listener:  # takes connections and never answers
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
        live = LiveRun(outs.train_record(A, **RUNNING), upload_every=0.0)
        for row in outs.history():
            live.log([row])
            live.image(100, workspace / "missing.png")
        assert caplog.records == []  # the calls came back before MLflow gave up
    live.close()

    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert os.environ["MLFLOW_TRACKING_URI"] in warning.getMessage()
