"""Checkpoints: found by key, held by one process, explained where another's are nearest."""

import io
import logging
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import parallel
from pipeline.errors import UserError
from pipeline.training import checkpoints
from pipeline.training.guard import Guard

from ..together import together
from .test_loop import make, run


def test_the_nearest_checkpoint_is_named_with_its_differences(tmp_path: Path) -> None:
    def remember(key: str, params: dict[str, float], code: str) -> None:
        folder = tmp_path / key
        folder.mkdir()
        (folder / checkpoints.STATE).touch()
        checkpoints.remember_inputs(folder, {"files": {"loop.py": code}, "params": params})

    remember("far", {"train.lr_g": 1.0, "train.lr_d": 1.0}, "other")
    remember("near", {"train.lr_g": 1.0, "train.lr_d": 2.0}, "same")
    now = {"files": {"loop.py": "same"}, "params": {"train.lr_g": 3.0, "train.lr_d": 2.0}}
    assert checkpoints.nearest(tmp_path, now) == ("near", ["train.lr_g: 1.0 -> 3.0"])


def test_no_other_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoints.nearest(tmp_path, {"files": {}, "params": {}}) is None


def test_a_checkpoint_in_the_background_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    state, _ = make()
    with checkpoints.background(tmp_path) as save:
        state.step, state.history = 3, [{"step": 3.0}]
        save(state)
        with torch.no_grad():
            for parameter in state.generator.parameters():
                parameter.fill_(7)
        state.step = 4
        state.history.append({"step": 4.0})
    restored, _ = make()
    fresh, _ = make()
    assert checkpoints.restore(restored, tmp_path)
    assert restored.step == 3
    assert restored.history == [{"step": 3.0}]
    ours, new = restored.generator.state_dict(), fresh.generator.state_dict()
    assert all(torch.equal(ours[key], new[key]) for key in new)


def test_a_background_write_that_fails_is_told(tmp_path: Path) -> None:
    state, _ = make()
    gone = tmp_path / "file" / "below"
    gone.parent.write_text("no folder")
    with pytest.raises(OSError, match="file"), checkpoints.background(gone) as save:
        save(state)
    with pytest.raises(OSError, match="file"), checkpoints.background(gone) as save:
        save(state)
        raise KeyboardInterrupt  # who is told that the training continues there would be misled


# Tells each time it asks for the lock, and at last what it found.
SECOND = """
import sys
from pathlib import Path
from filelock import FileLock
from pipeline import parallel
from pipeline.training.checkpoints import hold

acquire = FileLock.acquire

def told(*given, **named):
    print("asks", flush=True)
    return acquire(*given, **named)

FileLock.acquire = told
parallel.BEAT_S = 0.05
with hold(Path(sys.argv[1]), "key") as folder:
    print("has", *(path.name for path in folder.iterdir()), flush=True)
"""


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    with checkpoints.hold(tmp_path, "key") as folder:
        other = subprocess.Popen(
            [sys.executable, "-c", SECOND, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert [other.stdout.readline() for _ in range(4)] == ["asks\n"] * 4
        (folder / "left").touch()
    output, _ = other.communicate(timeout=60)
    assert output.splitlines()[-1] == "has left"


def half_written(content: bytes) -> bytes:
    return content[: len(content) // 2]


def no_checkpoint(content: bytes) -> bytes:
    return b"no checkpoint" * 100


def empty(content: bytes) -> bytes:
    return b""


def one_bit_turned(content: bytes) -> bytes:
    """In a weight: torch itself would load it."""
    found = bytearray(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    found[largest.header_offset + largest.file_size // 2] ^= 1
    return bytes(found)


@pytest.mark.parametrize("damage", [half_written, no_checkpoint, empty, one_bit_turned])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path: Path, damage: Any) -> None:
    state, _ = make()
    checkpoints.save(state, tmp_path)
    path = tmp_path / checkpoints.STATE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path} is damaged: remove it .* anew"):
        checkpoints.restore(state, tmp_path)
    assert path.exists()  # it is the user's to decide


def test_a_checkpoint_of_another_training_is_not_continued(tmp_path: Path) -> None:
    """As where somebody put back the wrong copy."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        checkpoints.save(make()[0], folder)
    (theirs / checkpoints.STATE).replace(ours / checkpoints.STATE)
    state, _ = make()
    state.step = 7
    with pytest.raises(UserError, match="is another training's: remove it to start this one anew"):
        checkpoints.restore(state, ours)
    assert state.step == 7


def test_what_a_kill_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    (folder / "grids").mkdir(parents=True)
    for name in (f".{checkpoints.STATE}.4711.new", "grids/.a.png.4711.new"):
        (folder / name).write_bytes(b"half")
    (folder / checkpoints.STATE).write_bytes(b"whole")
    (folder / "grids" / "a.png").write_bytes(b"whole")
    with checkpoints.hold(tmp_path, "key"):
        left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left == {checkpoints.STATE, "a.png"}


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_under_other_threads_a_training_goes_on_and_says_that_the_bits_will_be_others(
    tmp_path: Path, threads: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        caplog.clear()
        state, _ = make()
        assert checkpoints.restore(state, tmp_path)
        warned.append(state)
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    warned: list[Any] = []
    threads(3)
    checkpoints.save(make()[0], tmp_path)
    assert warnings() == []
    threads(2)
    (line,) = warnings()
    assert "device: cpu, 3 threads -> cpu, 2 threads" in line
    assert "to rounding" in line
    assert "torch" not in line  # which is the same
    threads(3)
    assert warnings() == []  # nothing was trained under the two
    threads(2)
    warnings()
    checkpoints.save(warned[-1], tmp_path)
    (line,) = warnings()
    assert "device: cpu, 3 threads -> cpu, 2 threads" in line
    threads(3)
    (line,) = warnings()  # a part of it was
    assert "device: cpu, 2 threads -> cpu, 3 threads" in line


@pytest.mark.parametrize("name", [checkpoints.INPUTS, checkpoints.STARTED])
def test_a_damaged_note_beside_a_checkpoint_stops_no_training(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "key"
    folder.mkdir()
    (folder / checkpoints.STATE).touch()
    (folder / name).write_bytes(b"\xff{")
    assert checkpoints.nearest(tmp_path, {"files": {}, "params": {}}) is None
    assert checkpoints.first_start(folder, 100, resumed=True) == 100


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_what_is_kept_aside_stays_on_the_cpu_and_the_rest_goes_to_the_device(
    tmp_path: Path,
) -> None:
    """The best and the last healthy weights would fill a GPU. `meta` is any other device."""
    state, task = make(optimizer="rmsprop", conditional=False)
    state.guard = Guard("rollback")
    state.memory["heard"] = torch.ones(2)
    checkpoints.save(run(state, task, steps=4), tmp_path)

    state, _ = make(optimizer="rmsprop", conditional=False, device="meta")
    assert checkpoints.restore(state, tmp_path)
    assert state.best_weights is not None
    assert state.guard.healthy is not None
    aside = [*state.best_weights.values(), *state.guard.healthy["generator"].values()]
    assert {value.device.type for value in aside} == {"cpu"}
    moments = [moment["square_avg"] for moment in state.optimizer_d.state.values()]
    used = [*state.generator.state_dict().values(), *moments, *state.memory.values()]
    assert {value.device.type for value in used} == {"meta"}


def asks(root: Path, every_s: float) -> str:
    """As `train`, in one of two processes; the second one notes each time it hears of the first."""
    parallel.BEAT_S = every_s
    if parallel.rank() == 0:
        with checkpoints.hold(root, "key"):
            return str((root / "released").exists())
    share = parallel.broadcast_object

    def noted(value: object) -> object:
        heard = share(value)
        with (root / "heard").open("a") as file:
            file.write(".")
        return heard

    parallel.broadcast_object = noted
    checkpoints.wait()
    return str((root / "released").exists())


@pytest.mark.slow
def test_all_processes_wait_for_an_equal_training_longer_than_a_collective_does(
    tmp_path: Path,
) -> None:
    """Each time it is heard of is another collective, and so many take longer than one may."""
    every_s, patience_s, heard = 0.1, 2, tmp_path / "heard"
    with ThreadPoolExecutor() as beside:
        with checkpoints.hold(tmp_path, "key"):
            told = beside.submit(together, asks, tmp_path, tmp_path, every_s, patience_s=patience_s)
            while not heard.exists() or heard.stat().st_size <= patience_s / every_s:
                assert not (tmp_path / "told-1").exists(), (tmp_path / "told-1").read_text()
                time.sleep(0.01)
            (tmp_path / "released").touch()
        assert told.result() == ["True", "True"]


def old(root: Path, name: str, *, days: float, lock: bool = True) -> None:
    """What a training left `days` ago."""
    (root / name / "grids").mkdir(parents=True)
    written = [root / name / checkpoints.STATE, root / name / "grids" / "a.png"]
    written += [root / f"{name}.lock"] if lock else []
    for path in written:
        path.write_bytes(b"0" * 2**19)
    for path in [*written, root / name / "grids", root / name]:
        os.utime(path, (time.time() - days * 86400,) * 2)


def test_abandoned_checkpoints_and_their_locks_are_removed_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old(tmp_path, "abandoned", days=31)
    old(tmp_path, "unlocked", days=31, lock=False)
    old(tmp_path, "recent", days=29)
    old(tmp_path, "mine", days=31)
    (tmp_path / "done.lock").touch()
    os.utime(tmp_path / "done.lock", (0, 0))
    caplog.set_level(logging.INFO)
    checkpoints.prune(tmp_path, keep="mine")

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"recent", "recent.lock", "mine", "mine.lock"}
    (line,) = [record.getMessage() for record in caplog.records]
    assert (
        "30 days: abandone, unlocked (3 MB)" in line
    )  # two files and a lock of half a MB, two files
    checkpoints.prune(tmp_path, keep="mine")
    assert len(caplog.records) == 1


def test_a_checkpoint_that_is_held_or_was_touched_within_is_kept(tmp_path: Path) -> None:
    old(tmp_path, "held", days=31)
    old(tmp_path, "touched", days=31)
    (tmp_path / "touched" / "grids" / "a.png").touch()
    with checkpoints.hold(tmp_path, "held"):
        os.utime(tmp_path / "held", (0, 0))
        checkpoints.prune(tmp_path, keep="other")
    assert (tmp_path / "held").exists()
    assert (tmp_path / "touched").exists()
    checkpoints.prune(tmp_path / "missing", keep="other")


def test_a_resumed_training_keeps_its_first_start(tmp_path: Path) -> None:
    assert checkpoints.first_start(tmp_path, 100, resumed=False) == 100
    assert checkpoints.first_start(tmp_path, 200, resumed=True) == 100
    assert checkpoints.first_start(tmp_path, 300, resumed=False) == 300
    (tmp_path / checkpoints.STARTED).unlink()  # of a version that did not write it
    assert checkpoints.first_start(tmp_path, 400, resumed=True) == 400
