"""Stages in two processes on the CPU: the same files, what a kill leaves, and its message."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from pipeline.files import file_hash, read_json

from .conftest import Workspace

WEIGHTS = Path("models/generator/last.safetensors")
EXTRACTOR = Path("models/features/config.json")
METRICS = Path("reports/metrics.json")

# The stage `evaluate`, which tells how many processes teach together.
WATCHED = """
from pipeline import extractor, launch, parallel
from pipeline.stages import evaluate

teach = extractor.train_extractor

def told(*given, **named):
    print("a classifier is taught by", parallel.size())
    return teach(*given, **named)

extractor.train_extractor = told
launch.run(evaluate.main, "pipeline.stages.evaluate")
"""


def workers(launcher: int) -> list[psutil.Process]:
    """The processes that train for it, the first one first."""
    children = psutil.Process(launcher).children(recursive=True)
    found = [child for child in children if "-m" in child.cmdline()]
    return sorted(found, key=lambda child: int(child.environ().get("RANK", -1)))


def start(workspace: Workspace) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["python", "-m", "pipeline.stages.train"],
        cwd=workspace.root,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_checkpoint(workspace: Workspace, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list((workspace.root / ".checkpoints").glob("*/state.pt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_give_every_stage_its_files(workspace: Workspace) -> None:
    one = load_file(workspace.root / WEIGHTS)
    accuracy = read_json(workspace.root / EXTRACTOR)["val_accuracy"]
    workspace.set(train__devices=2)
    assert "Running stage" not in workspace.run("dvc", "repro")  # it changes no number
    workspace.run("dvc", "repro", "--force", "features")
    # The extractor learns by steps of Adam, which make much of rounding: not the same weights.
    assert abs(read_json(workspace.root / EXTRACTOR)["val_accuracy"] - accuracy) < 0.03
    workspace.run("git", "checkout", "dvc.lock")
    workspace.run("dvc", "checkout", "--force")
    output = workspace.run("dvc", "repro", "--single-item", "--force", "train")
    assert output.count("best of the checkpoints") == 1  # one voice
    two = load_file(workspace.root / WEIGHTS)
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, rtol=0.05, atol=0.01, err_msg=name)
    history = (workspace.root / "reports/train/history.csv").read_text().splitlines()
    assert len(history) == 1 + 40 // 10
    workspace.run("dvc", "repro", "--single-item", "--force", "evaluate")
    assert (workspace.root / "reports/evaluation/samples.png").is_file()
    newest = [run for run in workspace.runs() if run["stage"] == "train"][-1]
    assert newest["status"] == "FINISHED"


@pytest.mark.slow
def test_two_processes_measure_what_one_does(workspace: Workspace) -> None:
    """The same generator and extractor, judged anew: by 1,000 samples and as many images.

    Samples and features are the same to rounding, and the figures with them (here to the last bit):
    what is counted may turn by some on the border. The classifier of `cas` is taught by 45 steps of
    Adam, which make much of rounding (here of 2 images): but of less than chance does in an accuracy
    of 1,000 images, two standard errors of which are 0.03.
    """
    workspace.set(model__conditional=True, model__width=64, train__steps=300, train__eval_every=150)
    workspace.set(features__epochs=3, evaluate__samples=1000)
    workspace.run("dvc", "repro", "evaluate")
    one = read_json(workspace.root / METRICS)
    (workspace.root / METRICS).unlink()
    (workspace.root / "watched.py").write_text(WATCHED)
    flags = ["--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    output = workspace.run(
        "torchrun", *flags, "--local-addr=127.0.0.1", "watched.py", GLOO_SOCKET_IFNAME="lo"
    )
    assert output.count("a classifier is taught by 2") == 2
    two = read_json(workspace.root / METRICS)
    assert two.keys() == one.keys()
    assert 0.1 < one["cas"] < 0.9
    for name, value in one.items():
        turned = 0.03 if name.startswith("cas") else 0.003
        assert two[name] == pytest.approx(value, rel=1e-3, abs=turned), name


@pytest.mark.slow
def test_two_machines_train_as_one_by_torchruns_own_flags(workspace: Workspace) -> None:
    """Two launchers that share nothing but the network, each in a copy of its own."""
    one = load_file(workspace.root / WEIGHTS)
    (workspace.root / WEIGHTS).unlink()
    other = Workspace(workspace.root.with_name("other-machine"))
    shutil.copytree(workspace.root, other.root)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [
        subprocess.Popen(
            [
                "torchrun",
                *("--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(number)),
                *("--master-addr", "127.0.0.1", "--master-port", str(port)),
                *("-m", "pipeline.stages.train"),
            ],
            cwd=machine.root,
            env={**machine.environment, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, machine in enumerate((workspace, other))
    ]
    outputs = [machine.communicate(timeout=180)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(outputs)
    assert not (other.root / WEIGHTS).exists()  # the first machine alone writes
    together = load_file(workspace.root / WEIGHTS)
    for name, weights in one.items():
        np.testing.assert_allclose(together[name], weights, rtol=0.05, atol=0.01, err_msg=name)
    workspace.run("dvc", "commit", "--force", "train")
    output = workspace.run("dvc", "repro")
    assert "Running stage 'train'" not in output
    assert "Running stage 'evaluate'" in output


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_and_the_next_one_continues(workspace: Workspace) -> None:
    workspace.set(train__steps=600, train__eval_every=100, train__devices=2, seed=1)
    uninterrupted = Workspace(workspace.root.with_name("uninterrupted"))
    shutil.copytree(workspace.root, uninterrupted.root)
    uninterrupted.run("python", "-m", "pipeline.stages.train")

    process = start(workspace)
    wait_for_checkpoint(workspace, process)
    workers(process.pid)[1].kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "process 1 of 2 was killed (SIGKILL)" in output
    assert "the same command continues at the last checkpoint" in output
    assert "Traceback" not in output

    process = start(workspace)  # and now all of it, the launcher first
    wait_for_checkpoint(workspace, process)
    left = workers(process.pid)
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive  # nobody trains on without it

    output = workspace.run("python", "-m", "pipeline.stages.train")
    step = int(re.search(r"continuing from the checkpoint at step (\d+)", output)[1])  # type: ignore[index]
    assert 0 < step < 600
    assert file_hash(workspace.root / WEIGHTS) == file_hash(uninterrupted.root / WEIGHTS)


@pytest.mark.slow
def test_a_run_of_two_continues_in_one(workspace: Workspace) -> None:
    workspace.set(train__steps=600, train__eval_every=100, train__devices=2, seed=2)
    process = start(workspace)
    wait_for_checkpoint(workspace, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    workspace.set(train__devices=1)
    output = workspace.run("python", "-m", "pipeline.stages.train")
    assert "continuing from the checkpoint at step" in output
    (warning,) = [line for line in output.splitlines() if "not to the bit" in line]
    assert re.search(r"device: 2 x cpu, \d+ threads -> cpu, \d+ threads", warning)


@pytest.mark.slow
def test_of_a_damaged_checkpoint_one_process_tells(workspace: Workspace) -> None:
    workspace.set(train__steps=600, train__eval_every=100, train__devices=2, seed=3)
    process = start(workspace)
    wait_for_checkpoint(workspace, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (checkpoint,) = (workspace.root / ".checkpoints").glob("*/state.pt")
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    for devices in (2, 1):
        workspace.set(train__devices=devices)
        output = workspace.run("python", "-m", "pipeline.stages.train", code=1)
        assert output.count("state.pt is damaged: remove it") == 1
        assert "Traceback" not in output
    checkpoint.unlink()
    workspace.set(train__steps=40)
    assert "continuing" not in workspace.run("python", "-m", "pipeline.stages.train")


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(workspace: Workspace) -> None:
    workspace.set(train__devices=3)
    output = workspace.run("python", "-m", "pipeline.stages.train", code=2)
    assert "train.batch_size to a multiple of 3" in output
