"""Samplers: the same trial number draws the same, whoever asks."""

from __future__ import annotations

import optuna
import pytest

from pipeline.tuning.samplers import PRUNERS, SAMPLERS, Reproducible


def draws(name: str, sittings: list[int], seed: int = 0) -> list[dict[str, float]]:
    """What is sampled in sittings of so many trials each, every one with a sampler of its own."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="s")
    for n in sittings:
        sampler = Reproducible(SAMPLERS[name], seed)
        study = optuna.load_study(storage=storage, study_name="s", sampler=sampler)
        study.optimize(lambda t: (t.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=n)
    return [t.params for t in optuna.load_study(storage=storage, study_name="s").trials]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_an_interrupted_search_draws_as_an_uninterrupted_one(name: str) -> None:
    assert draws(name, [14]) == draws(name, [5, 8, 1])
    assert draws(name, [3], seed=1) != draws(name, [3])


def test_the_process_gets_no_warning_from_gp() -> None:
    assert len(draws("gp", [2])) == 2


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_never_ends_the_first_trial(name: str) -> None:
    """Today's settings come first, and all is held against their figure."""
    study = optuna.create_study(study_name="s", pruner=PRUNERS[name](0, 9))
    trial = study.ask()
    for look in range(1, 10):
        trial.report(100.0, look)
        assert not trial.should_prune()


@pytest.mark.parametrize("name", sorted({*PRUNERS} - {"none"}))
def test_a_pruner_ends_what_lies_behind(name: str) -> None:
    study = optuna.create_study(study_name="s", pruner=PRUNERS[name](0, 9))
    for value in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9):
        trial = study.ask()
        for look in range(1, 10):
            trial.report(value, look)
            trial.should_prune()  # halving counts those that asked
        study.tell(trial, value)
    trial = study.ask()
    pruned = []
    for look in range(1, 10):
        trial.report(50.0, look)
        pruned.append(trial.should_prune())
    assert any(pruned)


def ended_early(
    name: str, study_name: str, seed: int = 0, interrupted: int | None = None
) -> list[int]:
    """At which look each of 40 trials ended, of figures that are a function of what is drawn."""
    sampler = Reproducible(SAMPLERS["random"], seed)
    study = optuna.create_study(
        study_name=study_name, sampler=sampler, pruner=PRUNERS[name](seed, 9)
    )
    ends = []
    while len(ends) < 40:
        trial = study.ask()
        if len(study.trials) - 1 == interrupted:  # it ends without a reason
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        x, look = trial.suggest_float("x", 0, 1), 0
        for look in range(1, 10):
            trial.report(x, look)
            if trial.should_prune():
                break
        study.tell(trial, x)
        ends.append(look)
    return ends


@pytest.mark.parametrize("name", PRUNERS)
def test_what_ends_early_follows_from_the_seed_not_from_the_studys_name(name: str) -> None:
    ends = ended_early(name, "before a commit")
    assert ends == ended_early(name, "after it")
    assert ends == ended_early(name, "stopped in between", interrupted=17)
    assert (ends == ended_early(name, "another seed", seed=1)) == (name == "none")


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_sampler_learns_from_all_trials_whatever_the_pruner(pruner: str) -> None:
    """Were each of Hyperband's brackets sampled by itself, most of 40 trials would be random."""

    def drawn(pruner: str) -> list[float]:
        sampler = Reproducible(SAMPLERS["tpe"], 0)
        study = optuna.create_study(study_name="s", sampler=sampler, pruner=PRUNERS[pruner](0, 9))
        for _ in range(25):
            trial = study.ask()
            x = trial.suggest_float("x", 0, 1)
            trial.report(x, 1)
            trial.should_prune()  # only then does Hyperband make its brackets
            study.tell(trial, x)
        return [trial.params["x"] for trial in study.trials]

    assert drawn(pruner) == drawn("none")
