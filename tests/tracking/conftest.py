from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pipeline.tracking import store

sys.path.insert(0, str(Path(__file__).parent))  # for outs.py, also in processes that tests start


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository as working directory, with a store of its own."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    store._create(folder / "mlflow.db", folder / "mlartifacts")
    return folder / "mlflow.db"


@pytest.fixture
def quick_store(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New stores are copies of an empty one: running the migrations takes a second each time."""
    monkeypatch.setattr(
        store, "_create", lambda database, artifacts: shutil.copy(empty_store, database)
    )
