"""A scratch project with the ring's points prepared, on which a trial takes a fraction of a second."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import config, presets
from pipeline.stages import features, prepare
from pipeline.tracking import store

ROOT = Path(__file__).parents[2]

TINY: dict[str, Any] = {
    "data": {"draws": 2000},
    "model": {"width": 16},
    "train": {"batch_size": 32, "eval_samples": 100, "steps": 100},
    "tune": {
        "trials": 3,
        "steps": 12,
        "reports": 3,
        "pruner": "none",
        "constraints": {"label_kl": {"max": 20.0}},
        "finalists": 1,
        "finalist_seeds": 2,
    },
}


def plain() -> dict[str, Any]:
    """The shipped values with the plain recipe: unconditional, nothing added."""
    shipped, recipe = (presets.overlay(name, ROOT / "presets") for name in ("default", "dcgan"))
    return presets.merged(shipped, recipe)


def write_params(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """params.yaml of `folder`: the ring's preset, small, with `changes`; constraints replaced."""
    values = plain()
    for overlay in (presets.overlay("ring", ROOT / "presets"), TINY, changes):
        values = presets.merged(values, overlay)
        for key in ("space", "constraints"):
            if key in overlay.get("tune", {}):
                values["tune"][key] = overlay["tune"][key]
    config.check(values)
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(values, file)
    return values


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: data and features of the ring."""
    folder = tmp_path_factory.mktemp("ring")
    for name in ("dvc.yaml", "presets", "pipeline"):
        (folder / name).symlink_to(ROOT / name)
    write_params(folder, {})
    store._create(folder / "mlflow.db", folder / "mlartifacts")
    with contextlib.chdir(folder):
        prepare.main()
        features.main()
    return folder


Project = Callable[..., dict[str, Any]]


@pytest.fixture
def project(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Makes a project of its own in the working directory; called with changes of its params."""
    for name in ("dvc.yaml", "presets", "pipeline"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("data", "models"):
        shutil.copytree(prepared / name, tmp_path / name)
    # A new store is a copy: running the migrations takes a second each time.
    monkeypatch.setattr(
        store, "_create", lambda database, artifacts: shutil.copy(prepared / "mlflow.db", database)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "start"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)

    def make(**changes: Any) -> dict[str, Any]:
        return write_params(tmp_path, changes)

    return make
