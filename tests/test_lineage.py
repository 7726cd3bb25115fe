from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline import files, lineage
from pipeline.errors import UserError

PARAMS = {
    "seed": 0,
    "model": {"name": "dcgan", "width": 32},
    "train": {"lr_g": 2e-4, "betas": [0.0, 0.9]},
}
DVC_YAML = """
stages:
  train:
    cmd: python -m pipeline.stages.train
    deps:
      - pipeline/networks/${model.name}.py
      - data/prepared
      - pipeline/training
    params: [seed, model, train.lr_g]
  plain:
    cmd: "true"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "dvc.yaml": DVC_YAML,
        "pipeline/networks/dcgan.py": "dcgan",
        "pipeline/networks/mlp.py": "mlp",
        "pipeline/training/loop.py": "loop",
        "data/prepared/manifest.json": "{}",
        "data/prepared/train.npy": "large",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(root: Path) -> Path:
    (root / "params.yaml").write_text("seed: 0\n")
    (root / "dvc.lock").write_text("old\n")
    (root / "reports").mkdir()
    (root / "reports/metrics.json").write_text("{}\n")
    git(root, "init", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-m", "start")
    return root


def test_inputs_are_the_chosen_file_the_manifest_and_the_listed_params(root: Path) -> None:
    inputs = lineage.stage_inputs("train", PARAMS, root=root)

    assert set(inputs["files"]) == {
        "pipeline/networks/dcgan.py",
        "data/prepared/manifest.json",
        "pipeline/training/loop.py",
    }
    assert inputs["files"]["pipeline/networks/dcgan.py"] == files.file_hash(
        root / "pipeline/networks/dcgan.py"
    )
    assert inputs["params"] == {
        "seed": 0,
        "model": {"name": "dcgan", "width": 32},
        "train.lr_g": 2e-4,
    }


def test_stage_without_dependencies_has_empty_inputs(root: Path) -> None:
    assert lineage.stage_inputs("plain", PARAMS, root=root) == {"files": {}, "params": {}}


def test_key_ignores_what_the_stage_does_not_use(root: Path) -> None:
    before = lineage.stage_key(lineage.stage_inputs("train", PARAMS, root=root))
    (root / "pipeline/networks/mlp.py").write_text("changed")
    (root / "data/prepared/train.npy").write_text("the manifest speaks for it")
    (root / "pipeline/training/__pycache__").mkdir()
    (root / "pipeline/training/__pycache__/loop.pyc").write_text("x")
    params = {**PARAMS, "train": {**PARAMS["train"], "betas": [0.5, 0.9]}}

    assert lineage.stage_key(lineage.stage_inputs("train", params, root=root)) == before


@pytest.mark.parametrize("change", ["pipeline/networks/dcgan.py", "data/prepared/manifest.json"])
def test_key_changes_with_a_file_that_the_stage_uses(root: Path, change: str) -> None:
    before = lineage.stage_key(lineage.stage_inputs("train", PARAMS, root=root))
    (root / change).write_text('{"a": 1}')

    assert lineage.stage_key(lineage.stage_inputs("train", PARAMS, root=root)) != before


def test_an_evaluation_of_another_training_has_another_key(root: Path) -> None:
    inputs = lineage.stage_inputs("plain", PARAMS, root=root)

    assert len({lineage.stage_key(inputs, key) for key in ("", "a", "b")}) == 3


def test_difference_names_params_and_files(root: Path) -> None:
    before = lineage.stage_inputs("train", PARAMS, root=root)
    (root / "pipeline/training/loop.py").write_text("new loop")
    params = {**PARAMS, "model": {"name": "mlp", "width": 32}, "train": {"lr_g": 1e-4}}
    after = lineage.stage_inputs("train", params, root=root)

    assert lineage.difference(before, after) == [
        "model.name: dcgan -> mlp",
        "train.lr_g: 0.0002 -> 0.0001",
        "pipeline/networks/dcgan.py no longer used",
        "pipeline/networks/mlp.py added",
        "pipeline/training/loop.py changed",
    ]
    assert lineage.difference(before, before) == []


def test_difference_tells_what_an_empty_mapping_is_filled_with() -> None:
    empty, filled = (
        {"files": {}, "params": {"terms": {}}},
        {"files": {}, "params": {"terms": {"x": 1}}},
    )
    assert lineage.difference(empty, filled) == ["terms.x: (absent) -> 1"]
    assert lineage.difference(filled, empty) == ["terms.x: 1 -> (absent)"]
    assert lineage.difference(empty, {"files": {}, "params": {}}) == ["terms: {} -> (absent)"]


def test_difference_tells_null_from_absent() -> None:
    before = {"files": {}, "params": {"a": None}}
    after = {"files": {}, "params": {"b": None}}

    assert lineage.difference(before, after) == ["a: None -> (absent)", "b: (absent) -> None"]


def test_missing_dependency_names_it(root: Path) -> None:
    (root / "pipeline/networks/dcgan.py").unlink()
    with pytest.raises(UserError, match=r"networks/dcgan\.py.*train"):
        lineage.stage_inputs("train", PARAMS, root=root)


def test_missing_param_names_it(root: Path) -> None:
    with pytest.raises(UserError, match=r"lacks model\.name"):
        lineage.stage_inputs("train", {"seed": 0}, root=root)


def test_flatten_keeps_scalars_and_writes_lists_as_json() -> None:
    nested = {"seed": 0, "train": {"betas": [0.0, 0.99], "x": {"y": None}}, "on": True}

    assert lineage.flatten(nested) == {
        "seed": 0,
        "train.betas": "[0.0, 0.99]",
        "train.x.y": None,
        "on": True,
    }


def test_git_facts_of_a_clean_tree(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    (repository / "dvc.lock").write_text("new\n")
    (repository / "reports/metrics.json").write_text('{"fd": 1}\n')
    (repository / "notes.txt").write_text("mine")
    facts = lineage.git_facts(repository)

    assert len(facts["git_commit"]) == 40
    assert facts["git_baseline"] == facts["git_commit"]
    assert facts["git_branch"] == "main"
    assert facts["git_dirty"] == "false"
    assert "+new" in facts["git_diff"]
    assert "metrics.json" not in facts["git_diff"]


@pytest.mark.parametrize(
    "path", ["params.yaml", "pipeline/networks/dcgan.py", "pipeline/networks/untracked.py"]
)
def test_changed_params_and_changed_or_new_code_are_dirty(repository: Path, path: str) -> None:
    (repository / path).write_text("changed\n")

    facts = lineage.git_facts(repository)
    assert facts["git_dirty"] == "true"
    assert facts.get("git_untracked") == (path if "untracked" in path else None)


def test_diff_applies_to_the_commit(repository: Path) -> None:
    (repository / "params.yaml").write_text("seed: 7\n")
    (repository / "pipeline/networks/dcgan.py").write_bytes(b"\x00binary\xff")
    diff = lineage.git_facts(repository)["git_diff"]
    git(repository, "checkout", "--", ".")
    (repository.parent / "changes.diff").write_text(diff)
    git(repository, "apply", str(repository.parent / "changes.diff"))

    assert (repository / "params.yaml").read_text() == "seed: 7\n"
    assert (repository / "pipeline/networks/dcgan.py").read_bytes() == b"\x00binary\xff"


@pytest.mark.parametrize("prepare", [[], ["init"]], ids=["no repository", "no commit"])
def test_without_a_commit_the_message_says_how_to_make_one(
    tmp_path: Path, prepare: list[str]
) -> None:
    if prepare:
        git(tmp_path, *prepare)
    with pytest.raises(UserError, match="git init && git add -A && git commit"):
        lineage.git_facts(tmp_path)


def test_exp_name_is_that_of_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "loamy-kohl")
    assert lineage.exp_name() == "loamy-kohl"
    monkeypatch.delenv("DVC_EXP_NAME")
    assert lineage.exp_name() is None


def test_code_only_leaves_the_data_out(root: Path) -> None:
    inputs = lineage.stage_inputs("train", PARAMS, root / "dvc.yaml", root, code_only=True)
    assert set(inputs["files"]) == {"pipeline/networks/dcgan.py", "pipeline/training/loop.py"}
    assert (
        inputs["params"] == lineage.stage_inputs("train", PARAMS, root / "dvc.yaml", root)["params"]
    )
