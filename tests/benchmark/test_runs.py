"""A benchmark through the real stages, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.benchmark import runs
from pipeline.errors import ConfigError
from pipeline.files import file_hash

ROOT = Path(__file__).parents[2]
TINY = (
    "data.draws=2000",
    "train.steps=30",
    "train.eval_every=30",
    "train.eval_samples=100",
    "model.width=16",
    "evaluate.samples=200",
    "evaluate.bootstraps=20",
)


@pytest.fixture
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_project")
def test_settings_are_the_default_the_preset_and_the_changes() -> None:
    values = runs.settings("ring", ["train.steps=7", "train.betas_g=[0.5, 0.9]", "seed=3"])
    assert (values["data"]["source"], values["train"]["steps"], values["seed"]) == ("ring", 7, 3)
    assert values["train"]["betas_g"] == [0.5, 0.9]
    assert values["tracking"]["experiment"] == "benchmark-ring"
    assert values["features"]["dim"] == 128  # the default's


@pytest.mark.usefixtures("in_project")
def test_wrong_changes_are_named() -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        runs.settings("ring", ["train.steps"])
    with pytest.raises(ConfigError, match=r"unknown key train\.step; did you mean train\.steps"):
        runs.settings("ring", ["train.step=3"])


def test_what_stopped_attempts_took_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "spent.json"
    with pytest.raises(KeyboardInterrupt), runs._counted(path, "a"):
        time.sleep(0.02)
        raise KeyboardInterrupt
    first = json.loads(path.read_text())["seconds"]
    with runs._counted(path, "a") as spent:
        time.sleep(0.02)
    assert first >= 0.02
    assert spent["seconds"] >= first + 0.02
    with runs._counted(path, "another") as spent:
        pass
    assert spent["seconds"] < first


def test_the_work_of_a_stage_is_counted(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    with runs._counted(tmp_path / "spent.json", "a") as spent:
        subprocess.run([sys.executable, "-c", busy], check=True)
    assert spent["cpu_seconds"] >= 0.15  # counted in ticks


@pytest.mark.slow
def test_a_tiny_benchmark_runs_keeps_its_seeds_and_touches_nothing(tmp_path: Path) -> None:
    """In a scratch repository: two seeds, then one more, then all of them from disk."""
    project = tmp_path / "project"
    for name in ("dvc.yaml", "params.yaml", "presets", "pipeline"):
        project.mkdir(exist_ok=True)
        (project / name).symlink_to(ROOT / name)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "start"]):
        subprocess.run([*git, *command], cwd=project, check=True)
    before = {path.name for path in project.iterdir()}, file_hash(ROOT / "params.yaml")

    def benchmark(seeds: int) -> tuple[dict, str]:
        command = [sys.executable, "-m", "pipeline.cli", "benchmark", "ring", "--json"]
        command += ["--seeds", str(seeds), "--out", str(tmp_path / "out")]
        command += [word for change in TINY for word in ("-S", change)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    first, _ = benchmark(2)
    assert [result["seed"] for result in first["seeds"]] == [0, 1]
    assert first["seeds"][0]["metrics"]["reverse_kl"] > 0
    assert first["seeds"][0]["metrics"]["hq"] < 0.5
    more, said = benchmark(3)
    assert more["seeds"][:2] == first["seeds"]
    assert "seed 2 (3 of 3)" in said
    assert "seed 0" not in said
    assert "train 1600" not in said  # the data is prepared once
    again, said = benchmark(3)
    assert (again["seeds"], said) == (more["seeds"], "")
    for name in ("ring.json", "ring.md", "ring.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    left = {".cache", ".checkpoints", ".mlflow.lock", "mlartifacts"}
    after = {path.name for path in project.iterdir() if not path.name.startswith("mlflow.db")}
    assert after - left == before[0]
    assert file_hash(ROOT / "params.yaml") == before[1]
