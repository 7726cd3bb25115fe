from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pipeline import paths
from pipeline.errors import UserError
from pipeline.tracking import deliver, record, runs, store

from . import outs

pytestmark = pytest.mark.usefixtures("quick_store")

A, B = "a" * 64, "b" * 64


@pytest.fixture
def root(workspace: Path) -> Path:
    """A workspace whose training, evaluation and report are done and not delivered."""
    training = outs.train_record(A)
    outs.write_training(workspace, training)
    evaluation = outs.write_evaluation(workspace, training)
    outs.write_report(workspace, evaluation.key)
    return workspace


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that is not there."""
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return address


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def shown() -> dict:
    return outs.everything(*store.ready("gan"))


def the_run(kind: str, key: str = A):
    client, experiment_id = store.ready("gan")
    return runs.find(client, experiment_id, kind, key)


def test_training_run_shows_params_curves_pictures_files_and_tags(root: Path) -> None:
    client, experiment_id = store.ready("gan")
    deliver.deliver_training(client, experiment_id, root)
    view = shown()["train", A, None]

    assert view["params"] == {
        "train.lr_g": "0.0002",
        "train.betas_g": "[0.0, 0.99]",
        "model.conditional": "true",
        "data.name": "null",
    }
    rows = outs.history()
    assert [(step, value) for step, value, _ in view["metrics"]["loss_g"]] == [
        (r["step"], r["loss_g"]) for r in rows
    ]
    assert [step for step, _, _ in view["metrics"]["eval_fd"]] == [100, 200]
    assert "step" not in view["metrics"]
    assert view["times"] == (outs.STARTED, outs.STARTED + 60_000)
    assert view["status"] == "FINISHED"
    assert view["datasets"] == [("mnist5k", "d" * 36, [("mlflow.data.context", "training")])]
    assert {name for name, _ in (f for f in view["files"] if len(f) == 2)} == {
        "config/params.yaml", "code/changes.diff.txt", "history.csv",
    }  # fmt: skip
    assert runs.logged_images(client, the_run("train").info.run_id) == {
        ("samples", 100), ("samples", 200), ("reals", 0),
    }  # fmt: skip
    assert view["tags"]["git_commit"] == view["tags"]["mlflow.source.git.commit"] == "c0ffee"
    assert view["tags"]["train_key"] == A


def test_evaluation_is_a_child_whose_figures_are_linked_and_shown_by_its_training(
    root: Path,
) -> None:
    client, experiment_id = store.ready("gan")
    deliver.deliver_evaluation(client, experiment_id, root)
    view = shown()
    child, parent = view["evaluate", A, "e" * 64], view["train", A, None]

    assert child["tags"]["mlflow.parentRunId"] == "train aaaaaaaa"
    assert child["latest"] == {"fd": 3.25, "fd_floor": 1.5, "label_kl": 0.01}
    assert child["params"] == {
        "evaluate.samples": "3500",
        "protocol.extractor": "domain",
        "protocol.n.real": "1000",
    }
    assert ("protocol.json" in dict(f for f in child["files"] if len(f) == 2)) is True
    assert parent["latest"]["fd"] == 3.25
    assert parent["models"] == (0, 1)
    ((name, status, figures),) = view["models"]
    assert (name, status) == ("generator-eeeeeeee", "READY")
    assert ("fd", 3.25, "f" * 36) in figures
    run = client.get_run(the_run("evaluate", "e" * 64).info.run_id)
    assert len(run.inputs.model_inputs) == 1


def test_report_lies_on_the_training_and_on_the_evaluation(root: Path) -> None:
    client, experiment_id = store.ready("gan")
    deliver.deliver_report(client, experiment_id, root)

    for run in (the_run("train"), the_run("evaluate", "e" * 64)):
        assert "index.html" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_newer_report_of_the_same_evaluation_replaces_the_old(root: Path) -> None:
    client, experiment_id = store.ready("gan")
    deliver.deliver_report(client, experiment_id, root)
    outs.write_report(root, "e" * 64, text="a longer text")

    assert deliver.deliver_report(client, experiment_id, root).changed
    sizes = {f.path: f.file_size for f in client.list_artifacts(the_run("train").info.run_id)}
    assert sizes["index.html"] == (root / paths.REPORT).stat().st_size


def test_the_page_of_another_evaluation_is_not_delivered(root: Path) -> None:
    outs.write_report(root, "0" * 64)

    assert [name for name in deliver.sync().delivered if "report" in name] == []
    with pytest.raises(UserError, match="is not about evaluate eeeeeeee of aaaaaaaa"):
        deliver.deliver_report(*store.ready("gan"), root)


def test_delivering_again_changes_nothing(root: Path) -> None:
    first = deliver.sync()
    before = shown()
    again = deliver.sync()

    assert (len(first.delivered), first.unchanged, first.left) == (3, [], {})
    assert (again.delivered, len(again.unchanged), again.left) == ([], 3, {})
    assert shown() == before


def test_delivering_a_run_whose_mark_of_completeness_was_lost_doubles_nothing(root: Path) -> None:
    deliver.sync()
    before = shown()
    client, _ = store.ready("gan")
    for run in (the_run("train"), the_run("evaluate", "e" * 64)):
        client.delete_tag(run.info.run_id, runs.DELIVERED)

    assert len(deliver.sync().delivered) == 2
    assert shown() == before


def test_a_lost_store_is_rebuilt_from_the_outs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver.sync()
    original = shown()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/new.db")
    deliver.sync()

    assert shown() == original


def test_a_partial_delivery_is_completed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver.sync()
    whole = shown()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/partial.db")
    client, experiment_id = store.ready("gan")
    training = record.RunRecord.read(root / paths.TRAIN_REPORT)
    run = runs.find_or_create(client, experiment_id, training)
    runs.log_history(
        client, run.info.run_id, outs.history()[:2], started=training.started, after=-1
    )
    grid = root / paths.TRAIN_REPORT / "grids/step_000100.png"
    runs.log_image(
        client, run.info.run_id, grid, key="samples", step=100, timestamp=training.started
    )
    deliver.sync()

    assert shown() == whole


def test_batches_hold_whole_rows(workspace: Path) -> None:
    training = outs.train_record(A)
    outs.write_training(workspace, training, points=170)
    client, experiment_id = store.ready("gan")
    sizes: list[int] = []
    log_batch = client.log_batch

    def recorded(run_id, metrics=(), **others):
        sizes.append(len(metrics))
        return log_batch(run_id, metrics=metrics, **others)

    client.log_batch = recorded
    deliver.deliver_training(client, experiment_id, workspace)

    columns = len(outs.COLUMNS) + 3
    assert max(sizes) <= runs.METRICS_PER_BATCH
    assert sum(sizes) == 170 * columns + 85
    assert all(
        len(p) == 170 for k, p in shown()["train", A, None]["metrics"].items() if k != "eval_fd"
    )


def test_uploads_hold_up_nobody_who_wants_another_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, experiment_id = store.ready("gan")
    log_artifact = client.log_artifact

    def checked(*arguments):
        for lock in (store.lock(), store.lock(B)):
            with lock.acquire(timeout=0):
                pass
        return log_artifact(*arguments)

    monkeypatch.setattr(client, "log_artifact", checked)
    deliver.deliver_evaluation(client, experiment_id, root)

    assert the_run("evaluate", "e" * 64).info.status == "FINISHED"


def test_a_run_delivered_by_several_at_once_is_there_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver.sync()
    once = shown()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/several.db")
    store.ready("gan")
    log_artifact = MlflowClient.log_artifact

    def slowly(client: MlflowClient, run_id: str, path: Path, *more: Any) -> None:
        time.sleep(0.1 if Path(path).suffix == ".html" else 0)  # long enough to be overtaken
        log_artifact(client, run_id, path, *more)

    monkeypatch.setattr(MlflowClient, "log_artifact", slowly)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(deliver.sync) for _ in range(4)]

    assert sum(len(future.result().delivered) for future in done) == 3
    assert shown() == once


def test_values_that_are_no_numbers_are_delivered_once(workspace: Path) -> None:
    training = outs.train_record(A)
    outs.write_training(workspace, training)
    path = workspace / paths.TRAIN_REPORT / "history.csv"
    lines = path.read_text().splitlines()
    cells = lines[-1].split(",")
    cells[4], cells[5] = "nan", "inf"
    path.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    client, experiment_id = store.ready("gan")
    run_id = deliver.deliver_training(client, experiment_id, workspace).run_id
    client.delete_tag(run_id, runs.DELIVERED)
    deliver.deliver_training(client, experiment_id, workspace)

    assert len(client.get_metric_history(run_id, "loss_g")) == 4


def test_long_values_and_many_params_are_within_the_limits(workspace: Path) -> None:
    params = {f"p{i}": i for i in range(250)} | {"long": "x" * 9000}
    outs.write_training(workspace, outs.train_record(A, params=params))
    deliver.sync()
    logged = the_run("train").data.params

    assert len(logged) == 251
    assert logged["long"] == "x" * runs.PARAM_LENGTH


def test_a_run_deleted_in_the_ui_is_made_anew(root: Path) -> None:
    deliver.sync()
    client, _ = store.ready("gan")
    old = the_run("train").info.run_id
    client.delete_run(old)
    client.delete_run(the_run("evaluate", "e" * 64).info.run_id)
    deliver.sync()

    assert the_run("train").info.run_id != old
    assert the_run("train").data.metrics["fd"] == 3.25
    child = client.get_run(the_run("evaluate", "e" * 64).info.run_id)
    assert child.data.tags["mlflow.parentRunId"] == the_run("train").info.run_id
    model = client.get_logged_model(child.inputs.model_inputs[0].model_id)
    assert model.source_run_id == the_run("train").info.run_id


def test_the_training_shows_its_newest_evaluation_in_any_order_of_delivery(root: Path) -> None:
    training = record.RunRecord.read(root / paths.TRAIN_REPORT)
    deliver.sync()
    for key, ended, fd in (("2" * 64, 300_000, 2.0), ("1" * 64, 200_000, 9.0)):
        outs.write_evaluation(
            root, training, key=key, ended=outs.STARTED + ended, metrics={"fd": fd}
        )
        deliver.sync()

    assert the_run("train").data.metrics["fd"] == 2.0
    assert the_run("evaluate", "1" * 64).data.metrics["fd"] == 9.0
    assert len(shown()["models"]) == 3


def test_the_same_training_done_again_adds_no_second_run(root: Path) -> None:
    deliver.sync()
    again = outs.train_record(A, started=outs.STARTED + 10**6, ended=outs.STARTED + 2 * 10**6, params={"train.lr_g": 1.0, "train.device": "cuda"})  # fmt: skip
    again.write(root / paths.TRAIN_REPORT)
    deliver.sync()
    view = shown()["train", A, None]

    assert view["params"]["train.lr_g"] == "0.0002"
    assert view["params"]["train.device"] == "cuda"
    assert len(view["metrics"]["loss_g"]) == 4
    assert len(shown()) == 3


def test_evaluation_without_its_training_stays_and_says_why(root: Path) -> None:
    shutil.rmtree(root / paths.TRAIN_REPORT)
    summary = deliver.sync()

    assert summary.delivered == []
    assert "dvc checkout" in summary.left["evaluate eeeeeeee of aaaaaaaa"]


def test_nothing_to_deliver_needs_no_mlflow(workspace: Path) -> None:
    code = "import sys; from pipeline.tracking import deliver, live; print(deliver.sync()); assert 'mlflow' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("stage", ["train", "evaluate", "report"])
def test_an_unreachable_server_loses_nothing(
    root: Path,
    nobody: str,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    delivered = deliver.deliver_or_keep(stage)
    assert not delivered
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    for part in (nobody, "Connection refused", str(paths.undelivered()), "gan sync"):
        assert part in warning.getMessage()

    for out in ("reports", "models", "data"):  # as when a temporary workspace vanishes
        shutil.rmtree(root / out, ignore_errors=True)
    with pytest.raises(UserError, match="cannot be reached"):
        deliver.sync()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    summary = deliver.sync()

    assert summary.left == {}
    assert len(summary.delivered) == {"train": 1, "evaluate": 2, "report": 3}[stage]
    assert list(paths.undelivered().iterdir()) == []
    assert deliver.sync() == deliver.Summary()


def test_kept_runs_are_delivered_as_they_would_have_been(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver.sync()
    directly = shown()
    for stage in deliver.DELIVER:
        deliver.keep_back(stage)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/new.db")
    shutil.rmtree(root / "reports")
    deliver.sync()

    assert shown() == directly


def test_two_evaluations_kept_back_of_one_training_are_both_delivered(root: Path) -> None:
    training = record.RunRecord.read(root / paths.TRAIN_REPORT)
    deliver.keep_back("train")
    deliver.keep_back("evaluate")
    outs.write_evaluation(root, training, key=B, ended=outs.STARTED + 90_000, metrics={"fd": 1.0})
    deliver.keep_back("evaluate")
    shutil.rmtree(root / "reports")
    deliver.sync()

    assert {key for key in shown() if key != "models"} == {
        ("train", A, None), ("evaluate", A, "e" * 64), ("evaluate", A, B),
    }  # fmt: skip
    assert the_run("train").data.metrics["fd"] == 1.0


def test_one_broken_kept_run_does_not_hold_back_the_others(root: Path) -> None:
    kept = deliver.keep_back("train")
    (kept / paths.TRAIN_REPORT / "history.csv").write_text("step,seconds\n50,broken\n")
    changed = dataclasses.replace(outs.train_record(A), name="train kept")
    changed.write(kept / paths.TRAIN_REPORT)
    summary = deliver.sync()

    assert "broken" in summary.left["train kept (aaaaaaaa)"]
    assert len(summary.delivered) == 3
    assert kept.exists()


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": ""},
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return server
    raise AssertionError("the server does not answer")


def stop_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.mark.slow
def test_a_server_that_dies_midway_gets_all_of_it_after_its_restart(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver.sync()
    directly = shown()
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    server = start_server(folder, port)
    log_image = runs.log_image

    def dying(*arguments, **others):
        stop_server(server)
        log_image(*arguments, **others)

    monkeypatch.setattr(runs, "log_image", dying)
    try:
        assert not deliver.deliver_or_keep("train")
        monkeypatch.setattr(runs, "log_image", log_image)
        for stage in ("evaluate", "report"):
            assert not deliver.deliver_or_keep(stage)
        shutil.rmtree(root / "reports")
        server = start_server(folder, port)
        summary = deliver.sync()

        assert summary.left == {}
        assert shown() == directly
    finally:
        stop_server(server)
