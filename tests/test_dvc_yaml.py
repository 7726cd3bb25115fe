"""dvc.yaml and the code agree: what a stage names is there, and no key that matters is left out."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import config
from pipeline.networks import NETWORKS

ROOT = Path(__file__).parents[1]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]

# Keys that change no number of the stage that reads them.
NO_NUMBER = {
    "data.path",  # a dependency, not a param
    "train.device",
    "train.devices",
    "train.cuda_graphs",
    "train.checkpoint_every",
    "train.log_every",
    "evaluate.batch_size",
}
NO_STAGE = ("tracking", "registry", "tune")


def test_every_key_that_changes_a_number_is_some_stages_param() -> None:
    named = {key for stage in STAGES.values() for key in stage["params"]}
    sections = [*config.Params.model_fields]
    leaves = {
        key
        for key in config.known_keys()
        if key.partition(".")[0] not in NO_STAGE and ("." in key or key == "seed")
    }
    assert named == leaves - NO_NUMBER
    assert all(section in sections for section in NO_STAGE)


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_that_a_stage_names_exists(stage: str) -> None:
    for dependency in STAGES[stage]["deps"]:
        if dependency.startswith("pipeline/"):
            for name in NETWORKS:
                assert (ROOT / re.sub(r"\$\{model\.name\}", name, dependency)).is_file(), dependency


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_every_module_that_it_imports_and_that_decides_numbers(stage: str) -> None:
    """Imports are followed through the package; what decides no number is listed here."""
    aside = {
        "pipeline/__init__.py",
        "pipeline/arguments.py",
        "pipeline/compatibility.py",
        "pipeline/config.py",
        "pipeline/errors.py",
        "pipeline/files.py",
        "pipeline/launch.py",
        "pipeline/lineage.py",
        "pipeline/logs.py",
        "pipeline/paths.py",
        "pipeline/schema.py",
        "pipeline/tuning/schema.py",
        "pipeline/progress.py",
        "pipeline/worker.py",
        "pipeline/datasets/prepared.py",
        "pipeline/training/checkpoints.py",
        "pipeline/training/devices.py",
        "pipeline/training/interrupts.py",
    }
    reached: set[str] = set()
    waiting = [f"pipeline/stages/{stage}.py"]
    while waiting:
        path = waiting.pop()
        if path in reached or path.startswith("pipeline/tracking/"):
            continue
        reached.add(path)
        if not path.endswith("__init__.py"):  # a registry imports all that one may choose
            waiting += _imports(path)
    needed = {path for path in reached - aside if not path.endswith("__init__.py")}
    assert needed <= set(STAGES[stage]["deps"])


def test_prepare_names_every_source() -> None:
    files = {f"pipeline/datasets/{path.name}" for path in (ROOT / "pipeline/datasets").glob("*.py")}
    aside = {"pipeline/datasets/__init__.py", "pipeline/datasets/prepared.py"}
    assert files - aside <= set(STAGES["prepare"]["deps"])


def _imports(path: str) -> list[str]:
    """Files of the package that a file imports by name."""
    text = (ROOT / path).read_text()
    found = []
    for module, names in re.findall(
        r"^\s*from (pipeline[\w.]*) import ([^\n(]+|\([^)]*\))", text, re.M
    ):
        base = module.replace(".", "/")
        candidates = [f"{base}.py", f"{base}/__init__.py"]
        candidates += [
            f"{base}/{name.strip()}.py" for name in re.sub(r"[()]", "", names).split(",")
        ]
        found += [name for name in candidates if (ROOT / name).is_file()]
    return found
