"""Which trials of a study count, and what they have used of its work: functions of its trials.

Every worker comes to the same answer from the same storage, so that none needs to ask another.
A trial that was interrupted, or whose worker died, is failed and queued again (its number then
stands in the new trial's history); it counts for nothing. A trial that has
nothing to do (its settings are impossible, the work is used up, another runs the same retry)
withdraws and counts for nothing either.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

HISTORY = "retry_history"  # system attribute of a trial, under the name that Optuna's tools know

# User attributes of a trial.
SHARE = "share"  # of a full trial's work done
REASON = "reason"  # why it failed or was pruned
WITHDRAWN = "withdrawn"  # why it was not run
PROCESS = "process"  # host and process id of the worker that runs it


def history(trial: FrozenTrial) -> list[int]:
    """Numbers of the trials that this one runs again."""
    return list(trial.system_attrs.get(HISTORY, []))


def root(trial: FrozenTrial) -> int:
    """Number of the trial that this one runs again in the end, or its own."""
    return [*history(trial), trial.number][0]


def replaced(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that were queued again."""
    return {number for trial in trials for number in history(trial)}


def interrupted(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that never came to an end, queued again or not."""
    return replaced(trials) | {t.number for t in lost(trials)}


def lost(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Failed trials that ended without a reason and were not queued again."""
    again = replaced(trials)
    return [
        t
        for t in trials
        if t.state == TrialState.FAIL
        and REASON not in t.user_attrs
        and WITHDRAWN not in t.user_attrs
        and t.number not in again
    ]


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: finished or running, by number."""
    again = replaced(trials)
    return [
        t
        for t in trials
        if t.state != TrialState.WAITING
        and WITHDRAWN not in t.user_attrs
        and t.number not in again
        and (t.state != TrialState.FAIL or REASON in t.user_attrs)
    ]


def used(trials: Sequence[FrozenTrial]) -> float:
    """Work that the counted trials have used, in full trials; a running one takes a whole."""
    return sum(1.0 if not t.state.is_finished() else share(t) for t in counted(trials))


def done(trials: Sequence[FrozenTrial], reports: int) -> float:
    """Work done so far, in full trials."""
    return sum(
        share(t) if t.state.is_finished() else (t.last_step or 0) / reports for t in counted(trials)
    )


def share(trial: FrozenTrial) -> float:
    return float(trial.user_attrs.get(SHARE, 0.0))


def surplus(trial: FrozenTrial, trials: Sequence[FrozenTrial], budget: float) -> str | None:
    """Why a trial that has just begun should not run, or None.

    Two workers that ask at once may both see room for one more trial: the earlier number gets it.
    """
    before = [t for t in trials if t.number < trial.number]
    if used(before) >= budget:
        return "the work is used up"
    mine = history(trial)
    if mine and any(history(t) == mine and t.state != TrialState.WAITING for t in before):
        return f"trial {mine[-1]} is run again already"
    return None


def unsound(trial: FrozenTrial) -> str:
    """Why its settings are not known to be sound, e.g. "was pruned (...)"; empty if they are."""
    if trial.state == TrialState.COMPLETE:
        broken = [name for name, value in trial.constraints.items() if value > 0]
        return f"collapsed: {', '.join(broken)}" if broken else ""
    what = {TrialState.PRUNED: "was pruned", TrialState.FAIL: "failed"}
    if trial.state not in what:
        return "has not ended"
    reason = trial.user_attrs.get(REASON)
    return what[trial.state] + (f" ({reason})" if reason else "")


def best(trials: Sequence[FrozenTrial], direction: str) -> list[FrozenTrial]:
    """The trials that ran to the end and broke no constraint, the best first."""
    sound = [t for t in counted(trials) if not unsound(t)]
    sign = 1 if direction == "minimize" else -1
    return sorted(sound, key=lambda t: (sign * float(t.value or 0.0), t.number))
