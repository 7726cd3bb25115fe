"""The whole pipeline on a tiny configuration: what re-runs, what is tracked, what survives a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.files import file_hash

from .conftest import Workspace

STAGES = ("prepare", "features", "train", "evaluate", "report")


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def test_every_out_is_there(reproduced: Workspace) -> None:
    metrics = json.loads((reproduced.root / "reports/metrics.json").read_text())
    assert metrics["fd"] > metrics["fd_floor"] > 0
    assert metrics["controls"] == 1
    for path in (
        "data/prepared/manifest.json",
        "models/features/extractor.safetensors",
        "models/generator/best.safetensors",
        "models/generator/last.safetensors",
        "reports/train/history.csv",
        "reports/train/grids/step_000040.png",
        "reports/evaluation/samples.png",
        "reports/index.html",
    ):
        assert (reproduced.root / path).stat().st_size > 0, path


def test_only_lock_metrics_and_ignore_files_are_new_to_git(reproduced: Workspace) -> None:
    changed = reproduced.run("git", "diff", "--name-only", "HEAD~1", "HEAD").split()
    assert [name for name in changed if not name.endswith(".gitignore")] == [
        "dvc.lock",
        "reports/metrics.json",
        "reports/protocol.json",
    ]


def test_training_and_evaluation_are_runs_of_one_store(reproduced: Workspace) -> None:
    training, evaluation = reproduced.runs()
    assert (training["stage"], evaluation["stage"]) == ("train", "evaluate")
    assert evaluation["parent"] == training["id"]
    assert {training["status"], evaluation["status"]} == {"FINISHED"}
    assert training["params"]["train.steps"] == "40"
    for tag in ("git_commit", "git_dirty", "train_key", "dvc_stage", "device"):
        assert training["tags"][tag]
    metrics = json.loads((reproduced.root / "reports/metrics.json").read_text())
    assert training["metrics"]["fd"] == pytest.approx(metrics["fd"])
    assert evaluation["metrics"]["fd"] == pytest.approx(metrics["fd"])
    for curve in ("loss_g", "d_acc_real", "grad_norm_d", "images_per_second", "memory_mb"):
        assert curve in training["metrics"]


def test_a_second_repro_does_nothing(workspace: Workspace) -> None:
    output = workspace.run("dvc", "repro")
    assert stages_run(output) == []
    assert len(workspace.runs()) == 2


def test_a_commit_compares_with_the_run_that_it_holds(reproduced: Workspace) -> None:
    training = reproduced.runs()[0]["name"]
    command = ("python", "-m", "pipeline.cli", "compare", "HEAD", training)
    assert "A and B are the same, to the last digit of every figure" in reproduced.run(*command)
    output = reproduced.run(*command, "--json")
    (comparison,) = json.loads(output[output.index("{") :])["comparisons"]
    assert comparison["paired"]  # DVC's cache has the samples of the commit, the store the run's


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"evaluate__neighbours": 3}, ["evaluate", "report"]),
        ({"report__interpolations": 1}, ["report"]),
        ({"train__device": "cpu", "train__checkpoint_every": 20, "train__log_every": 20}, []),
        ({"tracking__upload_every": 5.0, "registry__name": "other"}, []),
    ],
    ids=["evaluate", "report", "what changes no number", "tracking"],
)
def test_a_changed_key_reruns_what_depends_on_it(
    workspace: Workspace, change: dict[str, object], expected: list[str]
) -> None:
    workspace.set(**change)
    assert stages_run(workspace.run("dvc", "repro")) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pipeline/report/page.py", ["report"]),
        ("pipeline/networks/dcgan.py", []),
        ("pipeline/config.py", []),
        ("pipeline/tracking/runs.py", []),
    ],
)
def test_changed_code_reruns_what_depends_on_it(
    workspace: Workspace, file: str, expected: list[str]
) -> None:
    with (workspace.root / file).open("a") as code:
        code.write("\n# a change\n")
    assert stages_run(workspace.run("dvc", "repro")) == expected


@pytest.mark.slow
def test_a_lost_store_is_rebuilt_after_a_restore_from_the_cache(workspace: Workspace) -> None:
    before = workspace.runs()
    for name in ("data/prepared", "models", "reports", "mlartifacts"):
        shutil.rmtree(workspace.root / name)
    for file in workspace.root.glob("mlflow.db*"):
        file.unlink()
    (workspace.root / "dvc.lock").unlink()
    output = workspace.run("dvc", "repro")
    assert stages_run(output) == []
    assert "from cache" in output or "cached" in output
    assert not (workspace.root / "mlflow.db").exists()
    workspace.run("gan", "sync")
    after = workspace.runs()
    for old, new in zip(before, after, strict=True):
        for field in ("name", "status", "stage", "params"):
            assert old[field] == new[field]
        assert old["metrics"] == pytest.approx(new["metrics"])
        assert old["tags"]["train_key"] == new["tags"]["train_key"]
    workspace.run("gan", "sync")
    assert [run["id"] for run in workspace.runs()] == [run["id"] for run in after]


def _kill_at_a_checkpoint(workspace: Workspace) -> str:
    """Start `dvc repro`, SIGKILL all of it once a checkpoint is there; what it had printed."""
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=workspace.root,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((workspace.root / ".checkpoints").glob("*/state.pt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_weights(workspace: Workspace) -> None:
    workspace.set(train__steps=1500, train__log_every=20, train__eval_every=100, seed=1)
    uninterrupted = Workspace(workspace.root.with_name("uninterrupted"))
    shutil.copytree(workspace.root, uninterrupted.root)
    uninterrupted.run("dvc", "repro", "train")

    _kill_at_a_checkpoint(workspace)
    (started,) = (workspace.root / ".checkpoints").glob("*/started.json")
    first_start = json.loads(started.read_text())
    output = workspace.run("dvc", "repro", "train")
    step = int(re.search(r"continuing from the checkpoint at step (\d+)", output)[1])  # type: ignore[index]
    assert 0 < step < 1500
    for name in ("best.safetensors", "last.safetensors", "config.json"):
        path = Path("models/generator") / name
        assert file_hash(workspace.root / path) == file_hash(uninterrupted.root / path), name
    assert list((workspace.root / ".checkpoints").glob("*/state.pt")) == []
    record = json.loads((workspace.root / "reports/train/run.json").read_text())
    assert record["started"] == first_start

    newest = [run for run in workspace.runs() if run["stage"] == "train"][-1]
    assert newest["status"] == "FINISHED"
    history = (workspace.root / "reports/train/history.csv").read_text().splitlines()
    assert len(history) == 1 + 1500 // 20


@pytest.mark.slow
def test_a_changed_key_starts_anew_and_says_what_differs(workspace: Workspace) -> None:
    workspace.set(train__steps=600, seed=1)
    _kill_at_a_checkpoint(workspace)
    with (workspace.root / "pipeline/training/loop.py").open("a") as code:
        code.write("# another code\n")
    output = workspace.run("dvc", "repro", "train")
    assert "continuing" not in output
    assert "starting anew" in output
    assert "of other inputs: pipeline/training/loop.py changed" in output
    workspace.set(train__steps=60, train__lr_g=0.01)
    output = workspace.run("dvc", "repro", "train")
    assert "continuing" not in output
    assert "starting anew" in output
    assert "train.lr_g: 0.002 -> 0.01" in output


@pytest.mark.slow
def test_points_go_the_same_way(workspace: Workspace) -> None:
    workspace.run("gan", "preset", "use", "ring")
    workspace.set(
        data__draws=2000, model__width=16, train__steps=40, train__eval_every=20,
        train__eval_samples=200, evaluate__samples=300,
    )  # fmt: skip
    output = workspace.run("dvc", "repro")
    assert stages_run(output) == list(STAGES)
    metrics = json.loads((workspace.root / "reports/metrics.json").read_text())
    assert metrics["reverse_kl"] > 0
    assert metrics["modes"] <= 8
    assert 0 <= metrics["hq"] < 0.5
    assert "of 8 modes" in (workspace.root / "reports/index.html").read_text()
    assert (workspace.root / "reports/train/grids/step_000040.png").is_file()
    workspace.run("gan", "sample", "-n", "5", "--out", "points")
    lines = (workspace.root / "points/seed0.csv").read_text().splitlines()
    assert lines[0] == "x,y"
    assert len(lines) == 6
    workspace.run("gan", "sample", "-n", "50", "--grid", "--out", "points")
    assert (workspace.root / "points/seed0.png").is_file()
    assert "data.source: ring -> mnist5k" in workspace.run(
        "gan", "preset", "use", "default", "--all"
    )
