"""Checkpoints: found by key, held by one process, explained where another's are nearest."""

import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from pipeline import parallel
from pipeline.training import checkpoints

from ..together import together
from .test_loop import make


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


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.training.checkpoints import hold\n"
        "with hold(Path(sys.argv[1]), 'key') as folder: print(list(folder.iterdir()))"
    )
    with checkpoints.hold(tmp_path, "key") as folder:
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        (folder / "left").write_text(json.dumps(1))
        assert other.poll() is None
    output, _ = other.communicate(timeout=60)
    assert "left" in output


def asks(root: Path, every_s: float) -> str:
    """As `train`, in one of two processes."""
    parallel.BEAT_S = every_s
    if parallel.rank() > 0:
        checkpoints.wait()
        return str((root / "released").exists())
    (root / "asked").touch()
    with checkpoints.hold(root, "key"):
        return str((root / "released").exists())


@pytest.mark.slow
def test_all_processes_wait_for_an_equal_training_longer_than_a_collective_does(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor() as beside:
        with checkpoints.hold(tmp_path, "key"):
            told = beside.submit(together, asks, tmp_path, tmp_path, 0.2, patience_s=2)
            while not (tmp_path / "asked").exists():
                assert not told.done(), told.result()
                time.sleep(0.05)
            time.sleep(4)
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
