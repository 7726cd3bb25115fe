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
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load_file

from pipeline.files import file_hash, read_json

from ..together import NO_LOGS
from .conftest import Workspace

WEIGHTS = Path("models/generator/last.safetensors")
EXTRACTOR = Path("models/features/config.json")
METRICS = Path("reports/metrics.json")

# The stage `evaluate`, which tells how many processes teach together.
WATCHED = """
from pipeline import cas, launch, parallel
from pipeline.stages import evaluate

teach = cas.train_extractor

def told(*given, **named):
    print("a classifier is taught by", parallel.size())
    return teach(*given, **named)

cas.train_extractor = told
launch.run(evaluate.main, "pipeline.stages.evaluate")
"""

# The stage `train`, slow to write checkpoints, of which the second process is asked to end. It ends
# first, and torchrun then asks the first one too.
ASKED = """
import os, signal, time
from pipeline import launch, parallel
from pipeline.stages import train
from pipeline.training import checkpoints, loop

row, write = loop._row, checkpoints._write

def asked(state, *given):
    if parallel.rank() == 1 and state.step == 30:
        os.kill(os.getpid(), signal.SIGTERM)
    return row(state, *given)

def slowly(*given):
    time.sleep(2)
    write(*given)

loop._row, checkpoints._write = asked, slowly
launch.run(train.main, "pipeline.stages.train")
"""
# On this machine alone.
TORCHRUN = ["torchrun", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
TORCHRUN += ["--local-addr=127.0.0.1", NO_LOGS]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The two processes that it starts, as soon as they run, the first one first."""
    deadline = time.monotonic() + 120
    found: list[psutil.Process] = []
    while len(found) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        children = psutil.Process(process.pid).children()
        found = [child for child in children if "pipeline.worker" in child.cmdline()]
        time.sleep(0.02)
    return sorted(found, key=lambda child: int(child.environ()["RANK"]))


def start(workspace: Workspace) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["python", "-m", "pipeline.stages.train"],
        cwd=workspace.root,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell's job in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_checkpoint(workspace: Workspace, process: subprocess.Popen[str]) -> None:
    """Until it writes one: not that of a training before."""
    began, deadline = psutil.Process(process.pid).create_time(), time.monotonic() + 120

    def written() -> bool:
        found = (workspace.root / ".checkpoints").glob("*/state.pt")
        return any(path.stat().st_mtime > began for path in found)

    while not written():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_evaluation(workspace: Workspace, process: subprocess.Popen[str], step: int) -> None:
    """Until its samples of `step` are drawn, from which on it is sure to train."""
    deadline = time.monotonic() + 120
    while not list((workspace.root / ".checkpoints").glob(f"*/grids/step_{step:06d}.png")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def on_two_machines(stage: str, first: Workspace, second: Workspace) -> list[tuple[int, str]]:
    """Exit codes and outputs of two launchers that share nothing but the network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [
        subprocess.Popen(
            [
                "torchrun",
                *("--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(number)),
                *("--master-addr", "127.0.0.1", "--master-port", str(port)),
                NO_LOGS,
                *("-m", f"pipeline.stages.{stage}"),
            ],
            cwd=machine.root,
            env={**machine.environment, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, machine in enumerate((first, second))
    ]
    try:
        outputs = [machine.communicate(timeout=180)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
            machine.wait()
    return [(machine.returncode, output) for machine, output in zip(machines, outputs, strict=True)]


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
    output = workspace.run(*TORCHRUN, "watched.py", GLOO_SOCKET_IFNAME="lo")
    assert output.count("a classifier is taught by 2") == 2
    two = read_json(workspace.root / METRICS)
    assert two.keys() == one.keys()
    assert 0.1 < one["cas"] < 0.9
    for name, value in one.items():
        turned = 0.03 if name.startswith("cas") else 0.003
        assert two[name] == pytest.approx(value, rel=1e-3, abs=turned), name


@pytest.mark.slow
def test_two_machines_train_as_one_by_torchruns_own_flags(workspace: Workspace) -> None:
    one = load_file(workspace.root / WEIGHTS)
    (workspace.root / WEIGHTS).unlink()
    other = Workspace(workspace.root.with_name("other-machine"))
    shutil.copytree(workspace.root, other.root)
    ends = on_two_machines("train", workspace, other)
    assert [code for code, _ in ends] == [0, 0], ends
    assert not (other.root / WEIGHTS).exists()  # the first machine alone writes
    together = load_file(workspace.root / WEIGHTS)
    for name, weights in one.items():
        np.testing.assert_allclose(together[name], weights, rtol=0.05, atol=0.01, err_msg=name)
    workspace.run("dvc", "commit", "--force", "train")
    output = workspace.run("dvc", "repro")
    assert "Running stage 'train'" not in output
    assert "Running stage 'evaluate'" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "changes", "told"),
    [
        ("train", {"seed": 7, "train__steps": 60}, "seed: 0 -> 7; train.steps: 40 -> 60"),
        ("features", {"features__lr": 0.5}, "features.lr: 0.002 -> 0.5"),
        ("evaluate", {"evaluate__samples": 300}, "evaluate.samples: 200 -> 300"),
    ],
)
def test_machines_of_other_params_end_and_tell_what_differs(
    stage: str, changes: dict[str, Any], told: str, workspace: Workspace
) -> None:
    other = Workspace(workspace.root.with_name("other-machine"))
    shutil.copytree(workspace.root, other.root)
    other.set(**changes)
    for code, output in on_two_machines(stage, workspace, other):
        assert code == 1
        (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
        assert re.match(r"error: process 1 \(on .*\) has other inputs than process 0", line)
        assert told in line


@pytest.mark.slow
def test_a_machine_of_another_training_does_not_evaluate(workspace: Workspace) -> None:
    other = Workspace(workspace.root.with_name("other-machine"))
    shutil.copytree(workspace.root, other.root)
    other.set(seed=7)
    other.run("dvc", "repro", "train")
    other.set(seed=0)
    for code, output in on_two_machines("evaluate", workspace, other):
        assert code == 1
        assert "models/generator/config.json changed" in output


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_and_the_next_one_continues(workspace: Workspace) -> None:
    workspace.set(train__steps=600, train__eval_every=100, train__devices=2, seed=1)
    uninterrupted = Workspace(workspace.root.with_name("uninterrupted"))
    shutil.copytree(workspace.root, uninterrupted.root)
    uninterrupted.run("python", "-m", "pipeline.stages.train")

    process = start(workspace)
    wait_for_checkpoint(workspace, process)
    workers(process)[1].kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.count("error:") == 1
    assert "process 1 of 2 was killed (SIGKILL)" in output
    assert "the same command continues at the last checkpoint" in output
    assert "Traceback" not in output

    process = start(workspace)  # and now all of it, the launcher first
    wait_for_checkpoint(workspace, process)
    left = workers(process)
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive  # nobody trains on without it

    output = workspace.run("python", "-m", "pipeline.stages.train")
    step = int(re.search(r"continuing from the checkpoint at step (\d+)", output)[1])  # type: ignore[index]
    assert 0 < step < 600
    assert file_hash(workspace.root / WEIGHTS) == file_hash(uninterrupted.root / WEIGHTS)


@pytest.mark.slow
def test_a_launcher_killed_while_processes_start_leaves_none(workspace: Workspace) -> None:
    """They take seconds to import torch, and must not find its killer as their parent."""
    workspace.set(train__steps=100_000, train__eval_every=100_000, train__devices=2)
    process = start(workspace)
    left = workers(process)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(left, timeout=20)
    for one in alive:
        one.kill()
    process.communicate(timeout=60)
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["starting", "training"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_that_is_asked_to_end_takes_all_along_with_one_message(
    number: signal.Signals, training: bool, workspace: Workspace
) -> None:
    """And has a training saved, where no checkpoint was due."""
    shutil.rmtree(workspace.root / ".checkpoints", ignore_errors=True)
    workspace.set(train__steps=100_000, train__eval_every=100, train__devices=2)
    workspace.set(train__checkpoint_every=100_000)
    process = start(workspace)
    left = workers(process)
    if training:
        wait_for_evaluation(workspace, process, 100)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert not any(one.is_running() for one in left)
    assert process.returncode == 130
    (error,) = [line for line in output.splitlines() if not line.startswith("INFO ")]
    where = "where it stopped" if training else "at the last checkpoint"
    assert error == f"error: interrupted; the same command continues {where}"
    assert len(list((workspace.root / ".checkpoints").glob("*/state.pt"))) == training


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_asked_to_end_is_saved_where_it_was(
    number: signal.Signals, workspace: Workspace
) -> None:
    """Also where no checkpoint was due."""
    shutil.rmtree(workspace.root / ".checkpoints", ignore_errors=True)
    workspace.set(train__steps=3000, train__eval_every=100, seed=4 + number)
    workspace.set(train__checkpoint_every=100_000, train__devices=1)
    process = start(workspace)
    wait_for_evaluation(workspace, process, 100)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "asked to end: saving at the next row" in output
    assert output.endswith("error: interrupted; the same command continues where it stopped\n")
    output = workspace.run("python", "-m", "pipeline.stages.train")
    step = int(re.search(r"continuing from the checkpoint at step (\d+)", output)[1])  # type: ignore[index]
    assert 100 <= step < 3000


@pytest.mark.slow
def test_the_first_process_is_left_to_save_where_another_has_ended(workspace: Workspace) -> None:
    workspace.set(train__steps=600, train__log_every=10, train__checkpoint_every=1000, seed=9)
    shutil.rmtree(workspace.root / ".checkpoints", ignore_errors=True)
    (workspace.root / "asked.py").write_text(ASKED)
    output = workspace.run(*TORCHRUN, "asked.py", code=1, GLOO_SOCKET_IFNAME="lo")
    assert output.count("interrupted; the same command continues where it stopped") == 1
    (checkpoint,) = (workspace.root / ".checkpoints").glob("*/state.pt")
    assert torch.load(checkpoint, weights_only=True)["step"] == 30
    assert [run["status"] for run in workspace.runs() if run["stage"] == "train"][-1] == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_save_that_fails_is_told_and_not_that_it_goes_on_there(
    devices: int, workspace: Workspace
) -> None:
    shutil.rmtree(workspace.root / ".checkpoints", ignore_errors=True)
    workspace.set(train__steps=100_000, train__eval_every=100, train__checkpoint_every=100_000)
    workspace.set(train__devices=devices)
    code = workspace.root / "pipeline/training/checkpoints.py"
    full = "import errno; raise OSError(errno.ENOSPC, 'full', str(folder))"
    code.write_text(code.read_text().replace("    content = io.BytesIO()", f"    {full}"))
    process = start(workspace)
    wait_for_evaluation(workspace, process, 100)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.count("error:") == 1
    assert "no space is left on the disk" in output
    assert "interrupted" not in output
    newest = [run for run in workspace.runs() if run["stage"] == "train"][-1]
    assert newest["status"] == "FAILED"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_one_that_is_asked_to_end_in_its_last_row_is_finished(
    devices: int, workspace: Workspace
) -> None:
    """By all processes' being asked, as Ctrl-C does, and again while it delivers."""
    shutil.rmtree(workspace.root / ".checkpoints", ignore_errors=True)
    workspace.set(train__steps=2000, train__log_every=2000, train__eval_every=2000)
    workspace.set(train__devices=devices, seed=20 + devices)
    code = workspace.root / "pipeline/stages/train.py"
    deliver = "        deliver_or_keep("
    late = "        import os, signal; os.kill(os.getpid(), signal.SIGTERM)\n"
    code.write_text(code.read_text().replace(deliver, late + deliver))
    process = start(workspace)
    wait_for_evaluation(workspace, process, 0)
    time.sleep(1)  # into its 2,000 updates
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("asked to end: saving at the next row, or finishing after the last") == 1
    assert not list((workspace.root / ".checkpoints").glob("*/state.pt"))
    history = (workspace.root / "reports/train/history.csv").read_text().splitlines()
    assert history[-1].split(",")[history[0].split(",").index("step")] == "2000"
    newest = [run for run in workspace.runs() if run["stage"] == "train"][-1]
    assert newest["status"] == "FINISHED"


def kill_at_checkpoint(workspace: Workspace) -> None:
    process = start(workspace)
    wait_for_checkpoint(workspace, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_run_of_two_continues_in_one(workspace: Workspace) -> None:
    workspace.set(train__steps=600, train__eval_every=100, train__devices=2, seed=2)
    kill_at_checkpoint(workspace)
    workspace.set(train__devices=1)
    output = workspace.run("python", "-m", "pipeline.stages.train")
    assert "continuing from the checkpoint at step" in output
    (warning,) = [line for line in output.splitlines() if "not to the bit" in line]
    assert re.search(r"device: 2 x cpu, \d+ threads -> cpu, \d+ threads", warning)


@pytest.mark.slow
def test_of_a_damaged_checkpoint_one_process_tells(workspace: Workspace) -> None:
    workspace.set(train__steps=600, train__eval_every=100, train__devices=2, seed=3)
    kill_at_checkpoint(workspace)
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
def test_a_mistake_that_all_processes_meet_is_told_once(workspace: Workspace) -> None:
    workspace.set(train__devices=3)
    output = workspace.run("python", "-m", "pipeline.stages.train", code=2)
    assert output.count("train.batch_size to a multiple of 3") == 1
    workspace.set(train__devices=2)
    shutil.rmtree(workspace.root / "data/prepared")
    output = workspace.run("python", "-m", "pipeline.stages.train", code=1)
    assert output.count("error:") == 1
    assert "data/prepared" in output
    assert "Traceback" not in output
