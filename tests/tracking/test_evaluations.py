from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline import files, paths
from pipeline.errors import UserError
from pipeline.tracking import deliver, evaluations, record, runs, store

from . import outs

pytestmark = pytest.mark.usefixtures("quick_store")

A, B = "a1b2" + "0" * 60, "b1c2" + "0" * 60
EVAL_A, EVAL_B = "e1f2" + "0" * 60, "e3f4" + "0" * 60
PROTOCOL = {"extractor": "domain", "n_fake": 60, "neighbours": 3, "versions": {"torch": "2.15.0"}}
REPOSITORY = Path(__file__).parents[2]


def make(root: Path, key: str, eval_key: str, *, name: str | None = None, quality: float = 1.0, **protocol) -> record.RunRecord:  # fmt: skip
    """A training and its evaluation in the workspace `root`, in place of what was there."""
    for out in ("reports", "models"):
        shutil.rmtree(root / out, ignore_errors=True)
    tags = {"dvc_exp_name": name} if name else {}
    of_train = {**outs.GIT, "train_key": key, "dvc_stage": "train", **tags}
    training = outs.train_record(key, name=f"train {name or key[:8]}", tags=of_train)
    outs.write_training(root, training, points=1, grids=0)
    return evaluate(root, training, eval_key, name=name, quality=quality, **protocol)


def evaluate(root: Path, training: record.RunRecord, key: str, *, name: str | None = None, quality: float = 1.0, ended: int = 80_000, **protocol) -> record.RunRecord:  # fmt: skip
    tags = {**outs.GIT, "train_key": training.key, "eval_key": key, "dvc_stage": "evaluate"}
    metrics = {"fd": 2 / quality, "fd_ci_low": 1.5 / quality, "fd_ci_high": 2.5 / quality, "recall": 0.9 * quality}  # fmt: skip
    evaluation = outs.write_evaluation(
        root,
        training,
        key,
        name=f"evaluate {key[:8]} of {name or training.key[:8]}",
        tags=tags | ({"dvc_exp_name": name} if name else {}),
        metrics=metrics,
        ended=outs.STARTED + ended,
    )
    outs.write_samples(root, key, quality=quality)
    files.write_json(root / paths.EVALUATION_REPORT / "protocol.json", {**PROTOCOL, **protocol})
    files.write_json(root / paths.METRICS, metrics)
    return evaluation


@pytest.fixture
def two(workspace: Path) -> Path:
    """A store with two trainings, each evaluated; the second is the workspace's."""
    fill(workspace)
    return workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        patch.setattr(store, "_create", lambda database, _: shutil.copy(empty_store, database))
        fill(root)
    return root


@pytest.fixture
def same(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `two`, for tests that leave it as it is."""
    monkeypatch.chdir(made)
    return made


def fill(root: Path) -> None:
    make(root, A, EVAL_A, name="loamy-kohl", quality=0.5)
    deliver.sync()
    make(root, B, EVAL_B)
    deliver.sync()


def one(name: str) -> str:
    """The name of the evaluation that `name` stands for."""
    (found,) = evaluations.resolve([name], "gan")
    return found.name


def run_id(kind: str, key: str) -> str:
    client, experiment_id = store.ready("gan")
    found = runs.find(client, experiment_id, kind, key)
    assert found is not None
    return str(found.info.run_id)


def compare(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `gan compare`; a user's mistake is an exception of the runner's."""
    from pipeline.cli import gan

    shutil.copy(REPOSITORY / "params.yaml", "params.yaml")
    result = CliRunner().invoke(gan, ["compare", *arguments])
    if isinstance(result.exception, UserError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None, result.output
    return result.exit_code, result.output


def test_runs_keys_and_experiments_stand_for_their_evaluation(same: Path) -> None:
    of_a = [
        *("loamy-kohl", "train loamy-kohl", "evaluate e1f20000 of loamy-kohl", "a1b2", A),
        *("e1f20000", EVAL_A, run_id("train", A), run_id("evaluate", EVAL_A)),
    ]
    of_b = ["b1c2", "train b1c20000", run_id("train", B)]
    found = [x.name for x in evaluations.resolve([*of_a, *of_b], "gan")]
    assert set(found[: len(of_a)]) == {"evaluate e1f20000 of loamy-kohl"}
    assert set(found[len(of_a) :]) == {"evaluate e3f40000 of b1c20000"}


def test_model_versions_stand_for_their_runs_evaluation(two: Path) -> None:
    client, _ = store.ready("gan")
    client.create_registered_model("gan-mnist5k")
    for source in (run_id("train", A), run_id("evaluate", EVAL_B)):
        uri = client.get_run(source).info.artifact_uri
        client.create_model_version("gan-mnist5k", uri, run_id=source)
    client.set_registered_model_alias("gan-mnist5k", "champion", "1")

    assert one("models:/gan-mnist5k/1") == one("models:/gan-mnist5k@champion") == one("a1b2")
    assert one("models:/gan-mnist5k/2") == one("b1c2")
    for name in ("models:/gan-mnist5k/7", "models:/gan-mnist5k@nobody", "models:/none/1"):
        with pytest.raises(UserError, match=name):
            one(name)
    with pytest.raises(UserError, match="models:/name/version"):
        one("models:/gan-mnist5k")


def test_a_training_stands_for_its_newest_evaluation(two: Path) -> None:
    training = record.RunRecord.read(two / paths.TRAIN_REPORT)
    evaluate(two, training, "c" * 64, ended=300_000)
    deliver.sync()
    evaluate(two, training, "d" * 64, ended=200_000)
    deliver.sync()

    assert one("train b1c20000") == one("b1c2") == "evaluate cccccccc of b1c20000"


def test_a_prefix_of_several_keys_is_refused_with_the_candidates(two: Path) -> None:
    make(two, "a1b2" + "f" * 60, "5" * 64)
    deliver.sync()
    with pytest.raises(UserError) as caught:
        one("a1b2")
    message = str(caught.value)
    assert "several evaluations" in message
    for candidate in ("evaluate e1f20000 of loamy-kohl", "evaluate 55555555 of a1b2ffff"):
        assert candidate in message
    assert one("a1b20") == "evaluate e1f20000 of loamy-kohl"


def test_a_training_without_evaluation_says_so(two: Path) -> None:
    shutil.rmtree(two / "reports")
    outs.write_training(two, outs.train_record("9" * 64, name="train 99999999"))
    deliver.sync()
    with pytest.raises(UserError, match="train 99999999 has no evaluation yet"):
        one("99999999")


def test_an_unknown_name_is_one_message_with_what_comes_near(same: Path) -> None:
    with pytest.raises(UserError, match=r"laomy-kohl is no run.*loamy-kohl"):
        one("laomy-kohl")
    with pytest.raises(UserError, match="'; drop"):
        one("x'; drop")
    with pytest.raises(UserError, match="e1 is no run"):
        one("e1")


def test_the_workspace_is_synced_first(workspace: Path) -> None:
    make(workspace, A, EVAL_A)
    assert one("e1f2") == "evaluate e1f20000 of a1b20000"


def test_files_and_folders_need_no_store(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    for name in (".", "reports", "reports/evaluation", "reports/metrics.json", str(two)):
        (found,) = evaluations.resolve([name], "gan")
        assert found.name == "evaluate e3f40000 of b1c20000", name
        assert found.metrics["fd"] == 2
        assert found.samples is not None, name


def test_a_metrics_file_alone_has_figures_and_protocol(two: Path) -> None:
    other = two / "other"
    other.mkdir()
    shutil.copy(two / paths.METRICS, other / "metrics.json")
    with pytest.raises(UserError, match=r"no protocol\.json beside it"):
        evaluations.resolve(["other/metrics.json"], "gan")

    shutil.copy(two / paths.EVALUATION_REPORT / "protocol.json", other)
    for name in ("other", "other/metrics.json"):
        (found,) = evaluations.resolve([name], "gan")
        assert found.samples is None
        assert found.missing == "only its figures are there"
        assert found.protocol == PROTOCOL
    with pytest.raises(UserError, match="does not exist"):
        evaluations.resolve(["other/none.json"], "gan")
    (other / "metrics.json").write_text('{"fd": "good"}')
    with pytest.raises(UserError, match="not a flat JSON object of figures"):
        evaluations.resolve(["other"], "gan")


def test_figures_and_protocol_as_git_has_them_are_an_evaluation(two: Path) -> None:
    files.write_json(two / paths.PROTOCOL, [{**PROTOCOL, "n_fake": 7}])
    (found,) = evaluations.resolve(["."], "gan")
    assert found.samples is not None  # the outs are of these figures, and have more
    files.write_json(two / paths.METRICS, {"fd": 17.0})
    for _ in range(2):  # beside outs of other figures, and as in a fresh clone
        (found,) = evaluations.resolve(["."], "gan")
        assert (found.metrics, found.protocol["n_fake"]) == ({"fd": 17.0}, 7)
        assert found.samples is None
        shutil.rmtree(two / paths.EVALUATION_REPORT, ignore_errors=True)
    (two / paths.PROTOCOL).unlink()
    with pytest.raises(UserError, match=r"no protocol\.json beside it.*dvc repro evaluate"):
        evaluations.resolve(["."], "gan")


def test_figures_of_another_evaluation_are_not_paired_with_these_samples(two: Path) -> None:
    files.write_json(two / paths.METRICS, {"fd": 17.0})
    (found,) = evaluations.resolve(["."], "gan")
    assert found.metrics == {"fd": 17.0}
    assert found.samples is None


def test_runs_bring_the_features_of_their_samples(two: Path) -> None:
    expected = outs.write_samples(two, EVAL_A, quality=0.5)
    shutil.rmtree(two / "models")
    (found,) = evaluations.resolve(["a1b2"], "gan")
    np.testing.assert_array_equal(found.samples.space, expected.space)
    np.testing.assert_array_equal(found.samples.real_logits, expected.real_logits)
    assert found.samples.data == expected.data


def test_samples_too_large_for_a_run_are_read_where_they_were_made(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "KEPT_BYTES", 2**10)
    make(workspace, A, EVAL_A)
    deliver.sync()
    (found,) = evaluations.resolve(["e1f2"], "gan")
    assert found.samples is not None
    shutil.rmtree(workspace / "models")
    (found,) = evaluations.resolve(["e1f2"], "gan")
    assert found.samples is None
    assert "a run keeps at most" in found.missing


def test_samples_of_another_evaluation_are_not_delivered_as_this_ones(workspace: Path) -> None:
    make(workspace, A, EVAL_A)
    outs.write_samples(workspace, EVAL_B)
    deliver.sync()
    (found,) = evaluations.resolve(["e1f2"], "gan")
    assert found.samples is None


def test_compare_prints_figures_and_what_they_mean(same: Path) -> None:
    code, output = compare("loamy-kohl", "b1c2")
    assert code == 0
    assert "A  evaluate e1f20000 of loamy-kohl (loamy-kohl)" in output
    assert "B is better: fd lower by " in output
    assert "unpaired" not in output

    code, output = compare("b1c2", "b1c2")
    assert "A and B are the same, to the last digit of every figure" in output
    assert "intervals are of 95%" not in output


def test_compare_of_several_takes_the_first_as_baseline_and_speaks_json(same: Path) -> None:
    code, output = compare("b1c2", "loamy-kohl", ".", "--json")
    said = json.loads(output)
    assert code == 0
    assert list(said["runs"]) == ["A", "B", "C"]
    first, second = said["comparisons"]
    assert (first["a"], first["b"], first["paired"]) == ("A", "B", True)
    assert {x["key"]: x["better"] for x in first["figures"]}["fd"] == "A"
    assert all(x["difference"] == 0 for x in second["figures"])


def test_compare_refuses_other_protocols(two: Path) -> None:
    make(two, B, "8" * 64, n_fake=59)
    code, output = compare("a1b2", ".")
    assert code == 1
    assert "n_fake: 60 (A), 59 (B)" in output


def test_compare_of_metrics_files_is_unpaired(same: Path) -> None:
    for name, fd in (("x", 2.0), ("y", 3.0)):
        (same / name).mkdir()
        files.write_json(same / name / "metrics.json", {"fd": fd})
        shutil.copy(same / paths.EVALUATION_REPORT / "protocol.json", same / name)
    code, output = compare("x/metrics.json", "y/metrics.json")
    assert code == 0
    assert "what it means (unpaired)" in output
    assert "unpaired (x/metrics.json: only its figures are there)" in output


def run(*command: str) -> None:
    identity = {f"GIT_{x}_{y}": "a@b" for x in ("AUTHOR", "COMMITTER") for y in ("NAME", "EMAIL")}
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **identity})


def begin_repository(root: Path) -> None:
    """One commit of what is in the workspace, evaluations in DVC's cache."""
    run("git", "init", "-q", "-b", "main")
    run("dvc", "init", "-q")
    (root / ".gitignore").write_text("mlflow.db*\nmlartifacts\n")
    run("dvc", "add", "-q", "models/evaluation", "reports/evaluation")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "one")


def test_the_committed_figures_are_compared_in_a_clone_that_has_no_cache(two: Path) -> None:
    files.write_json(two / paths.PROTOCOL, [PROTOCOL])
    begin_repository(two)
    for name in (".dvc/cache", "models/evaluation", "reports/evaluation"):
        shutil.rmtree(two / name)
    code, output = compare(".", "HEAD")
    assert code == 0
    assert "B  HEAD" in output
    assert "A and B are the same, to the last digit of every figure" in output

    make(two, A, "7" * 64, quality=0.5)  # another evaluation here
    code, output = compare(".", "HEAD")
    assert code == 0
    assert "unpaired (HEAD: DVC's cache lacks its models/evaluation" in output

    make(two, A, "8" * 64, n_fake=59)
    code, output = compare(".", "HEAD")
    assert code == 1
    assert "n_fake: 59 (A), 60 (B)" in output


@pytest.mark.slow
def test_git_revisions_are_read_from_dvcs_cache(two: Path) -> None:
    begin_repository(two)
    make(two, A, "7" * 64, quality=0.5)

    (found,) = evaluations.resolve(["main"], "gan")
    assert found.name == "evaluate e3f40000 of b1c20000"
    assert found.metrics["fd"] == 2
    assert found.samples is not None
    shutil.rmtree(two / "reports")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "two")
    with pytest.raises(UserError, match=r"the revision HEAD has no evaluation here: it lacks"):
        evaluations.resolve(["HEAD"], "gan")
    shutil.rmtree(two / ".dvc/cache")
    with pytest.raises(UserError, match=r"git has no reports/protocol\.json.*dvc pull") as caught:
        evaluations.resolve(["HEAD~1"], "gan")
    assert "Errno" not in str(caught.value)
