"""One or several workers on this machine, and how far they are."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import optuna
import torch

from pipeline import progress
from pipeline.errors import UserError
from pipeline.tuning import ledger, objective, studies, worker

log = logging.getLogger(__name__)

DEATHS = 3  # of its workers that a pool makes up for
POLL_SECONDS = 0.5


def run(study: optuna.Study, url: str, bench: objective.Bench, workers: int) -> None:
    """Do all that the study has to do, in this process or in `workers` of them.

    Ends when nothing runs elsewhere either: what others leave undone is to be done here. The cores
    are shared out, and the GPUs given in turn. Raises UserError where workers keep dying, and
    KeyboardInterrupt, after they have ended well, where this process is interrupted.
    """
    worker.reap(study)
    if not worker.has_work(study) and not worker.awaited(study):
        return
    with _progress(study, bench) as advance:
        while True:
            if worker.has_work(study):
                if workers == 1:
                    worker.work(study, bench, advance)
                else:
                    _run_many(study, url, bench.params.train.device, workers, advance)
            elif worker.awaited(study):
                time.sleep(POLL_SECONDS)
                advance()
                worker.reap(study)
            else:
                return


def _run_many(
    study: optuna.Study, url: str, device: str, workers: int, advance: Callable[[], None]
) -> None:
    pool = {i: _start(study, url, device, i, workers) for i in range(workers)}
    deaths = 0
    try:
        while pool:
            time.sleep(POLL_SECONDS)
            advance()
            for i, process in list(pool.items()):
                code = process.poll()
                if code is None:
                    continue
                del pool[i]
                worker.reap(study)
                if code in (1, 2):  # it has said why
                    raise UserError("a worker of the search has stopped")
                deaths += code != 0
                if deaths > DEATHS:
                    raise UserError(
                        f"{deaths} workers were killed, the last by signal {-code}: out of memory? "
                        "Try fewer --workers; the same command goes on"
                    )
                if worker.has_work(study):  # it died, or another did after it had ended
                    pool[i] = _start(study, url, device, i, workers)
    finally:
        for process in pool.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in pool.values():
            process.wait()
        worker.reap(study)


def _start(
    study: optuna.Study, url: str, device: str, index: int, workers: int
) -> subprocess.Popen[bytes]:
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    visible = visible_gpu(index, torch.cuda.device_count(), device, os.environ)
    environment = {**os.environ, **visible, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "pipeline.tuning.worker", url, study.study_name]
    return subprocess.Popen(
        [*command, "--threads", str(threads)], env=environment, start_new_session=True
    )


def visible_gpu(
    index: int, gpus: int, device: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """A worker's CUDA_VISIBLE_DEVICES: the GPUs in turn, of those that the user left.

    Nothing where there is none, or where the user chose one (train.device: cuda:1) for all workers.
    """
    if not gpus or ":" in device:
        return {}
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible[:gpus] if len(visible) >= gpus and visible[0] else [str(i) for i in range(gpus)]
    return {"CUDA_VISIBLE_DEVICES": names[index % gpus].strip()}


@contextlib.contextmanager
def _progress(study: optuna.Study, bench: objective.Bench) -> Iterator[Callable[[], None]]:
    """A bar over the study's work, counted in steps of today's settings."""
    steps, reports = bench.params.tune.steps, bench.params.tune.reports

    def done() -> int:
        return round(ledger.done(study.get_trials(deepcopy=False), reports) * steps)

    start = done()
    total = round(_full_trials(study) * steps)
    shown = start
    with progress.bar("finals" if studies.is_finals(study) else "tune", total, start) as bar:

        def advance() -> None:
            nonlocal shown
            now = max(shown, min(done(), total))  # what a dead worker did is to be done again
            bar(now - shown, note=_note(study, bench))
            shown = now

        yield advance


def _full_trials(study: optuna.Study) -> float:
    if studies.only_queued(study):
        trials = study.get_trials(deepcopy=False)
        return sum(ledger.WITHDRAWN not in t.user_attrs for t in trials) - len(
            ledger.replaced(trials)
        )
    return studies.budget(study)


def _note(study: optuna.Study, bench: objective.Bench) -> str:
    trials = study.get_trials(deepcopy=False)
    best = ledger.best(trials, bench.params.tune.direction)
    if studies.is_finals(study) or not best:
        return f"{len(ledger.counted(trials))} trials"
    return (
        f"{len(ledger.counted(trials))} trials, best {bench.params.tune.metric} "
        f"{best[0].value:.3g} (trial {best[0].number})"
    )
