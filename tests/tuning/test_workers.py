"""Several processes work on one study, and some of them die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import psutil
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from pipeline.errors import UserError
from pipeline.tuning import ledger, studies
from tests.services import postgresql
from tests.tuning.test_search import RATES, Project

pytestmark = pytest.mark.slow

CODE = """
import sys
from pipeline import config, errors, logs, paths
from pipeline.tuning import search
def main():
    url, workers = sys.argv[1], int(sys.argv[2])
    {call}
logs.setup()
errors.run(main)
"""
SEARCH = CODE.format(call="search.search(config.read_yaml(paths.PARAMS), workers=workers, url=url)")
JOIN = CODE.format(call="search.join(url, None, workers=workers)")
TRIALS = 6


@pytest.fixture(params=["journal", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "journal":
        yield "studies.log"
    else:
        with postgresql() as found:
            yield found


@pytest.fixture
def values(project: Project) -> dict[str, Any]:
    return project(
        tune={"space": RATES, "finalists": 0, "trials": TRIALS, "steps": 150, "reports": 3},
        data={"source": "ring"},
    )


def start(code: str, url: str, workers: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, url, str(workers)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
        # A shell has what it runs in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@contextlib.contextmanager
def watched(url: str) -> Iterator[optuna.Study]:
    """The study, once another process has made it."""
    storage = studies.open_storage(url)
    deadline = time.monotonic() + 120
    while True:
        try:
            study = studies.load(storage, None)
            break
        except (UserError, KeyError):  # not made yet, or not defined
            assert time.monotonic() < deadline, "no study was made"
            time.sleep(0.1)
    yield study
    if isinstance(storage, RDBStorage):
        study._storage.remove_session()
        storage.engine.dispose()


def in_a_trial(study: optuna.Study) -> set[int]:
    """Ids of the processes that are in the middle of a trial: they have reported, and not ended."""
    return {
        int(trial.user_attrs[ledger.PROCESS].split(":")[1])
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if trial.last_step and ledger.PROCESS in trial.user_attrs
    }


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def kill_some(study: optuna.Study, process: subprocess.Popen[str], deaths: int) -> None:
    """Kill so many workers, each in the middle of a trial."""
    killed: set[int] = set()
    while len(killed) < deaths:
        wait_for(lambda: bool(in_a_trial(study) - killed), process)
        for pid in list(in_a_trial(study) - killed)[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)


def assert_complete(study: optuna.Study, least_dead: int) -> None:
    """No trial lost, none counted twice, none left running, and the work used up exactly."""
    trials = study.get_trials(deepcopy=False)
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert ledger.lost(trials) == []
    dead = [
        t for t in trials if t.state == TrialState.FAIL and ledger.WITHDRAWN not in t.user_attrs
    ]
    assert len(dead) >= least_dead
    again = Counter(tuple(ledger.history(t)) for t in trials if ledger.history(t))
    counted_again = Counter(
        tuple(ledger.history(t)) for t in ledger.counted(trials) if ledger.history(t)
    )
    assert {number for history in again for number in history} == {t.number for t in dead}
    assert max(counted_again.values(), default=1) == 1
    used = ledger.used(trials)
    assert TRIALS <= used < TRIALS + 1


def test_workers_that_are_killed_lose_no_trial(values: dict[str, Any], url: str) -> None:
    process = start(SEARCH, url, workers=2)
    with watched(url) as study:
        kill_some(study, process, deaths=2)
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        assert_complete(study, least_dead=2)
    assert "interrupted: it is queued again" in said


def test_another_process_joins_and_takes_its_share(values: dict[str, Any], url: str) -> None:
    first = start(SEARCH, url, workers=1)
    with watched(url) as study:
        second = start(JOIN, url, workers=1)
        for process in (first, second):
            _, said = process.communicate(timeout=240)
            assert process.returncode == 0, said
        owners = {t.user_attrs[ledger.PROCESS] for t in ledger.counted(study.trials)}
        assert len(owners) == 2
        assert_complete(study, least_dead=0)


def test_ctrl_c_ends_all_workers_and_the_same_command_goes_on(values: dict[str, Any]) -> None:
    process = start(SEARCH, "studies.log", workers=2)
    with watched("studies.log") as study:
        wait_for(lambda: len(in_a_trial(study)) == 2, process)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "the same command continues" in said
        assert "Traceback" not in said
        assert not [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE]
        again = start(SEARCH, "studies.log", workers=2)
        _, said = again.communicate(timeout=240)
        assert again.returncode == 0, said
        assert_complete(study, least_dead=2)
