"""What `gan tune` takes beside training and looking at samples, as a share of a trial of a minute.

A whole search on the ring, of trials that do next to nothing but report as often, log as much and
draw the same grid as long ones. Counted is processor time, that of MLflow's thread included, so
that other work on the machine hardly matters: all of the process, less what its main thread spends
in the training loop and its looks.

    python benchmarks/tuning_overhead.py [--trials 40]
    python benchmarks/tuning_overhead.py --workers     # wall time of a search: one worker, then two
"""

from __future__ import annotations

import time

BEGAN = time.process_time()  # before the imports, which are a part of it

import argparse  # noqa: E402
import contextlib  # noqa: E402
import itertools  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from pipeline import errors, logs, presets  # noqa: E402
from pipeline.benchmark import runs  # noqa: E402
from pipeline.training import recipe  # noqa: E402
from pipeline.tuning import ledger, objective, search, studies, work  # noqa: E402

MINUTE = 60.0
IDLE = {"steps": 90, "reports": 9}  # hardly more than the reports
BUSY = {"steps": 400, "reports": 9}  # about two seconds of training


def settings(trials: int, length: dict[str, int]) -> dict[str, Any]:
    values = presets.merged(presets.overlay("default"), presets.overlay("ring"))
    small = {
        "data": {"draws": 5000},
        "features": {"epochs": 1},
        "model": {"width": 32},
        "train": {"batch_size": 32, "eval_samples": 200, "device": "cpu"},
        "tracking": {"experiment": "overhead"},
        "tune": {"trials": trials, "finalists": 0, "constraints": {}, **length},
    }
    return presets.merged(values, small)


@contextlib.contextmanager
def project(values: dict[str, Any]) -> Iterator[Path]:
    """Work in a folder where these params are prepared."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs.prepare(values, folder)
        git = ["git", "-c", "user.name=b", "-c", "user.email=b@localhost"]
        for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "b"]):
            subprocess.run([*git, *command], cwd=folder, check=True)
        with contextlib.chdir(folder):
            yield folder


class Stopwatch:
    """Processor time that the main thread spends in what it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - began

        return timed


def overhead(trials: int) -> None:
    imports = time.process_time() - BEGAN
    loop, told = Stopwatch(), Stopwatch()
    recipe.run = loop.around(recipe.run)
    objective.Watch.on_eval = told.around(objective.Watch.on_eval)  # type: ignore[method-assign]
    objective.Curves.on_step = told.around(objective.Curves.on_step)  # type: ignore[method-assign]
    work.per_step = told.around(work.per_step)  # it runs the loop to count, not to train
    plain = objective._accounted
    marks: list[float] = []  # the overhead so far, at the end of each trial that ran

    @contextlib.contextmanager
    def marked(*arguments: Any) -> Iterator[None]:
        try:
            with plain(*arguments):
                yield
        finally:
            marks.append(time.process_time() - loop.seconds + told.seconds)

    objective._accounted = marked
    values = settings(trials, IDLE)
    with project(values):
        before = time.process_time()
        search.search(values, workers=1, url="studies.log")
        study = studies.load(studies.open_storage("studies.log"), None)
        used = ledger.used(study.get_trials(deepcopy=False))
    each = [b - a for a, b in itertools.pairwise(marks)]
    last = each[-10:]
    mean = sum(each) / len(each)
    first = marks[0] - before - mean
    print(f"{len(marks)} trials of {used:.1f} trials' work, processor seconds beside the training:")
    print(
        f"  start-up, once a worker: {imports:.1f} for imports, {first:.1f} until the first trial"
    )
    print(f"  a trial: {mean:.2f} on average, {sum(last) / len(last):.2f} for the last ten")
    # A pruned trial saves training, not overhead: it is charged to the work of full trials.
    share = (imports + first + mean * len(marks)) / (MINUTE * used)
    print(f"  of full trials of a minute: {share:.1%}")


def workers() -> None:
    """One worker has all cores, two share them: the same work should take no longer."""
    values = settings(16, BUSY)
    values["tune"]["pruner"] = "none"
    taken = {}
    with project(values):
        for n in (1, 2, 1, 2):
            url = f"{n}_{len(taken)}.log"
            began = time.monotonic()
            search.search(values, workers=n, url=url)
            taken[url] = (n, time.monotonic() - began)
    for n in (1, 2):
        seconds = [s for m, s in taken.values() if m == n]
        print(f"{n} of {os.cpu_count()} cores' workers: {', '.join(f'{s:.0f} s' for s in seconds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--workers", action="store_true", help="one worker against two")
    arguments = parser.parse_args()
    logging.getLogger("pipeline").setLevel(logging.WARNING)
    if arguments.workers:
        workers()
    else:
        overhead(arguments.trials)


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
