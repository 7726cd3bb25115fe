"""Trainings that SIGKILL ends anywhere, in a checkpoint's writing too, go on to the same weights."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training import checkpoints
from pipeline.training.loop import Callback
from pipeline.training.state import State

from . import parallel_cases

STEPS = 24
CONTEXT = multiprocessing.get_context("forkserver")
# Imported once for all processes, and so are the modules that torch's first optimizer imports.
CONTEXT.set_forkserver_preload([f"{__package__}.first_optimizer"])
KINDS = sorted(set(parallel_cases.CASES) - {"clip_grad", "ratios"})


class Report(Callback):
    """Tells the step, through memory that the process shares."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def on_step(self, state: State, row: dict[str, float]) -> None:
        self.step.value = state.step


def work(case: str, folder: Path, step: Any, dies_writing: int) -> None:
    """Train from the last checkpoint in `folder` on; the weights' hash is what it leaves.

    `dies_writing` n: killed with half of the n-th checkpoint written.
    """
    torch.set_num_threads(1)  # the same sums in the same order, whatever else runs
    if dies_writing:
        _die_writing(dies_writing)
    known = (folder / checkpoints.STATE).exists()
    with checkpoints.background(folder) as save:
        state = parallel_cases.trained(
            case,
            steps=STEPS,
            restore=folder if known else None,
            log_every=1,
            checkpoint_every=2,
            save=save,
            callbacks=[Report(step)],
        )
    (folder / "hash").write_text(digest(state))


def _die_writing(which: int) -> None:
    whole, written = Path.write_bytes, 0

    def half(path: Path, content: bytes) -> int:
        nonlocal written
        written += 1
        if written < which:
            return whole(path, content)
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            os.fsync(file.fileno())
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    Path.write_bytes = half  # type: ignore[assignment, method-assign]


def digest(state: State) -> str:
    """A hash of every weight and buffer, and of the curves but for their clocks."""
    found = hashlib.sha256()
    for module in (state.generator, state.discriminator, state.ema):
        for name, value in module.state_dict().items():
            found.update(name.encode() + value.contiguous().numpy().tobytes())
    for row in state.history:
        kept = {name: x for name, x in row.items() if "second" not in name and name != "memory_mb"}
        found.update(repr(sorted(kept.items())).encode())
    return found.hexdigest()


def train(case: str, folder: Path, *, kill_at: int = 0, dies_writing: int = 0) -> int:
    """One process's go at it, killed once it has reached a step; its exit code."""
    step = CONTEXT.Value("i", 0, lock=False)
    process = CONTEXT.Process(target=work, args=(case, folder, step, dies_writing))
    process.start()
    while kill_at and process.is_alive() and step.value < kill_at:
        time.sleep(0.0005)
    if kill_at:
        process.kill()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    known: dict[str, str] = {}

    def of(case: str) -> str:
        if case not in known:
            folder = tmp_path_factory.mktemp(case)
            assert train(case, folder) == 0
            known[case] = (folder / "hash").read_text()
        return known[case]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS)
def test_killed_at_random_points_a_training_ends_the_same(
    case: str, tmp_path: Path, uninterrupted: Any
) -> None:
    at = random.Random(case)
    killed = []
    for kill_at in sorted(at.sample(range(2, STEPS), 2)):
        killed.append(train(case, tmp_path, kill_at=kill_at))
    assert -signal.SIGKILL in killed
    if not (tmp_path / "hash").exists():
        assert train(case, tmp_path) == 0
    assert (tmp_path / "hash").read_text() == uninterrupted(case)


@pytest.mark.slow
@pytest.mark.parametrize("which", [1, 2, 5])
def test_killed_while_writing_a_checkpoint_it_goes_on_from_the_one_before(
    which: int, tmp_path: Path, uninterrupted: Any
) -> None:
    assert train("ada", tmp_path, dies_writing=which) == -signal.SIGKILL
    assert (tmp_path / checkpoints.STATE).exists() == (which > 1)
    halves = [path for path in tmp_path.iterdir() if path.name.endswith(".new")]
    assert len(halves) == 1
    assert train("ada", tmp_path) == 0
    assert (tmp_path / "hash").read_text() == uninterrupted("ada")
