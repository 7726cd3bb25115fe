"""A search in MLflow: a parent run for the study, a child for each trial.

They have an experiment of their own, so that short trials do not stand among full trainings. None
of these calls fails or delays a trial: the study itself is kept by Optuna.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import lineage
from pipeline.processes import this_process
from pipeline.tracking import runs, store, views
from pipeline.tracking.background import Background

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

SUFFIX = "-tune"  # of the experiment's name
STUDY, TRIAL, STATE = "study", "trial", "trial_state"  # tags
TAG_LENGTH = 5000
LOST = "the search goes on, and its trials are kept in the study"

# MLflow knows no pruned run.
STATUSES = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "INTERRUPTED": "KILLED"}


def experiment_of(name: str) -> str:
    """The experiment in which the searches of an experiment are kept."""
    return name + SUFFIX


class StudyRun:
    """The parent run of a study, found by its name or made; it holds what all trials share."""

    def __init__(self, experiment: str, study: str, params: Mapping[str, Any]) -> None:
        self.experiment, self.study = experiment_of(experiment), study
        self._params = dict(params)
        self._background = Background(LOST)
        self._run_id: str | None = None

    def begin(self, tags: Mapping[str, str]) -> None:
        """Mark the study as running, and as killed what is left of processes that are gone."""
        self._background.submit(self._begin, dict(tags))

    def end(
        self, status: str, figures: Mapping[str, float], tags: Mapping[str, str], note: str
    ) -> None:
        """Log what the search came to, and wait for it. `status` is MLflow's."""
        self._background.submit(self._end, status, dict(figures), dict(tags), note)
        self._background.close()

    def _begin(self, tags: dict[str, str]) -> None:
        client, experiment_id = store.ready(self.experiment)
        runs.end_stale_runs(client, experiment_id, keep="")
        run_id = parent(client, experiment_id, self.study)
        client.update_run(run_id, status="RUNNING")
        known = client.get_run(run_id).data.params  # of an earlier sitting: MLflow keeps the first
        params = {k: v for k, v in lineage.flatten(self._params).items() if k not in known}
        _log(client, run_id, params=params, tags={**tags, runs.PROCESS: this_process()})
        self._run_id = run_id

    def _end(self, status: str, figures: dict[str, float], tags: dict[str, str], note: str) -> None:
        if self._run_id is None:
            return
        client, _ = store.ready(self.experiment)
        _log(client, self._run_id, figures=figures, tags={**tags, views.NOTE: note})
        client.set_terminated(self._run_id, status=status)


class TrialRun:
    """The run of one trial: settings, curves while it trains, a grid and its state at the end.

    `folder` is where the trial's pictures are written, which `image` then uploads.
    """

    def __init__(
        self,
        experiment: str,
        study: str,
        name: str,
        *,
        folder: Path,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        upload_every: float,
    ) -> None:
        self.folder = folder
        self._experiment, self._study = experiment_of(experiment), study
        self._upload_every = upload_every
        self._started = round(time.time() * 1000)
        self._pending: list[runs.Row] = []
        self._uploaded = time.monotonic()
        self._background = Background(LOST)
        self._background.submit(self._begin, name, dict(params), dict(tags))

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Take rows of the history for the next upload."""
        self._pending += rows
        if time.monotonic() - self._uploaded >= self._upload_every:
            self._flush()

    def image(self, step: int, path: Path) -> None:
        self._background.submit(self._image, step, path)

    def close(self, state: str, figures: Mapping[str, float], tags: Mapping[str, Any]) -> None:
        """End the run in a trial's `state` (a key of STATUSES) and wait for it."""
        self._flush()
        self._background.submit(self._end, state, dict(figures), dict(tags))
        self._background.close()

    def _flush(self) -> None:
        rows, self._pending = self._pending, []
        self._uploaded = time.monotonic()
        if rows:
            self._background.submit(self._log, rows)

    def _begin(self, name: str, params: dict[str, Any], tags: dict[str, str]) -> None:
        self._client, experiment_id = store.ready(self._experiment)
        told = {**tags, STUDY: self._study, runs.PROCESS: this_process()}
        run = self._client.create_run(
            experiment_id,
            start_time=self._started,
            run_name=name,
            tags={**told, "mlflow.parentRunId": parent(self._client, experiment_id, self._study)},
        )
        self._run_id, self._last = run.info.run_id, -1
        _log(self._client, self._run_id, params=params)

    def _log(self, rows: list[runs.Row]) -> None:
        self._last = runs.log_history(
            self._client, self._run_id, rows, started=self._started, after=self._last
        )

    def _image(self, step: int, path: Path) -> None:
        runs.log_image(
            self._client, self._run_id, path, key="samples", step=step, timestamp=self._started
        )

    def _end(self, state: str, figures: dict[str, float], tags: dict[str, Any]) -> None:
        _log(self._client, self._run_id, figures=figures, tags={**tags, STATE: state.lower()})
        self._client.set_terminated(self._run_id, status=STATUSES[state])


def parent(client: MlflowClient, experiment_id: str, study: str) -> str:
    """The id of the study's run, which is made where there is none."""
    with store.lock():
        found = find(client, experiment_id, study)
        if found is not None:
            return str(found.info.run_id)
        run = client.create_run(experiment_id, run_name=study, tags={STUDY: study})
        return str(run.info.run_id)


def find(
    client: MlflowClient, experiment_id: str, study: str, trial: int | None = None
) -> Run | None:
    """The run of a study, or of one of its trials; None where there is none."""
    which = f"tags.{TRIAL} = '{trial}'" if trial is not None else f"attributes.run_name = '{study}'"
    found = client.search_runs(
        [experiment_id], f"tags.{STUDY} = '{study}' and {which}", max_results=1
    )
    return found[0] if found else None


def _log(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    figures: Mapping[str, float] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> None:
    """All of it in one call: each is a transaction of its own."""
    from mlflow.entities import Metric, Param, RunTag

    now = round(time.time() * 1000)
    client.log_batch(
        run_id,
        params=[
            Param(key, str(value)[: runs.PARAM_LENGTH])
            for key, value in lineage.flatten(dict(params or {})).items()
        ],
        metrics=[Metric(key, value, now, 0) for key, value in (figures or {}).items()],
        tags=[RunTag(key, str(value)[:TAG_LENGTH]) for key, value in (tags or {}).items()],
    )
