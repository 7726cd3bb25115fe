"""A scratch repository with the working tree's files and a configuration that trains in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]

TINY = {
    "features.epochs": 1,
    "model.name": "mlp",
    "model.conditional": False,
    "model.minibatch": "none",
    "model.width": 16,
    "train.steps": 40,
    "train.log_every": 10,
    "train.eval_every": 20,
    "train.checkpoint_every": 10,
    "train.eval_samples": 100,
    "train.augment": [],
    "train.augment_p": 1.0,
    "train.precision": "fp32",
    "evaluate.samples": 200,
    "evaluate.bootstraps": 20,
}


@dataclass(frozen=True)
class Workspace:
    """A clone in which commands run as a user's would."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        hidden = ("DVC_", "MLFLOW_", "COVERAGE", "PYTEST")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",  # the same sums in the same order, whatever else runs
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # DVC's experiments commit, also where nobody told git who they are.
            **{f"GIT_{who}_NAME": "test" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "test@localhost" for who in ("AUTHOR", "COMMITTER")},
        }

    def run(self, *command: str, code: int | None = 0, **environment: str) -> str:
        """Run a command here; its output, both streams. Fails unless it exits with `code`, if any."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert code in (None, done.returncode), (
            f"{command} exited with {done.returncode}:\n{done.stdout}"
        )
        return done.stdout

    def copy(self, root: Path) -> Workspace:
        """DVC's cache and the MLflow store included; what it logs, the two share."""
        shutil.copytree(self.root, root, symlinks=True)
        return Workspace(root)

    def gan(self, *arguments: str, code: int | None = 0, **environment: str) -> str:
        """`gan` of the code here."""
        return self.run("python", "-m", "pipeline.cli", *arguments, code=code, **environment)

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", f"--message={message}")

    def set(self, **params: Any) -> None:
        """Change keys of params.yaml, comments kept; `train__lr_g` for train.lr_g."""
        path, yaml = self.root / "params.yaml", YAML()
        values = yaml.load(path.read_text())
        for key, value in params.items():
            section, _, leaf = key.replace("__", ".").partition(".")
            if leaf:
                values[section][leaf] = value
            else:
                values[section] = value
        with path.open("w") as file:
            yaml.dump(values, file)

    def runs(self) -> list[dict[str, Any]]:
        """All runs of the store: name, stage, status, tags, params, metrics, oldest first."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{self.root}/mlflow.db")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
        return [
            {
                "id": run.info.run_id,
                "name": run.info.run_name,
                "status": run.info.status,
                "stage": run.data.tags["dvc_stage"],
                "parent": run.data.tags.get("mlflow.parentRunId"),
                "tags": run.data.tags,
                "params": run.data.params,
                "metrics": run.data.metrics,
            }
            for run in found
        ]


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after `dvc repro`, committed. Shared: copy it before changing it."""
    root = tmp_path_factory.mktemp("workspace") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("tests/") and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    workspace = Workspace(root)
    workspace.set(**{key.replace(".", "__"): value for key, value in TINY.items()})
    workspace.run("git", "init", "--quiet", "--initial-branch=main")
    workspace.commit("start")
    workspace.run("dvc", "repro")
    workspace.commit("reproduced")
    return workspace


@pytest.fixture(scope="session")
def registered(reproduced: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two trainings, each promoted: version 2 is the champion. Shared: copy it before changing it.

    So short a training is no good one, hence the force.
    """
    workspace = reproduced.copy(tmp_path_factory.mktemp("registered") / "project")
    workspace.gan("promote", "--force", "--why", "the first")
    workspace.set(train__steps=60)
    workspace.run("dvc", "repro")
    workspace.commit("longer")
    workspace.gan("promote", "--force", "--why", "trained longer")
    return workspace


@pytest.fixture
def workspace(reproduced: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of its own, DVC's cache and the MLflow store included."""
    yield reproduced.copy(tmp_path / "project")
    shutil.rmtree(tmp_path / "project")
