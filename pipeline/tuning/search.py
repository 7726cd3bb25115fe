"""`gan tune` from params.yaml to its outcome: study, trials, finals, and their runs in MLflow."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna

from pipeline import config, lineage
from pipeline.datasets import prepared
from pipeline.errors import UserError
from pipeline.tracking.trials import StudyRun
from pipeline.tuning import finals, ledger, objective, pool, space, studies
from pipeline.tuning.finals import Outcome

log = logging.getLogger(__name__)


def prepare() -> None:
    """Bring data and features up to date with params.yaml. Raises UserError where DVC fails."""
    dvc = Path(sys.executable).with_name("dvc")
    done = subprocess.run([dvc, "repro", "--quiet", "features"], check=False)
    if done.returncode:
        raise UserError("dvc repro features failed, and a search needs what it makes")


def known_trials(values: dict[str, Any]) -> list[space.Values]:
    """The trials that need no sampler: today's settings, and after them those of a grid.

    Raises ConfigError for a space that today's settings are not in, that is empty, or that has a
    choice which is never possible.
    """
    tune = config.check(values).tune
    space.check(values, tune.space)
    first = space.current(values, tune.space)
    rest = space.grid(tune.space) if tune.sampler == "grid" else []
    return [first, *(x for x in rest if x != first)]


def search(values: dict[str, Any], *, workers: int, url: str) -> Outcome | None:
    """Run, or go on with, the study of these params (nested) on what is prepared here.

    Returns what the finals came to, None where there are none. Raises ConfigError as `known_trials`
    does.
    """
    params = config.check(values)
    tune = params.tune
    queued = known_trials(values)
    data = prepared.load()
    dataset = {"name": data.name, "digest": data.digest, "source": params.data.source}
    definition = studies.define(values, dataset)
    storage = studies.open_storage(url)
    study = studies.create(definition, storage)
    known = len(ledger.counted(study.get_trials(deepcopy=False)))
    if known:
        log.info("study %s goes on after %d trials", definition.name, known)
    else:
        log.info("study %s begins", definition.name)
        for one in queued:
            study.enqueue_trial(one, skip_if_exists=True)
    bench = objective.open_bench(definition)
    run = StudyRun(params.tracking.experiment, definition.name, _told(values))
    run.begin({**definition.git, "storage": studies.shown(url), "data_digest": data.digest})
    status, outcome = "KILLED", None
    try:
        pool.run(study, url, bench, workers)
        if tune.finalists:
            repeats = studies.create(definition, storage, finals=True)
            finals.queue(
                study, repeats, count=tune.finalists, seeds=tune.finalist_seeds, seed=params.seed
            )
            pool.run(repeats, url, bench, workers)
            outcome = finals.outcome(study, repeats, tune.metric)
        status = "FINISHED"
    finally:
        run.end(status, _figures(study, outcome), _tags(study, outcome), _note(definition, outcome))
    return outcome


def join(storage: str, name: str | None, *, workers: int) -> None:
    """Help with a study that was begun elsewhere, until its work is used up.

    Raises UserError where code or data differ from those that it was begun with.
    """
    study = studies.load(studies.open_storage(storage), name)
    definition = studies.definition_of(study)
    here = lineage.stage_inputs("train", definition.params)
    different = lineage.difference(definition.inputs, here)
    if different:
        raise UserError(
            f"study {definition.name} was begun with other inputs: {'; '.join(different[:5])}; "
            f"check out {definition.git['git_commit'][:8]} and run dvc repro features (or dvc pull)"
        )
    log.info("joining study %s", study.study_name)
    pool.run(study, storage, objective.open_bench(definition), workers)


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """The params that a study's run shows."""
    return {name: values[name] for name in ("seed", "data", "model", "loss", "train", "tune")}


def _figures(study: optuna.Study, outcome: Outcome | None) -> dict[str, float]:
    trials = study.get_trials(deepcopy=False)
    best = ledger.best(trials, study.direction.name.lower())
    figures = {"trials": float(len(ledger.counted(trials))), "work": ledger.used(trials)}
    if best and best[0].value is not None:
        figures["best_value"] = best[0].value
    if outcome is not None and outcome.gain is not None:
        figures |= dict(zip(("gain", "gain_ci_low", "gain_ci_high"), outcome.gain, strict=True))
    return figures


def _tags(study: optuna.Study, outcome: Outcome | None) -> dict[str, str]:
    if outcome is None:
        return {}
    return {"winner": str(outcome.winner.trial), "verdict": outcome.verdict}


def _note(definition: studies.Definition, outcome: Outcome | None) -> str:
    lines = [f"Search on {definition.dataset['name']}; its trials are its children."]
    if outcome is not None:
        lines += [outcome.verdict, "", "```", "gan tune apply && dvc repro", "```"]
    return "\n".join(lines)
