"""Runs trials of a study until its work is used up; any number of processes may do so at once.

python -m pipeline.tuning.worker STORAGE STUDY --threads N
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import torch
from filelock import FileLock
from optuna import Trial
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from pipeline import errors, logs, paths
from pipeline.processes import is_gone, is_here, this_process
from pipeline.tuning import ledger, objective, space, studies

log = logging.getLogger(__name__)

UNLUCKY = 100  # impossible combinations in a row, after which there is no sense in going on


def work(
    study: optuna.Study, bench: objective.Bench, advance: Callable[[], None] = lambda: None
) -> None:
    """Run trials until nothing is left to do.

    A trial that is interrupted is queued again. Raises ConfigError where nearly no combination of
    the space is possible.
    """
    prunes = not studies.is_finals(study) and bench.params.tune.pruner != "none"

    def one(trial: Trial) -> float:
        trial.set_user_attr(ledger.PROCESS, this_process())
        try:
            reason = _surplus(study, trial)
            if reason:
                raise objective.Withdrawn(reason)
            return objective.run(trial, bench, pruned=prunes, advance=advance)
        except objective.Withdrawn as why:
            trial.set_user_attr(ledger.WITHDRAWN, str(why))
            raise

    ended: list[FrozenTrial] = []
    while has_work(study):
        try:
            with _quietly():
                study.optimize(
                    one,
                    n_trials=1,
                    catch=(objective.Withdrawn, objective.Failed),
                    callbacks=[lambda study, trial: ended.append(trial)],
                )
        finally:
            reap(study)  # of this process too, if it was interrupted
        _tell(study, ended[-1])
        recent = ended[-UNLUCKY:]
        if len(recent) == UNLUCKY and all(ledger.WITHDRAWN in t.user_attrs for t in recent):
            raise errors.ConfigError(
                f"tune.space: {UNLUCKY} combinations in a row are impossible: "
                + recent[-1].user_attrs[ledger.WITHDRAWN]
            )


def has_work(study: optuna.Study) -> bool:
    """Whether there is a trial to run."""
    trials = study.get_trials(deepcopy=False)
    if studies.only_queued(study):
        return any(t.state == TrialState.WAITING for t in trials)
    return ledger.used(trials) < studies.budget(study)


def reap(study: optuna.Study) -> None:
    """Fail the trials whose process on this host is gone, and queue again what was lost.

    A journal has no heartbeat; on a database silence tells of the workers of other hosts.
    """
    paths.tuning().mkdir(parents=True, exist_ok=True)
    with FileLock(paths.tuning() / "reaper.lock"), _quietly():
        optuna.storages.fail_stale_trials(study)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _is_dead(trial):
                with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # ended meanwhile
                    study.tell(trial.number, state=TrialState.FAIL)
        for trial in ledger.lost(study.get_trials(deepcopy=False)):
            log.info("trial %d was interrupted: it is queued again", trial.number)
            studies.queue_again(study, trial)


def awaited(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that others run, and of which this process will hear if they die."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if not isinstance(study._storage, JournalStorage):
        return running
    return [t for t in running if is_here(t.user_attrs.get(ledger.PROCESS, this_process()))]


def _is_dead(trial: FrozenTrial) -> bool:
    process = trial.user_attrs.get(ledger.PROCESS)
    if process is not None:
        return is_gone(process)
    # Its process died between taking the trial and signing it.
    assert trial.datetime_start is not None
    age = datetime.datetime.now() - trial.datetime_start
    return age.total_seconds() > studies.GRACE_SECONDS


def _surplus(study: optuna.Study, trial: Trial) -> str | None:
    trials = study.get_trials(deepcopy=False)
    me = next(t for t in trials if t.number == trial.number)
    if studies.only_queued(study):
        queued = "fixed_params" in me.system_attrs or ledger.history(me)
        budget = float("inf")
        if not queued:
            return "nothing is queued"
    else:
        budget = studies.budget(study)
    return ledger.surplus(me, trials, budget)


def _tell(study: optuna.Study, trial: FrozenTrial) -> None:
    """One line on a trial that has ended."""
    if ledger.WITHDRAWN in trial.user_attrs:
        log.debug("trial %d not run: %s", trial.number, trial.user_attrs[ledger.WITHDRAWN])
        return
    name = f"trial {trial.number}"
    if studies.REPEATS in trial.user_attrs:
        name = f"finals: trial {trial.user_attrs[studies.REPEATS]}"
        name += f", seed {trial.user_attrs[studies.SEED]}"
    metric = studies.definition_of(study).params["tune"]["metric"]
    if trial.state == TrialState.COMPLETE:
        broken = [key for key, value in trial.constraints.items() if value > 0]
        outcome = f"{metric} {trial.value:.3g}"
        if broken:
            outcome += f", collapsed by {', '.join(broken)}"
    else:
        state = "failed" if trial.state == TrialState.FAIL else "pruned"
        outcome = f"{state}: {trial.user_attrs.get(ledger.REASON, 'interrupted')}"
    log.info("%s (%s): %s", name, space.told(trial.params), outcome)


@contextlib.contextmanager
def _quietly() -> Any:
    """Without Optuna's word that retrying is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _leave_with(parent: int) -> Callable[[], None]:
    """What ends this process at its next look, if the one that started it is gone."""

    def check() -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt

    return check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("storage")
    parser.add_argument("study")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(arguments.threads)
    study = studies.load(studies.open_storage(arguments.storage), arguments.study)
    bench = objective.open_bench(studies.definition_of(study))
    try:
        work(study, bench, _leave_with(os.getppid()))
    except KeyboardInterrupt:
        sys.exit(130)  # the pool says that it was interrupted


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
