"""What a stage in several processes says at its end, and who says it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher import api

from pipeline import errors, launch, parallel
from pipeline.config import read_yaml
from pipeline.errors import ConfigError, Lost, UserError

from .together import together

ROOT = Path(__file__).parents[1]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has processes end with the given codes, by rank, and leave the errors they explain."""

    def with_codes(told: dict[int, Exception] | None = None, **codes: int) -> None:
        failures = {
            int(name[1:]): ProcessFailure(int(name[1:]), 1, code, "none")
            for name, code in codes.items()
        }

        def elastic(config: api.LaunchConfig, entrypoint: str) -> Any:
            def run(*arguments: str) -> None:
                assert arguments[:2] == ("-m", "pipeline.worker")
                for rank, error in (told or {}).items():
                    os.environ["RANK"] = str(rank)
                    launch._tell(str(error), error)
                raise ChildFailedError("stage", failures)

            return run

        monkeypatch.setattr(api, "elastic_launch", elastic)

    monkeypatch.setattr(os, "environ", dict(os.environ))
    return with_codes


def test_the_process_that_was_killed_is_named_not_those_ended_after_it(ends: Any) -> None:
    ends(r0=-15, r1=-9)
    with pytest.raises(UserError, match=r"process 1 of 2 was killed \(SIGKILL\).*last checkpoint"):
        launch.launch(2, "some.stages.train")
    with pytest.raises(UserError, match=r"was killed \(SIGKILL\); run the same command again"):
        launch.launch(2, "some.stage")
    ends(r0=-9, r1=-9)
    with pytest.raises(UserError, match=r"processes 0, 1 of 2 were killed \(SIGKILL\)"):
        launch.launch(2, "some.stage")
    ends(r0=1, r1=-9)  # the first one lost it, and said so
    with pytest.raises(UserError, match="process 1 of 2 was killed"):
        launch.launch(2, "some.stage")


@pytest.mark.parametrize(
    ("codes", "code"), [({"r0": 1, "r1": -15}, 1), ({"r0": 2, "r1": 2}, 2), ({"r1": 130}, 130)]
)
def test_a_process_that_fails_has_said_why(ends: Any, codes: dict[str, int], code: int) -> None:
    ends(**codes)
    with pytest.raises(SystemExit) as ended:
        launch.launch(2, "some.stage")
    assert ended.value.code == code


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the launcher asked to end, and its processes leave what they say of their own ends."""

    def with_ends(told: dict[int, BaseException], *, done: bool = False) -> None:
        def elastic(config: api.LaunchConfig, entrypoint: str) -> Any:
            def run(*arguments: str) -> None:
                for rank, error in told.items():
                    os.environ["RANK"] = str(rank)
                    launch._tell(str(error) or errors.INTERRUPTED, error)
                if done:
                    os.environ["RANK"] = "0"
                    launch._tell_done()
                raise SignalException("asked", signal.SIGTERM)

            return run

        monkeypatch.setattr(api, "elastic_launch", elastic)

    monkeypatch.setattr(os, "environ", dict(os.environ))
    return with_ends


SAVED = KeyboardInterrupt()


def test_asked_to_end_it_is_interrupted_where_the_first_process_has_saved(asked: Any) -> None:
    asked({0: SAVED, 1: SAVED})
    with pytest.raises(KeyboardInterrupt):
        launch.launch(2, "some.stages.train")


def test_asked_to_end_it_is_done_where_the_first_process_is(asked: Any) -> None:
    asked({}, done=True)
    launch.launch(2, "some.stages.train")


def test_asked_to_end_it_says_what_kept_the_first_process_from_saving(
    asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked({0: UserError("the disk is full"), 1: SAVED})
    with pytest.raises(SystemExit) as ended:
        launch.launch(2, "some.stages.train")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: the disk is full\n"


@pytest.mark.parametrize("told", [{}, {0: Lost("it is gone")}, {1: SAVED}])
def test_asked_to_end_it_promises_no_more_than_the_last_checkpoint_where_none_was_saved(
    told: dict[int, BaseException], asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the first process was killed, late or starting, or lost the other one."""
    asked(told)
    with pytest.raises(SystemExit) as ended:
        launch.launch(2, "some.stages.train")
    assert ended.value.code == 130
    said = "error: interrupted; the same command continues at the last checkpoint\n"
    assert capsys.readouterr().err == said


FULL, GONE = UserError("the disk is full"), Lost("another one is gone")


@pytest.mark.parametrize(
    ("told", "codes", "said", "code"),
    [
        ({0: FULL, 1: FULL}, {"r0": 1, "r1": 1}, ["the disk is full"], 1),
        ({0: ConfigError("a"), 1: UserError("b")}, {"r0": 2, "r1": 1}, ["a", "b"], 2),
        ({0: GONE, 1: FULL}, {"r0": 1, "r1": 1}, ["the disk is full"], 1),
        ({0: FULL}, {"r0": 1, "r1": -6}, ["the disk is full"], 1),  # NCCL's end where one is lost
        ({0: GONE}, {"r0": 1, "r1": -15}, ["another one is gone"], 1),
        ({0: GONE}, {"r0": 1, "r1": 1}, [], 1),  # it left a traceback
    ],
)
def test_a_mistake_is_said_once_and_what_it_cost_the_others_is_not(
    told: dict[int, Exception],
    codes: dict[str, int],
    said: list[str],
    code: int,
    ends: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends(told, **codes)
    with pytest.raises(SystemExit) as ended:
        launch.launch(2, "some.stage")
    assert ended.value.code == code
    assert capsys.readouterr().err.splitlines() == [f"error: {message}" for message in said]


def test_under_torchrun_what_befalls_all_the_first_of_a_machine_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def heard(error: BaseException, rank: str) -> bool:
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit):
            errors.run(lambda: raise_(error), launch._tell)
        return bool(capsys.readouterr().err)

    def raise_(error: BaseException) -> None:
        raise error

    monkeypatch.delenv(launch.TOLD, raising=False)
    for error in (ConfigError("a wrong key"), KeyboardInterrupt()):
        assert heard(error, "0")
        assert not heard(error, "1")
    assert heard(FULL, "1")
    assert heard(GONE, "1")  # it may be the first that is gone


def test_a_message_that_cannot_be_left_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv(launch.TOLD, str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    launch._tell(str(FULL), FULL)
    assert "the disk is full" in capsys.readouterr().err


def test_a_bug_in_one_of_several_processes_keeps_its_traceback() -> None:
    code = (
        "from pipeline import launch\n"
        "launch.join = lambda: None\n"
        "launch.run(lambda: 1 / 0, 'some.stage')"
    )
    alone = {"TORCHELASTIC_RUN_ID": "test", "RANK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_too_few_cuda_devices_are_too_few_for_every_process(
    rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(ConfigError, match=r"2 processes on this machine.*torch sees 1"):
        launch.join()


def agrees(changes: dict[str, Any]) -> None:
    """As process 1 of several on another machine, with `changes` to its inputs."""
    mine = changes if parallel.rank() == 1 else {}
    files = {"pipeline/losses.py": "1", "data/prepared/manifest.json": "2"} | mine.get("files", {})
    params = {"seed": 0, "train.lr_g": 1e-4, "loss.terms": {"r1": 1.0}} | mine.get("params", {})
    launch.agree({"files": files, "params": params}, **{"train.log_every": mine.get("every", 10)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"params": {"seed": 1, "train.lr_g": 0.5}}, "seed: 0 -> 1; train.lr_g: 0.0001 -> 0.5"),
        ({"files": {"pipeline/losses.py": "3"}}, "pipeline/losses.py changed"),
        ({"every": 20}, "train.log_every: 10 -> 20"),
    ],
)
def test_processes_of_other_inputs_all_end_with_what_differs(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    ends = together(agrees, tmp_path, changes, n=3, patience_s=20)
    assert len(set(ends)) == 1
    assert ends[0].startswith("Differ: process 1 (on ")
    assert f"{told}. Give every machine the same params.yaml, code and data" in ends[0]


@pytest.mark.slow
def test_processes_of_the_same_inputs_go_on(tmp_path: Path) -> None:
    assert together(agrees, tmp_path, {}) == ["None", "None"]


@pytest.mark.parametrize(
    ("argument", "code", "words"),
    [
        ("--help", 0, "as three splits on disk"),
        ("--steps=5", 2, "unrecognized arguments: --steps=5"),
    ],
)
def test_a_stage_says_what_it_does_and_takes_no_arguments(
    argument: str, code: int, words: str
) -> None:
    command = [sys.executable, "-m", "pipeline.stages.prepare", argument]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["prepare", "features", "train", "evaluate", "report"])
def test_an_interrupt_before_a_stage_is_imported_is_a_message(stage: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("print('here', flush=True)\nimport time\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", f"pipeline.stages.{stage}"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's job in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, errors_told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors_told == f"error: {errors.INTERRUPTED}\n"


@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_processes_of_one_device_are_refused_before_they_meet(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_yaml(ROOT / "params.yaml")
    values["train"]["device"] = device
    (tmp_path / "params.yaml").write_text(json.dumps(values))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"train.device is '{device}', which several processes"):
        launch.join()
