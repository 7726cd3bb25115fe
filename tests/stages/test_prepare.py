"""The stage as DVC starts it: a process in a folder with params.yaml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline import config
from pipeline.datasets import prepared

REPOSITORY = Path(__file__).parents[2]


def run_stage(folder: Path, **data: object) -> subprocess.CompletedProcess[str]:
    """Run the stage in `folder` with the repository's params.yaml and these keys of `data`."""
    params = config.read_yaml(REPOSITORY / "params.yaml")
    params["data"].update(data)
    YAML().dump(params, folder / "params.yaml")
    return subprocess.run(
        [sys.executable, "-m", "pipeline.stages.prepare"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_default_gives_the_documented_splits(tmp_path: Path) -> None:
    result = run_stage(tmp_path)
    assert result.returncode == 0, result.stderr
    data = prepared.load(tmp_path / "data" / "prepared")
    sizes = {name: len(data.split(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 3500, "val": 500, "test": 1000}
    for name, each in (("train", 350), ("val", 50), ("test", 100)):
        assert data.manifest["splits"][name]["class_counts"] == [each] * 10


def test_own_images_by_a_relative_path(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(40):
        file = tmp_path / "data/raw" / ("cat", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(file)
    result = run_stage(tmp_path, source="folder", name="pets", channels=3, image_size=32)
    assert result.returncode == 0, result.stderr
    data = prepared.load(tmp_path / "data" / "prepared")
    assert (data.name, data.class_names) == ("pets", ["cat", "dog"])
    assert data.split("train").images.shape == (28, 32, 32, 3)


@pytest.mark.parametrize(("data", "code", "words"), [
    ({"source": "folder", "name": "x"}, 1, ["data/raw", "data.path"]),
    ({"image_size": "big"}, 2, ["image_size", "big"]),
])  # fmt: skip
def test_mistakes_get_one_message_and_no_half_written_out(
    tmp_path: Path, data: dict, code: int, words: list[str]
) -> None:
    result = run_stage(tmp_path, **data)
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert not list(tmp_path.glob("data/**/*"))
