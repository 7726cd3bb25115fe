"""Trainings that a signal ends anywhere, in a checkpoint's writing too, end as if it had not come.

Every process is a real one, and so are its checkpoints. What is compared is all of the state at the
end but clocks and memory: networks, moments of the optimizers, running values, guard, balance and
curves.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from pipeline import parallel
from pipeline.training import checkpoints, interrupts
from pipeline.training.loop import Callback
from pipeline.training.state import State

from . import parallel_cases
from .parallel_cases import Case

STEPS = 24
INTERRUPTED = 130
# From this step on the first checkpoint is whole: the save at step 4 waited for that of step 2.
CERTAIN = 5
CONTEXT = multiprocessing.get_context("forkserver")
# Imported once for all processes, and so are the modules that torch's first optimizer imports.
CONTEXT.set_forkserver_preload([f"{__package__}.first_optimizer"])

# Both moments matter, and the rates are such that none of these trainings runs away.
ADAM = {"optimizer": "adam", "betas": (0.5, 0.9)}
RATES = {"lr_g": 1e-3, "lr_d": 1e-3}
PLAIN = {**ADAM, "conditional": False}
CASES: dict[str, Case] = {
    **{
        name: ({**of_make, **ADAM}, {**of_run, **RATES})
        for name, (of_make, of_run) in parallel_cases.CASES.items()
    },
    "batch_norm": ({**PLAIN, "spectral_norm": False}, RATES),
    "bf16": (ADAM, {**RATES, "precision": torch.bfloat16}),
    # A collapse at steps 12 and 16, and NaN at step 20: the guard acts on both.
    "rollback": ({**PLAIN, "on_collapse": "rollback"}, RATES),
    "rollback_adaptive": ({**PLAIN, "on_collapse": "rollback", "balance": "adaptive"}, RATES),
    "stop": ({**PLAIN, "on_collapse": "stop"}, RATES),
    **{
        name: ({**PLAIN, "optimizer": name}, RATES) for name in ("adamw", "rmsprop", "sgd")
    },  # with momentum
}
TOGETHER = ["batch_norm", "ada", "adaptive_balance", "rollback_adaptive"]


class Report(Callback):
    """Tells the step, through memory that processes share; one that is to be killed never ends."""

    def __init__(self, step: Any, dies: bool, asked: Callable[[], bool]) -> None:
        self.step, self.dies, self.asked = step, dies, asked

    def on_step(self, state: State, row: dict[str, float]) -> None:
        self.step.value = state.step
        if state.step >= STEPS - 1:
            self._wait()

    def trained(self) -> None:
        """After the last step and the last write, before the training leaves anything."""
        self.step.value = STEPS
        self._wait()

    def _wait(self) -> None:
        while self.dies and not self.asked():
            time.sleep(0.001)


def work(
    case: str,
    root: Path,
    step: Any,
    rank: int,
    size: int,
    dies: bool,
    writing: int,
    threads: int,
    every: int,
) -> None:
    """Train from the last checkpoint in `root` on; the state at the end is what it leaves.

    `dies`: is killed by the test. `writing` n: by itself, with half of the n-th checkpoint written.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    torch.set_num_threads(threads)  # the same sums in the same order, whatever else runs
    if size > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        meet = f"file://{root / 'meet'}"
        distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    intervals = {"steps": STEPS, "log_every": 1, "checkpoint_every": every}
    try:
        with interrupts.held_back() as asked:
            report = Report(step, dies, asked)
            if rank == 0:
                _train_and_save(case, root, report, writing, intervals)
                return
            checkpoints.wait()
            known = _state_of(root).exists()
            parallel_cases.trained(
                CASES[case],
                **intervals,
                restore=root if known else None,
                callbacks=[report],
                asked=asked,
            )
            report.trained()
    except parallel.Lost:
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _train_and_save(
    case: str, root: Path, report: Report, writing: int, intervals: dict[str, int]
) -> None:
    with checkpoints.hold(root, "key") as folder:
        if writing:
            _die_writing(writing)
        known = (folder / checkpoints.STATE).exists()
        with checkpoints.background(folder) as save:
            state = parallel_cases.trained(
                CASES[case],
                **intervals,
                restore=folder if known else None,
                save=save,
                callbacks=[report],
                asked=report.asked,
            )
        report.trained()
        torch.save(state.state_dict(), root / "end")


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


def _state_of(root: Path) -> Path:
    return root / "key" / checkpoints.STATE


def train(
    case: str,
    root: Path,
    *,
    size: int = 1,
    kill: int | None = None,
    at: int = 0,
    late: float = 0.0,
    writing: int = 0,
    threads: int = 1,
    number: int = signal.SIGKILL,
    every: int = 2,
) -> list[int]:
    """One go at it of `size` processes, the `kill`-th of them killed `late` s after step `at`.

    Killed by signal `number`; there is a checkpoint `every` so many steps. Returns their exit codes.
    """
    (root / "meet").unlink(missing_ok=True)
    step = CONTEXT.Value("i", 0, lock=False)
    processes = [
        CONTEXT.Process(
            target=work,
            args=(case, root, step, rank, size, rank == kill, writing, threads, every),
        )
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    if kill is not None:
        deadline = time.monotonic() + 120
        while step.value < at and processes[kill].is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        time.sleep(late)
        pid = processes[kill].pid
        assert pid is not None
        os.kill(pid, number)
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()  # else pytest would wait for one that does not end
    assert None not in codes, "a process does not end"
    return [code for code in codes if code is not None]


def kill_twice(case: str, root: Path, **of_train: Any) -> None:
    """Two goes that are killed anywhere, the second with a checkpoint behind it."""
    chance = random.Random(case)
    for earliest, kill in ((1, 0), (CERTAIN, of_train.get("size", 1) - 1)):
        codes = train(
            case,
            root,
            kill=kill,
            at=chance.randint(earliest, STEPS - 2),
            late=chance.uniform(0, 0.01),  # in a step, between two, or in a write
            **of_train,
        )
        assert codes[kill] == -signal.SIGKILL
        assert 0 not in codes  # the others end with it, and with nothing to show
    assert _state_of(root).exists()
    assert not (root / "end").exists()


def end(root: Path) -> dict[str, Any]:
    return torch.load(root / "end", weights_only=True)


def digests(state: Mapping[str, Any]) -> dict[str, str]:
    """A hash of each part of a state's dictionary."""
    found = {}
    for name, value in state.items():
        if name != "seconds":
            digest = hashlib.sha256()
            _take(digest, value)
            found[name] = digest.hexdigest()
    return found


def _take(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if "second" not in str(key) and key != "memory_mb":  # of the history
                digest.update(repr(key).encode())
                _take(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} of {len(value)}".encode())
        for item in value:
            _take(digest, item)
    else:
        digest.update(repr(value).encode())


@pytest.fixture(scope="module", autouse=True)
def patient_threads() -> Iterator[None]:
    """Two threads that spin while they wait for each other take ten times as long on busy cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")  # read where the server of forks starts
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    known: dict[tuple[str, int, int], dict[str, Any]] = {}

    def of(case: str, size: int = 1, threads: int = 1) -> dict[str, Any]:
        key = (case, size, threads)
        if key not in known:
            root = tmp_path_factory.mktemp(case)
            assert train(case, root, size=size, threads=threads) == [0] * size
            known[key] = end(root)
        return known[key]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_points_a_training_ends_the_same(
    case: str, tmp_path: Path, uninterrupted: Any
) -> None:
    kill_twice(case, tmp_path)
    assert train(case, tmp_path) == [0]
    assert digests(end(tmp_path)) == digests(uninterrupted(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", TOGETHER)
def test_of_two_processes_either_may_be_killed(
    case: str, tmp_path: Path, uninterrupted: Any
) -> None:
    """The first, which writes, and then the second."""
    kill_twice(case, tmp_path, size=2)
    assert train(case, tmp_path, size=2) == [0, 0]
    assert digests(end(tmp_path)) == digests(uninterrupted(case, size=2))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_killed_in_so_many_processes_it_goes_on_in_others_to_the_same_weights(
    before: int, after: int, tmp_path: Path, uninterrupted: Any
) -> None:
    """To 1e-5: rounding made 1e-7 of it here, and Adam's moments, where they are lost, 5e-3."""
    kill_twice("batch_norm", tmp_path, size=before)
    assert train("batch_norm", tmp_path, size=after) == [0] * after
    ours, theirs = end(tmp_path), uninterrupted("batch_norm")
    for name in ("generator", "discriminator", "ema"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_with_two_threads_it_ends_the_same_too(tmp_path: Path, uninterrupted: Any) -> None:
    kill_twice("non_saturating", tmp_path, threads=2)
    assert train("non_saturating", tmp_path, threads=2) == [0]
    found = digests(end(tmp_path))
    assert found == digests(uninterrupted("non_saturating", threads=2))
    # Else it would show nothing that the case of one thread does not.
    assert found["generator"] != digests(uninterrupted("non_saturating"))["generator"]


@pytest.mark.slow
def test_killed_after_it_was_stopped_it_stops_there_again(
    tmp_path: Path, uninterrupted: Any
) -> None:
    """Between its last write and what it leaves, where `Report` tells STEPS."""
    codes = train("stop", tmp_path, kill=0, at=STEPS)
    assert codes == [-signal.SIGKILL]
    assert train("stop", tmp_path) == [0]
    assert digests(end(tmp_path)) == digests(uninterrupted("stop"))


@pytest.mark.slow
@pytest.mark.parametrize("which", [1, 2, 5])
def test_killed_while_writing_a_checkpoint_it_goes_on_from_the_one_before(
    which: int, tmp_path: Path, uninterrupted: Any
) -> None:
    assert train("ada", tmp_path, writing=which) == [-signal.SIGKILL]
    assert _state_of(tmp_path).exists() == (which > 1)
    assert len(list((tmp_path / "key").glob(".*.new"))) == 1
    assert train("ada", tmp_path) == [0]
    assert digests(end(tmp_path)) == digests(uninterrupted("ada"))
    assert not list((tmp_path / "key").glob(".*.new"))


@pytest.mark.slow
@pytest.mark.parametrize("number", interrupts.SIGNALS)
@pytest.mark.parametrize(("size", "asked"), [(1, 0), (2, 0), (2, 1)])
def test_asked_to_end_it_loses_not_even_what_no_checkpoint_was_due_for(
    size: int, asked: int, number: signal.Signals, tmp_path: Path, uninterrupted: Any
) -> None:
    """Of two processes one hears of it, whichever, and both end."""
    case, chance = "rollback_adaptive", random.Random(f"{size} {asked} {number}")
    for earliest, latest in ((1, STEPS // 2), (STEPS // 2 + 1, STEPS - 2)):
        at = chance.randint(earliest, latest)
        of_train = {"size": size, "kill": asked, "at": at, "late": chance.uniform(0, 0.005)}
        assert train(case, tmp_path, **of_train, number=number, every=999) == [INTERRUPTED] * size
        assert torch.load(_state_of(tmp_path), weights_only=True)["step"] >= at
        assert not (tmp_path / "end").exists()
    assert train(case, tmp_path, size=size, every=999) == [0] * size
    assert digests(end(tmp_path)) == digests(uninterrupted(case, size=size))


@pytest.mark.slow
def test_these_trainings_do_what_they_are_named_for(uninterrupted: Any) -> None:
    """Else their kills would show nothing."""

    def kinds(case: str) -> list[str]:
        return [event["kind"] for event in uninterrupted(case)["events"]]

    assert float(uninterrupted("ada")["memory"]["augment_p"]) > 0
    assert "balance" in kinds("adaptive_balance")
    assert kinds("rollback") == ["alarm", "rollback", "not_finite", "rollback"]
    assert {"balance", "rollback"} <= set(kinds("rollback_adaptive"))
    assert kinds("stop") == ["alarm", "stop"]
    assert uninterrupted("stop")["step"] < STEPS
    for case in CASES:
        for player in ("optimizer_g", "optimizer_d"):
            moments = uninterrupted(case)[player]["state"]
            assert moments, case
            assert any(float(t.abs().max()) > 0 for m in moments.values() for t in m.values())
