"""A study as tables: its trials, what mattered, where the time went."""

from __future__ import annotations

import re
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import UserError
from pipeline.tuning import finals, ledger, objective, studies

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 160  # a narrow terminal breaks a long line once; a table broken in cells is unreadable
ENOUGH = 4  # complete trials that importances need


def table(study: optuna.Study) -> pd.DataFrame:
    """One row a counted trial: state, figure, work, settings, constraints, reason."""
    import pandas as pd

    metric = studies.definition_of(study).params["tune"]["metric"]
    rows = [_row(trial, metric) for trial in ledger.counted(study.get_trials(deepcopy=False))]
    return pd.DataFrame(rows)


def _row(trial: FrozenTrial, metric: str) -> dict[str, Any]:
    reason = trial.user_attrs.get(ledger.REASON, "")
    if trial.state == TrialState.COMPLETE:
        reason = ledger.unsound(trial)
    last = trial.intermediate_values.get(trial.last_step or 0)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        metric: trial.value if trial.value is not None else last,
        "work": ledger.share(trial),
        "steps": trial.user_attrs.get("steps"),
        **trial.params,
        "reason": reason,
    }


def importances(study: optuna.Study) -> dict[str, float]:
    """How much of the figure each key explains, largest first; empty where trials are too few."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < ENOUGH:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(optuna.importance.get_param_importances(study))


def seconds(study: optuna.Study) -> dict[str, float]:
    """Where the counted trials' time went: training, looks at samples, all else."""
    spent = {"training": 0.0, "looks": 0.0, "else": 0.0}
    for trial in ledger.counted(study.get_trials(deepcopy=False)):
        own = trial.user_attrs.get(objective.SECONDS)
        if own:
            spent["training"] += own["training"]
            spent["looks"] += own["looks"]
            spent["else"] += own["total"] - own["training"] - own["looks"]
    return {name: round(value, 2) for name, value in spent.items()}


def outcome(study: optuna.Study) -> finals.Outcome | None:
    """What the finals came to; None before they are over."""
    try:
        repeats = studies.load(study._storage, study.study_name + studies.FINALS)
    except UserError:
        return None
    if not finals.over(repeats):
        return None
    metric = studies.definition_of(study).params["tune"]["metric"]
    return finals.outcome(study, repeats, metric)


def everything(study: optuna.Study) -> dict[str, Any]:
    """What `show` prints, for JSON."""
    rows, ended = table(study), outcome(study)
    return {
        "study": study.study_name,
        "trials": rows.astype(object).where(rows.notna(), None).to_dict("records"),
        "finals": None if ended is None else {**asdict(ended), "verdict": ended.verdict},
        "importances": importances(study),
        "seconds": seconds(study),
    }


def brief(reason: str) -> str:
    """A reason as a cell holds it: its figures stand beside it, or in the JSON."""
    reason = re.sub(r" [-+.e\d]+ \(at \w+ [-+.e\d]+\)", "", reason)
    reason = re.sub(r"behind others: \S+ \S+ at", "behind at", reason)
    return reason.removeprefix("the training ").partition(";")[0]


def ordered(rows: pd.DataFrame, metric: str, direction: str) -> pd.DataFrame:
    """The rows as they are printed: the best sound trial last, where the eye is."""
    sound = (rows["state"] == "complete") & (rows["reason"] == "")
    better = rows[metric].fillna(float("inf")) * (-1 if direction == "minimize" else 1)
    return (
        rows.assign(_sound=sound, _better=better)
        .sort_values(["_sound", "work", "_better"])
        .drop(columns=["_sound", "_better"])
    )


def show(study: optuna.Study) -> None:
    """Print the study: best trials last, then what mattered, where the time went, and who won."""
    from rich.console import Console
    from rich.table import Table

    rows = table(study)
    console = Console()
    console.width = max(console.width, WIDTH)
    if rows.empty:
        console.print(f"{study.study_name} has no trial yet")
        return
    tune = studies.definition_of(study).params["tune"]
    rows = ordered(rows, tune["metric"], tune["direction"])
    rows["outcome"] = [
        f"{state}: {brief(reason)}" if reason else state
        for state, reason in zip(rows.pop("state"), rows.pop("reason"), strict=True)
    ]
    printed = Table(title=study.study_name, title_justify="left", box=None, pad_edge=False)
    for column in rows.columns:
        right = column != "outcome"
        printed.add_column(
            column.split(".")[-1], justify="right" if right else "left", no_wrap=True
        )
    for row in rows.itertuples(index=False):
        printed.add_row(*(_cell(value) for value in row))
    console.print(printed)
    trials = study.get_trials(deepcopy=False)
    console.print(
        f"work: {ledger.used(trials):.1f} of {studies.budget(study):g} trials' in {len(rows)}"
    )
    mattered = importances(study)
    for name, share in mattered.items():
        console.print(f"  {name:20} explains {share:.0%}")
    if not mattered:
        console.print(f"importances: from {ENOUGH} complete trials on")
    spent = seconds(study)
    total = sum(spent.values()) or 1.0
    console.print(
        "time: " + ", ".join(f"{name} {x:.0f} s ({x / total:.0%})" for name, x in spent.items())
    )
    ended = outcome(study)
    if ended is not None:
        console.print(f"finals: {ended.verdict}")


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
