"""Putting a trial's settings into params.yaml, at the user's full budget."""

from __future__ import annotations

import logging
from typing import Any

import optuna

from pipeline import config, lineage, paths, presets
from pipeline.errors import UserError
from pipeline.tuning import finals, ledger, objective, space, studies, work
from pipeline.tuning.schema import SEARCHED_SECTIONS

log = logging.getLogger(__name__)


def apply(study: optuna.Study, trial: int | None) -> tuple[int, list[str]]:
    """Write a trial's settings, of the winner where None is named, into params.yaml.

    `train.steps` becomes what costs as much as the steps that the search began with. Returns the
    trial's number and the changed keys. Raises UserError where there is no such trial or winner.
    """
    definition = studies.definition_of(study)
    number = trial if trial is not None else winner(study)
    trials = {t.number: t for t in ledger.counted(study.get_trials(deepcopy=False))}
    if number not in trials:
        raise UserError(f"study {definition.name} has no trial {number}: see gan tune show")
    bench = objective.open_bench(definition)
    values = space.put(definition.params, trials[number].params)
    params = config.check(values)
    steps = work.equal_steps(
        bench.params.train.steps, work=bench.cost(bench.params), other=bench.cost(params)
    )
    _warn_of_changes(definition)
    fault = ledger.unsound(trials[number])
    if fault:
        log.warning("trial %d %s: its settings are not known to be sound", number, fault)
    changes: dict[str, Any] = {"train": {"steps": steps}}
    for key in trials[number].params:
        section, leaf = key.split(".")
        changes.setdefault(section, {})[leaf] = values[section][leaf]
    now = presets.merged(config.read_yaml(paths.PARAMS), changes)
    origin = lineage.tuned_mark(definition.name, number, now)
    return number, presets.write({**changes, "tune": {"applied": origin}})


def winner(study: optuna.Study) -> int:
    """The winner of the finals, else the best sound trial.

    Raises UserError where there is none.
    """
    definition = studies.definition_of(study)
    metric = definition.params["tune"]["metric"]
    try:
        repeats = studies.load(study._storage, definition.name + studies.FINALS)
    except UserError:
        best = ledger.best(study.get_trials(deepcopy=False), study.direction.name.lower())
        if not best:
            raise UserError(
                f"study {definition.name} has no sound trial yet: see gan tune show, or name one "
                "with --trial"
            ) from None
        log.warning("there were no finals: trial %d is the best of one seed each", best[0].number)
        return best[0].number
    if not finals.over(repeats):
        raise UserError(
            f"the finals of study {definition.name} are not over: gan tune goes on with them; to "
            "apply a trial all the same, name it with --trial"
        )
    outcome = finals.outcome(study, repeats, metric)
    if outcome.winner is outcome.today:
        raise UserError(
            f"nothing is better than the settings that the search began with ({outcome.verdict}); "
            "to apply a trial all the same, name it with --trial"
        )
    return outcome.winner.trial


def _warn_of_changes(definition: studies.Definition) -> None:
    now = config.read_yaml(paths.PARAMS)
    sections = ("seed", *SEARCHED_SECTIONS)
    before, after = (
        lineage.flatten({name: values[name] for name in sections})
        for values in (definition.params, now)
    )
    searched = {*definition.params["tune"]["space"], "train.steps"}
    changed = [key for key in after if key not in searched and after[key] != before.get(key)]
    if changed:
        log.warning(
            "params.yaml has changed since the study began, and these keys stay as they are: %s",
            ", ".join(changed),
        )
