"""A user's mistake: one message that names the thing, an exit code, nothing lost or half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.files import file_hash

from .conftest import Workspace

PREPARE = ("python", "-m", "pipeline.stages.prepare")


def refused(workspace: Workspace, *command: str, code: int, **environment: str) -> str:
    """The output of a command that must refuse and leave the prepared data as they were."""
    manifest = workspace.root / "data/prepared/manifest.json"
    before = file_hash(manifest)
    output = workspace.run(*command, code=code, **environment)
    assert "Traceback" not in output
    assert file_hash(manifest) == before
    assert (
        sorted(path.name for path in (workspace.root / "data").iterdir())
        == [
            ".gitignore",
            "prepared",
            "raw",
        ]
        or (workspace.root / "data/refused.csv").exists()
    )
    return output


def images(workspace: Workspace, classes: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        folder = workspace.root / "data/raw" / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (30, 30, 3), np.uint8)).save(folder / f"{i}.png")
    workspace.set(data__source="folder", data__name="mine")


def test_wrong_params_are_named_before_anything_runs(workspace: Workspace) -> None:
    workspace.set(train__lr_g=-1.0, evaluate__sample=5)
    output = refused(workspace, *PREPARE, code=2)
    assert "train.lr_g is -1.0" in output
    assert "did you mean evaluate.samples" in output
    assert "train.lr_g" in refused(workspace, "gan", "doctor", "--quick", code=2)


def test_a_missing_data_folder(workspace: Workspace) -> None:
    workspace.set(data__source="folder", data__name="mine", data__path="data/raw/none")
    assert "data/raw/none" in refused(workspace, *PREPARE, code=1)


def test_an_empty_data_folder(workspace: Workspace) -> None:
    workspace.set(data__source="folder", data__name="mine")
    assert "data/raw" in refused(workspace, *PREPARE, code=1)


def test_a_class_without_an_image(workspace: Workspace) -> None:
    images(workspace, {"cats": 30, "dogs": 0})
    assert "dogs" in refused(workspace, *PREPARE, code=1)


def test_corrupt_images_are_listed(workspace: Workspace) -> None:
    images(workspace, {"cats": 30, "dogs": 30})
    (workspace.root / "data/raw/cats/7.png").write_bytes(b"not a picture")
    output = refused(workspace, *PREPARE, code=1)
    assert "cats/7.png" in output
    assert "data.max_refused" in output
    assert "cats/7.png" in (workspace.root / "data/refused.csv").read_text()


def test_no_git_repository(workspace: Workspace) -> None:
    shutil.rmtree(workspace.root / ".git")
    output = refused(workspace, "gan", "doctor", "--quick", code=1)
    assert "git init" in output
    assert "git init" in refused(workspace, "python", "-m", "pipeline.stages.train", code=1)


def test_a_conditional_model_needs_labels(workspace: Workspace) -> None:
    images(workspace, {".": 60})
    workspace.run(*PREPARE)
    workspace.set(model__conditional=True)
    output = refused(workspace, "python", "-m", "pipeline.stages.train", code=1)
    assert "model.conditional" in output


def test_a_folder_that_cannot_be_written(workspace: Workspace) -> None:
    output = refused(workspace, "gan", "sample", "--out", "/sys/samples", code=1)
    assert "/sys/samples" in output


def models(workspace: Workspace) -> dict[Path, str]:
    """The hash of every file below models/."""
    paths = workspace.root.glob("models/**/*")
    return {path: file_hash(path) for path in paths if path.is_file()}


@pytest.mark.parametrize("stage", ["prepare", "features", "train"])
def test_no_room_for_what_a_stage_writes(workspace: Workspace, stage: str) -> None:
    """Real errors of the operating system: files may not grow beyond 20 blocks of 1 KiB."""
    before = models(workspace)
    command = f"ulimit -f 20; exec python -m pipeline.stages.{stage}"
    # The store is away: its files may not grow either, which is not the point here.
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    output = refused(workspace, "bash", "-c", command, code=1, **away)
    assert "ulimit" in output or "no space" in output
    assert models(workspace) == before
    assert not list(workspace.root.glob("*/.*.new"))


@pytest.mark.slow
def test_an_unreachable_server_loses_no_training(workspace: Workspace) -> None:
    workspace.set(train__steps=60)
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    output = workspace.run("dvc", "repro", **away)
    assert "gan sync" in output
    assert len(workspace.runs()) == 2
    assert "cannot be reached" in workspace.run("gan", "sync", code=1, **away)
    workspace.set(train__steps=40)  # the next training takes the place of these outs
    workspace.run("dvc", "repro")
    workspace.run("gan", "sync")
    steps = [run["params"]["train.steps"] for run in workspace.runs() if run["stage"] == "train"]
    assert sorted(steps) == ["40", "60"]
    assert not list((workspace.root / ".undelivered").glob("*"))
