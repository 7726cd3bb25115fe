"""Who wins the finals, and by how much."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from scipy import stats

from pipeline.tuning import finals, studies
from pipeline.tuning.finals import Finalist, Outcome
from pipeline.tuning.studies import REPEATS, SEED

RANGE = {"train.d_steps": optuna.distributions.IntDistribution(1, 9)}


def search_of(values: list[float], direction: str = "minimize") -> optuna.Study:
    """A study whose i-th trial has i + 1 D steps; the first is today's."""
    study = optuna.create_study(direction=direction)
    for i, value in enumerate(values):
        study.add_trial(
            create_trial(value=value, params={"train.d_steps": i + 1}, distributions=RANGE)
        )
    return study


def finals_of(values: dict[int, list[float | None]], *, collapsed: int = -1) -> optuna.Study:
    """The repetitions of trials: None is a divergence, every seed of `collapsed` a collapse."""
    study = optuna.create_study()
    for number, found in values.items():
        for seed, value in enumerate(found, 1):
            facts: dict[str, Any] = {REPEATS: number, SEED: seed}
            system = {"constraints:label_kl": 1.0 if number == collapsed else -1.0}
            study.add_trial(
                create_trial(
                    value=value,
                    state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                    params={"train.d_steps": number + 1},
                    distributions=RANGE,
                    user_attrs=facts | ({"reason": "diverged"} if value is None else {}),
                    system_attrs=system,
                )
            )
    return study


def test_the_best_and_todays_settings_are_queued_with_new_seeds_once() -> None:
    search, repeats = search_of([5.0, 3.0, 1.0, 2.0]), optuna.create_study()
    for _ in range(2):
        assert finals.queue(search, repeats, count=2, seeds=3, seed=7) == 2
    queued = [(t.user_attrs[REPEATS], t.user_attrs[SEED]) for t in repeats.trials]
    assert queued == list(itertools.product([0, 2, 3], [8, 9, 10]))
    assert {t.state for t in repeats.trials} == {TrialState.WAITING}


def test_todays_settings_stay_todays_where_their_first_worker_died() -> None:
    """The trial that runs them again has another number, and the next one is not them."""
    search = optuna.create_study()
    search.enqueue_trial({"train.d_steps": 5})
    died = search.ask(RANGE)
    search.tell(died, state=TrialState.FAIL)
    search.add_trial(create_trial(value=1.0, params={"train.d_steps": 2}, distributions=RANGE))
    assert finals.settings(finals.origin(search.trials)) == {"train.d_steps": 5}
    studies.queue_again(search, search.trials[0])
    again = search.ask(RANGE)
    search.tell(again, 2.0)
    assert finals.origin(search.trials).number == 2
    repeats = optuna.create_study()
    assert finals.queue(search, repeats, count=3, seeds=2, seed=0) == 1
    assert [t.user_attrs[REPEATS] for t in repeats.trials] == [2, 2, 1, 1]
    assert finals.outcome(search, repeats, "fd").today.settings == {"train.d_steps": 5}


def test_there_are_no_finals_where_only_todays_settings_are_sound() -> None:
    repeats = optuna.create_study()
    assert finals.queue(search_of([5.0]), repeats, count=2, seeds=3, seed=0) == 0
    assert repeats.trials == []


def test_the_mean_over_seeds_decides_not_the_search() -> None:
    outcome = finals.outcome(
        search_of([5.0, 1.0, 2.0]),
        finals_of({0: [5.0, 5.1], 1: [3.0, 3.1], 2: [2.0, 2.1]}),
        "coverage",
    )
    assert [f.trial for f in outcome.ranked] == [2, 1]
    assert outcome.winner.trial == 2


def test_the_gain_of_a_single_finalist_is_students() -> None:
    """Dunnett's interval of one comparison is the t-test's with pooled variance."""
    today, other = [5.0, 5.5, 6.0], [3.0, 3.2, 3.9]
    outcome = finals.outcome(search_of([5.0, 1.0]), finals_of({0: today, 1: other}), "coverage")
    interval = stats.ttest_ind(today, other).confidence_interval(0.95)
    assert outcome.gain == pytest.approx(
        (np.mean(today) - np.mean(other), interval.low, interval.high), rel=1e-2
    )


def test_the_gain_in_a_distance_is_a_share() -> None:
    values: dict[int, list[float | None]] = {0: [4.0, 4.4, 3.6], 1: [1.0, 1.1, 0.9]}
    outcome = finals.outcome(search_of([4.0, 1.0]), finals_of(values), "fd")
    assert outcome.gain is not None
    gain, low, high = outcome.gain
    assert gain == pytest.approx(0.75)
    assert 0 < low < gain < high < 1
    scaled = {number: [10 * (x or 0) for x in found] for number, found in values.items()}
    again = finals.outcome(search_of([4.0, 1.0]), finals_of({**scaled}), "fd")
    assert again.gain == pytest.approx(outcome.gain)  # whatever the units


def test_more_is_better_where_the_direction_says_so() -> None:
    outcome = finals.outcome(
        search_of([0.2, 0.8], "maximize"), finals_of({0: [0.2, 0.22], 1: [0.8, 0.82]}), "coverage"
    )
    assert outcome.winner.trial == 1
    assert outcome.gain is not None
    assert outcome.gain[0] == pytest.approx(0.6)
    assert outcome.gain[1] > 0


def test_equal_settings_show_no_gain_and_a_worse_best_leaves_todays() -> None:
    same = finals.outcome(
        search_of([5.0, 1.0]), finals_of({0: [5.0, 4.0, 6.0], 1: [4.9, 4.1, 5.9]}), "fd"
    )
    assert "no gain shown" in same.verdict
    worse = finals.outcome(search_of([5.0, 1.0]), finals_of({0: [5.0, 4.0], 1: [7.0, 8.0]}), "fd")
    assert worse.winner.trial == 0
    assert "no gain shown" in worse.verdict


def test_equal_settings_seldom_show_a_gain() -> None:
    """The interval holds for the best of three finalists at once, over 60 draws."""
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(60):
        arms = [Finalist(i, {}, list(rng.lognormal(0, 0.2, 3)), 0) for i in range(4)]
        ranked = sorted(arms[1:], key=lambda f: f.mean)
        gain = finals._gain(ranked, arms[0], "fd", 1)
        assert gain is not None
        claims += gain[1] > 0
    assert claims <= 5  # 3 are expected; more than 5 are not, in 96% of cases


def test_a_finalist_that_fails_with_a_seed_ranks_behind_those_that_do_not() -> None:
    outcome = finals.outcome(
        search_of([5.0, 1.0, 2.0, 3.0]),
        finals_of({0: [5.0, 5.1], 1: [1.0, None], 2: [2.0, 2.1], 3: [1.5, 1.6]}, collapsed=3),
        "fd",
    )
    assert [f.trial for f in outcome.ranked] == [2, 1, 3]


def test_settings_that_diverge_today_are_rescued() -> None:
    outcome = finals.outcome(
        search_of([5.0, 1.0]), finals_of({0: [None, None], 1: [9.0, 9.5]}), "fd"
    )
    assert outcome.rescued
    assert outcome.gain is None
    assert outcome.winner.trial == 1
    assert "2 of 2 diverged" in outcome.verdict
    assert "rescued" in outcome.verdict


def test_without_a_finalist_today_wins() -> None:
    today = Finalist(0, {}, [1.0], 0)
    outcome = Outcome("fd", [], today, None)
    assert outcome.winner is today
    assert "no gain shown" in outcome.verdict


def test_where_there_were_no_finals_no_table_of_them_is_printed(capsys) -> None:
    outcome = finals.outcome(search_of([127.0]), optuna.create_study(), "fd")
    assert outcome.today.values == []  # that of the search is of no new seed
    finals.show(outcome)
    told = capsys.readouterr().out
    assert told.split() == outcome.verdict.split()
    assert "no other trial was sound" in told
