"""Which trials count, and for how much."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.tuning import ledger


def trial(number: int, state: str, value: float | None = None, **facts: Any) -> FrozenTrial:
    """`again` are the numbers that it runs again, `constraints` by name; the rest are attributes."""
    again, constraints = facts.pop("again", None), facts.pop("constraints", {})
    system: dict[str, Any] = {f"constraints:{key}": x for key, x in constraints.items()}
    if again:
        system["retry_history"] = again
    made = optuna.trial.create_trial(
        state=TrialState[state], value=value, user_attrs=facts, system_attrs=system
    )
    made.number = number
    return made


DEAD = trial(2, "FAIL")
HISTORY = [
    trial(0, "COMPLETE", 3.0, share=1.0),
    trial(1, "PRUNED", share=0.25),
    DEAD,
    trial(3, "FAIL", share=0.5, reason="diverged"),
    trial(4, "FAIL", withdrawn="impossible"),
    trial(5, "RUNNING"),
    trial(6, "WAITING", again=[2]),
]


def test_what_was_interrupted_or_withdrawn_does_not_count() -> None:
    assert [t.number for t in ledger.counted(HISTORY)] == [0, 1, 3, 5]


def test_work_is_the_shares_of_the_ended_and_a_whole_for_the_running() -> None:
    assert ledger.used(HISTORY) == 1 + 0.25 + 0.5 + 1


def test_a_dead_trial_is_lost_until_it_is_queued_again() -> None:
    assert ledger.lost(HISTORY[:-1]) == [DEAD]
    assert ledger.lost(HISTORY) == []


def test_a_trial_that_begins_when_the_work_is_used_up_is_surplus() -> None:
    late = trial(7, "RUNNING")
    assert ledger.surplus(late, [*HISTORY, late], budget=2.75) == "the work is used up"
    assert ledger.surplus(late, [*HISTORY, late], budget=3.0) is None
    # A later trial takes nothing from an earlier one.
    assert ledger.surplus(HISTORY[5], [*HISTORY, late], budget=2.0) is None


def test_of_two_retries_of_one_trial_the_later_is_surplus() -> None:
    first, second = trial(7, "RUNNING", again=[2]), trial(8, "RUNNING", again=[2])
    trials = [*HISTORY, first, second]
    assert ledger.surplus(first, trials, budget=100) is None
    assert ledger.surplus(second, trials, budget=100) == "trial 2 is run again already"


def test_the_best_are_sound_and_in_order() -> None:
    trials = [
        trial(0, "COMPLETE", 3.0),
        trial(1, "COMPLETE", 1.0, constraints={"label_kl": 0.2}),
        trial(2, "COMPLETE", 2.0, constraints={"label_kl": -0.2}),
        trial(3, "PRUNED"),
    ]
    assert [t.number for t in ledger.best(trials, "minimize")] == [2, 0]
    assert [t.number for t in ledger.best(trials, "maximize")] == [0, 2]
