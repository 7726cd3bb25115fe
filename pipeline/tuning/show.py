"""A study as tables: its trials, what mattered, where the time went."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.tuning import ledger, objective, studies

if TYPE_CHECKING:
    import pandas as pd

ENOUGH = 4  # complete trials that importances need


def table(study: optuna.Study) -> pd.DataFrame:
    """One row a counted trial: state, figure, work, settings, constraints, reason."""
    import pandas as pd

    metric = studies.definition_of(study).params["tune"]["metric"]
    rows = [_row(trial, metric) for trial in ledger.counted(study.get_trials(deepcopy=False))]
    return pd.DataFrame(rows)


def _row(trial: FrozenTrial, metric: str) -> dict[str, Any]:
    broken = [name for name, value in trial.constraints.items() if value > 0]
    reason = trial.user_attrs.get(ledger.REASON, "")
    if trial.state == TrialState.COMPLETE and broken:
        reason = "collapsed by " + ", ".join(broken)
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


def everything(study: optuna.Study) -> dict[str, Any]:
    """What `show` prints, for JSON."""
    rows = table(study)
    return {
        "study": study.study_name,
        "trials": rows.astype(object).where(rows.notna(), None).to_dict("records"),
        "importances": importances(study),
        "seconds": seconds(study),
    }


def show(study: optuna.Study) -> None:
    """Print the study: best trials last, where the eye is."""
    from rich.console import Console
    from rich.table import Table

    rows = table(study)
    console = Console()
    if rows.empty:
        console.print(f"{study.study_name} has no trial yet")
        return
    printed = Table(title=study.study_name, title_justify="left")
    for column in rows.columns:
        printed.add_column(column.removeprefix("train."), justify="right")
    for row in rows.itertuples(index=False):
        printed.add_row(*(_cell(value) for value in row))
    console.print(printed)
    for name, share in importances(study).items():
        console.print(f"  {name:20} explains {share:.0%}")
    spent = seconds(study)
    total = sum(spent.values()) or 1.0
    console.print(
        "time: " + ", ".join(f"{name} {x:.0f} s ({x / total:.0%})" for name, x in spent.items())
    )


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
