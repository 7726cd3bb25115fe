"""A whole search on the ring, in small."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from click.testing import CliRunner
from optuna.trial import TrialState

from pipeline import cli, config, lineage, losses, paths
from pipeline.errors import ConfigError, UserError
from pipeline.tracking import store
from pipeline.training import collapse
from pipeline.tuning import ledger, objective, search, show, studies, work, worker
from pipeline.tuning.apply import apply

Project = Callable[..., dict[str, Any]]
RATES = {"train.lr_g": {"log": [1e-4, 1e-2]}, "train.d_steps": {"int": [1, 3]}}


@pytest.fixture(autouse=True)
def no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen updates leave every generator as good as collapsed: none shall be pruned for it."""
    monkeypatch.setattr(collapse, "HIGHEST", {})
    monkeypatch.setattr(collapse, "LOWEST", {})


@pytest.fixture
def alarm(no_alarm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "LOWEST", {"selfnn_ratio": 1e9})


def run(values: dict[str, Any], url: str = "studies.log") -> optuna.Study:
    search.search(values, workers=1, url=url)
    return studies.load(studies.open_storage(url), None)


def told(study: optuna.Study) -> list[tuple[Any, ...]]:
    return told_of(study.trials)


def told_of(trials: list[optuna.trial.FrozenTrial]) -> list[tuple[Any, ...]]:
    return [(t.state, t.value, t.params, t.user_attrs.get("steps")) for t in trials]


def test_the_same_seed_gives_the_same_search(project: Project) -> None:
    values = project(tune={"space": RATES, "finalists": 0})
    first, second = told(run(values, "one.log")), told(run(values, "two.log"))
    assert first == second
    assert len(first) == 3
    assert len({t[1] for t in first}) == 3


def test_todays_settings_are_the_first_trial_and_all_have_its_work(project: Project) -> None:
    values = project(tune={"space": {"train.d_steps": {"choice": [1, 4]}}, "sampler": "grid"})
    study = run(values)
    first, other = study.trials
    assert first.params == {"train.d_steps": 1}
    assert first.user_attrs["steps"] == 12
    assert other.user_attrs["steps"] == pytest.approx(12 / 2.9, abs=1)  # dearer, so fewer
    assert [ledger.share(t) for t in study.trials] == [1.0, 1.0]


def test_a_search_that_was_stopped_goes_on_and_ends_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = project(tune={"space": RATES, "finalists": 0, "trials": 5, "steps": 9})
    whole = told(run(values, "whole.log"))

    plain, looks = objective.Watch.on_eval, []

    def interrupted(self: objective.Watch, *arguments: Any) -> None:
        looks.append(1)
        if len(looks) == 5:  # the second of the second trial
            raise KeyboardInterrupt
        plain(self, *arguments)

    monkeypatch.setattr(objective.Watch, "on_eval", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(values, "parts.log")
    study = run(values, "parts.log")
    counted = ledger.counted(study.trials)
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 1
    assert told_of(counted) == whole


def each_loss(*names: str) -> dict[str, Any]:
    """A search of one trial a loss, in this order."""
    return {"space": {"loss.name": {"choice": [*names]}}, "sampler": "grid", "finalists": 0}


def test_a_diverged_trial_has_a_reason_and_no_figure(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    infinite = losses.Loss(lambda real, fake: torch.log(0 * real.mean()), losses.wasserstein_g)
    monkeypatch.setitem(losses.LOSSES, "lsgan", infinite)
    values = project(tune=each_loss("rpgan", "lsgan"))
    healthy, failed = run(values).trials
    assert healthy.state == TrialState.COMPLETE
    assert (failed.state, failed.value) == (TrialState.FAIL, None)
    assert "NaN or inf, first made by the loss" in failed.user_attrs[ledger.REASON]


def test_a_trial_too_large_for_memory_fails_and_the_search_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        needed = 10**14 if len(real) > work.FEWEST_SAMPLES else 1  # where its work is counted
        return real.mean() + 0 * real.new_empty(needed).sum()

    huge = losses.Loss(too_much, losses.wasserstein_g)
    monkeypatch.setitem(losses.LOSSES, "lsgan", huge)
    values = project(tune=each_loss("lsgan", "rpgan"))
    by_loss = {trial.params["loss.name"]: trial for trial in run(values).trials}
    assert by_loss["rpgan"].state == TrialState.COMPLETE
    assert by_loss["lsgan"].state == TrialState.FAIL
    assert by_loss["lsgan"].user_attrs[ledger.REASON] == "out of memory"


def test_a_collapsed_trial_is_pruned_with_the_signals(project: Project, alarm: None) -> None:
    values = project(
        tune={"space": RATES, "finalists": 0, "reports": 6, "trials": 1, "pruner": "median"}
    )
    study = run(values)
    for trial in ledger.counted(study.trials):
        assert trial.state == TrialState.PRUNED
        assert "collapsed: selfnn_ratio" in trial.user_attrs[ledger.REASON]
        assert 1 / 3 < ledger.share(trial) < 1  # after the warm-up
        assert "label_kl" in trial.constraints


def test_without_a_pruner_even_a_collapsed_trial_runs_to_its_end(
    project: Project, alarm: None
) -> None:
    (trial,) = run(project(tune={"space": RATES, "finalists": 0, "trials": 1})).trials
    assert (trial.state, ledger.share(trial)) == (TrialState.COMPLETE, 1.0)


def test_a_broken_constraint_makes_a_trial_unsound(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    values = project(
        tune={"space": RATES, "finalists": 1, "constraints": {"coverage": {"min": 1.0}}}
    )
    study = run(values)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert complete
    assert all(t.constraints["coverage"] > 0 for t in complete)
    with pytest.raises(UserError, match="nothing is better than"):
        apply(study, None)
    with caplog.at_level("WARNING"):
        apply(study, 1)
    assert "trial 1 collapsed: coverage: its settings are not known to be sound" in caplog.text


def test_impossible_combinations_cost_nothing(project: Project) -> None:
    values = project(
        tune={
            "space": {
                "loss.name": {"choice": ["rpgan", "wgan"]},
                "model.spectral_norm": {"choice": [False, True]},
            },
            "sampler": "grid",
            "finalists": 0,
        }
    )
    study = run(values)
    assert len(ledger.counted(study.trials)) == 3
    (withdrawn,) = [t for t in study.trials if ledger.WITHDRAWN in t.user_attrs]
    assert "spectral_norm" in withdrawn.user_attrs[ledger.WITHDRAWN]


def test_the_winner_goes_into_params_yaml_with_equal_work(project: Project) -> None:
    values = project(
        tune={"space": {"train.d_steps": {"choice": [1, 4]}}, "sampler": "grid", "trials": 2}
    )
    paths.PARAMS.write_text("# mine\n" + paths.PARAMS.read_text())
    study = run(values)
    number, changed = apply(study, 1)
    assert number == 1
    written = config.read_yaml(paths.PARAMS)
    assert written["train"]["d_steps"] == 4
    assert written["train"]["steps"] == pytest.approx(100 / 2.9, abs=3)
    assert paths.PARAMS.read_text().startswith("# mine\n")
    assert any(line.startswith("train.d_steps: 1 -> 4") for line in changed)
    assert lineage.tuned_tags(written) == {"tune_study": study.study_name, "tune_trial": "1"}
    written["train"]["lr_d"] = 0.5  # no longer what the trial found
    assert lineage.tuned_tags(written) == {}


def test_nothing_is_applied_in_the_middle_of_the_finals(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"train.lr_g": {"choice": [0.004, 0.01]}}
    values = project(tune={"space": space, "sampler": "grid"})

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    plain = objective.run
    with monkeypatch.context() as patch:
        patch.setattr(
            objective,
            "run",
            lambda trial, *a, **k: (
                interrupted() if studies.REPEATS in trial.user_attrs else plain(trial, *a, **k)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            run(values)
    study = studies.load(studies.open_storage("studies.log"), None)
    assert show.everything(study)["finals"] is None
    with pytest.raises(UserError, match="are not over: gan tune goes on"):
        apply(study, None)
    study = run(values)
    assert "fd" in show.everything(study)["finals"]["verdict"]


def test_other_params_are_another_study_and_more_trials_are_not(project: Project) -> None:
    values = project(tune={"space": RATES, "finalists": 0, "trials": 1})
    first = run(values)
    more = run(project(tune={"space": RATES, "finalists": 0, "trials": 2}))
    assert more.study_name == first.study_name
    assert len(more.trials) == 2
    other = run(project(tune={"space": RATES, "finalists": 0, "trials": 1}, train={"lr_d": 3e-3}))
    assert other.study_name != first.study_name


def test_joining_with_other_data_is_refused(project: Project) -> None:
    run(project(tune={"space": RATES, "finalists": 0, "trials": 1}))
    manifest = paths.PREPARED / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "digest": "other"}))
    with pytest.raises(UserError, match=r"other inputs: data/prepared/manifest\.json changed"):
        search.join("studies.log", None, workers=1)


def test_show_has_a_row_a_trial_and_says_where_the_time_went(project: Project) -> None:
    study = run(project(tune={"space": RATES, "finalists": 0, "trials": 5}))
    told = show.everything(study)
    assert [row["trial"] for row in told["trials"]] == [0, 1, 2, 3, 4]
    assert set(told["importances"]) == set(RATES)
    assert set(told["seconds"]) == {"training", "looks", "else"}
    assert told["seconds"]["looks"] > 0
    json.dumps(told)


def test_there_is_nothing_to_show_before_a_search(project: Project) -> None:
    project()
    with pytest.raises(UserError, match="no study yet: run gan tune"):
        studies.load(studies.open_storage("none.log"), None)


def test_mlflow_has_a_run_for_the_study_and_a_child_for_each_trial(project: Project) -> None:
    study = run(project(tune={"space": RATES, "finalists": 0, "trials": 1}))
    client, experiment = store.ready("gan-tune")
    found = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert set(found) == {study.study_name, "trial 0"}
    parent, child = (found[name] for name in (study.study_name, "trial 0"))
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert parent.data.tags["git_commit"] == lineage.git_facts()["git_commit"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics["value"] == study.trials[0].value
    assert child.data.params["train.lr_g"] == "0.004"
    assert "train.eval_every" not in child.data.params  # follows from its steps
    assert len(client.get_metric_history(child.info.run_id, "eval_fd")) == 3
    assert client.list_artifacts(child.info.run_id, "images")


def test_mlflow_says_of_a_pruned_trial_that_it_was_and_why(project: Project, alarm: None) -> None:
    run(
        project(
            tune={"space": RATES, "finalists": 0, "trials": 1, "reports": 6, "pruner": "median"}
        )
    )
    client, experiment = store.ready("gan-tune")
    (child,) = client.search_runs([experiment], "attributes.run_name = 'trial 0'")
    assert child.info.status == "KILLED"
    assert child.data.tags["trial_state"] == "pruned"
    assert "collapsed" in child.data.tags["reason"]
    assert float(child.data.tags["constraint_label_kl"]) < 0
    assert client.list_artifacts(child.info.run_id, "images")


def test_finals_are_children_of_the_study_too(project: Project) -> None:
    values = project(tune={"space": {"train.lr_g": {"choice": [0.004, 0.01]}}, "sampler": "grid"})
    study = run(values)
    client, experiment = store.ready("gan-tune")
    (parent,) = client.search_runs([experiment], f"attributes.run_name = '{study.study_name}'")
    names = {run.info.run_name for run in client.search_runs([experiment])}
    assert {f"finals: trial {n}, seed {seed}" for n in (0, 1) for seed in (1, 2)} < names
    assert "fd" in parent.data.tags["verdict"]


def test_a_search_goes_on_where_mlflow_cannot_be_reached(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = project(tune={"space": RATES, "finalists": 0, "trials": 1})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run(values).trials[0].state == TrialState.COMPLETE


def test_an_impossible_space_is_refused_before_data_are_prepared(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tune={"space": {}})
    monkeypatch.setattr(search, "prepare", lambda: pytest.fail("prepared"))
    ended = CliRunner().invoke(cli.gan, ["tune"])
    assert isinstance(ended.exception, ConfigError)
    assert "tune.space is empty" in str(ended.exception)


def test_a_space_without_todays_settings_is_refused_before_a_trial(project: Project) -> None:
    values = project(tune={"space": {"train.lr_g": {"log": [1e-6, 1e-5]}}})
    with pytest.raises(ConfigError, match="widen its range"):
        run(values)
    with pytest.raises(UserError, match="no study yet"):
        studies.load(studies.open_storage("studies.log"), None)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize("finals", [False, True])
def test_a_trial_that_dies_with_its_host_is_run_again_even_the_last(
    project: Project, monkeypatch: pytest.MonkeyPatch, finals: bool
) -> None:
    """Only its silence tells of it, when nobody else has anything left to do."""
    monkeypatch.setattr(studies, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(studies, "GRACE_SECONDS", 2)
    values = project(tune={"space": RATES, "trials": 2})
    plain = worker.work

    def shared(study: optuna.Study, *arguments: Any) -> None:
        if studies.is_finals(study) == finals:
            trial = study.ask()
            study._storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr(ledger.PROCESS, "elsewhere:1:1")
            monkeypatch.setattr(worker, "work", plain)
        plain(study, *arguments)

    monkeypatch.setattr(worker, "work", shared)
    url = "sqlite:///studies.db"
    outcome = search.search(values, workers=1, url=url)
    assert outcome is not None
    for name in (None, studies.load(studies.open_storage(url), None).study_name + studies.FINALS):
        trials = studies.load(studies.open_storage(url), name).trials
        assert not [t for t in trials if not t.state.is_finished()]
        assert ledger.lost(trials) == []
        assert ledger.used(trials) == (4 if name else 2)
