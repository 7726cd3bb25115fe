"""Checkpoints: found by key, held by one process, explained where another's are nearest."""

import json
import subprocess
import sys
from pathlib import Path

from pipeline.training import checkpoints


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
