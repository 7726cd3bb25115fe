from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline import files
from pipeline.tracking import record
from pipeline.tracking.record import RunRecord

from . import outs


@pytest.fixture
def repository(workspace: Path) -> Path:
    (workspace / "params.yaml").write_text("seed: 0\n")
    for arguments in (["init", "-b", "main"], ["add", "-A"], ["commit", "-m", "start"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)
    return workspace


def test_record_survives_writing_and_reading(workspace: Path) -> None:
    written = outs.train_record()
    written.write(workspace)

    assert RunRecord.read(workspace) == written
    assert (workspace / "params.yaml").read_text() == written.params_yaml
    assert "params_yaml" not in files.read_json(workspace / "run.json")


def test_a_clean_tree_leaves_no_diff_of_an_earlier_run(workspace: Path) -> None:
    outs.train_record().write(workspace)
    outs.train_record(diff="").write(workspace)

    assert not (workspace / "changes.diff").exists()
    assert RunRecord.read(workspace).diff == ""


def test_start_and_finish_describe_a_training(repository: Path) -> None:
    (repository / "params.yaml").write_text("seed: 1\n")
    begun = record.start(
        "train", "k" * 64, experiment="gan", params={"train": {"lr": 1}}, dataset={"name": "a"}
    )
    ended = record.finish(begun, model={"name": "mlp"})

    assert begun.name == "train kkkkkkkk"
    assert begun.status == "RUNNING"
    assert begun.params == {"train.lr": 1}
    assert begun.params_yaml == "seed: 1\n"
    assert "+seed: 1" in begun.diff
    assert begun.tags["git_dirty"] == "true"
    assert begun.tags["train_key"] == "k" * 64
    assert "dvc_exp_name" not in begun.tags
    assert ended.status == "FINISHED"
    assert ended.ended is not None
    assert ended.ended >= begun.started
    assert ended.model == {"name": "mlp"}


def test_names_and_tags_are_those_of_the_experiment(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "loamy-kohl")
    training = record.start("train", "k" * 64, experiment="gan", params={}, dataset={})
    evaluation = record.start(
        "evaluate", "e" * 64, experiment="gan", params={}, dataset={}, train_key="k" * 64
    )

    assert training.name == "train loamy-kohl"
    assert evaluation.name == "evaluate eeeeeeee of loamy-kohl"
    assert evaluation.tags["dvc_exp_name"] == "loamy-kohl"
    assert (evaluation.tags["train_key"], evaluation.tags["eval_key"]) == ("k" * 64, "e" * 64)
