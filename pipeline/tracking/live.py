"""Curves and pictures in MLflow while a training runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.processes import this_process
from pipeline.tracking import runs, store
from pipeline.tracking.background import Background
from pipeline.tracking.deliver import grid_key
from pipeline.tracking.record import RunRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class LiveRun:
    """A training's run, written by one background thread: no call waits for MLflow, none raises.

    The first failure logs one warning and ends the live view; the outs are delivered, or kept
    back, at the end of the training in any case. Steps that the run already has are left out, so a
    resumed training continues its curves.

    Args:
        record: as `record.start` made it; the end of the stage must keep its `started`.
        upload_every: seconds between two uploads of curves.
    """

    def __init__(self, record: RunRecord, upload_every: float = 20.0) -> None:
        self._record = record
        self._upload_every = upload_every
        self._uploaded = time.monotonic()
        self._pending: list[runs.Row] = []
        self._client: MlflowClient | None = None  # None: nothing to write
        self._background = Background("the training goes on, and delivers them at its end.")
        self._background.submit(self._begin)

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Take rows of the history (keys as the columns of history.csv) for the next upload."""
        self._pending += rows
        if time.monotonic() - self._uploaded >= self._upload_every:
            self._flush()

    def image(self, step: int, path: Path) -> None:
        """Upload the sample grid of `step`, a file that stays."""
        self._background.submit(self._image, step, path)

    def tag(self, tags: dict[str, str]) -> None:
        """Set tags on the run now."""
        self._background.submit(self._tag, tags)

    def close(self, status: str | None = None) -> None:
        """Upload what is left and wait for it; `status` marks a run that ends here, as KILLED."""
        self._flush()
        if status:
            self._background.submit(self._end, status)
        self._background.close()

    def _flush(self) -> None:
        rows, self._pending = self._pending, []
        self._uploaded = time.monotonic()
        self._background.submit(self._log, rows)

    def _begin(self) -> None:
        client, experiment_id = store.ready(self._record.experiment)
        runs.end_stale_runs(client, experiment_id, keep=self._record.key)
        with store.lock():
            run = runs.find_or_create(client, experiment_id, self._record)
        if runs.DELIVERED in run.data.tags:
            return  # the same training again, by force: the store has it all
        self._run_id = run.info.run_id
        client.update_run(self._run_id, status="RUNNING")
        client.set_tag(self._run_id, runs.PROCESS, this_process())
        runs.describe(client, run, self._record, self._record.params)
        self._last_step = runs.last_step(client, self._run_id)
        self._images = runs.logged_images(client, self._run_id)
        self._client = client

    def _log(self, rows: list[runs.Row]) -> None:
        if self._client is None:
            return
        self._last_step = runs.log_history(
            self._client, self._run_id, rows, started=self._record.started, after=self._last_step
        )

    def _image(self, step: int, path: Path) -> None:
        if self._client is None:
            return
        key, _ = grid_key(path)
        if (key, step) not in self._images:
            runs.log_image(
                self._client,
                self._run_id,
                path,
                key=key,
                step=step,
                timestamp=self._record.started,
            )
            self._images.add((key, step))

    def _tag(self, tags: dict[str, str]) -> None:
        if self._client is None:
            return
        for key, value in tags.items():
            self._client.set_tag(self._run_id, key, value)

    def _end(self, status: str) -> None:
        if self._client is None:
            return
        self._client.set_terminated(self._run_id, status=status)
