"""One run in the MLflow store: found by its key, and filled so that doing it twice doubles nothing.

Metrics carry times made from the record and the row, never the clock: the store then takes the
same point only once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import lineage
from pipeline.processes import is_gone
from pipeline.tracking import views
from pipeline.tracking.record import RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

KEY_TAGS = {"train": "train_key", "evaluate": "eval_key"}
DELIVERED = "delivered"  # the tag of a run that holds all of the record with this digest
PROCESS = "process"  # host and process id of a training that is alive
DATASET_CONTEXTS = {"train": "training", "evaluate": "evaluation"}

# MLflow's limits.
METRICS_PER_BATCH = 1000
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36

Row = Mapping[str, float | None]


def find(client: MlflowClient, experiment_id: str, kind: str, key: str) -> Run | None:
    """The run of `key`, or None; one that was deleted in the UI does not count."""
    found = client.search_runs(
        [experiment_id],
        f"tags.{KEY_TAGS[kind]} = '{key}' and tags.dvc_stage = '{kind}'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    return found[0] if found else None


def find_or_create(
    client: MlflowClient, experiment_id: str, record: RunRecord, parent_id: str | None = None
) -> Run:
    """The run of `record`. Call it under `store.lock()`, or two processes both create one."""
    run = find(client, experiment_id, record.kind, record.key)
    if run is None:
        run = client.create_run(
            experiment_id,
            start_time=record.started,
            tags=_tags(record, parent_id),
            run_name=record.name,
        )
    return run


def describe(
    client: MlflowClient,
    run: Run,
    record: RunRecord,
    params: Mapping[str, Any],
    parent_id: str | None = None,
) -> None:
    """Log params, tags, note and data set.

    A param that the run has stays, as MLflow keeps the first; so does a note: users edit them.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    run_id = run.info.run_id
    tags = _tags(record, parent_id)
    if views.NOTE not in run.data.tags:
        tags[views.NOTE] = views.run_note(record)
    client.log_batch(
        run_id,
        params=[
            Param(key, _text(value)[:PARAM_LENGTH])
            for key, value in params.items()
            if key not in run.data.params
        ],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    dataset = Dataset(
        name=record.dataset["name"],
        digest=digest(record),
        source_type="local",
        source=json.dumps(record.dataset),
    )
    context = InputTag("mlflow.data.context", DATASET_CONTEXTS[record.kind])
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=[context])])


def digest(record: RunRecord) -> str:
    """The data set's digest, as long as MLflow takes it."""
    return record.dataset["digest"][:DIGEST_LENGTH]


def last_step(client: MlflowClient, run_id: str) -> int:
    """The last step of the training history that the run has, -1 where it has none."""
    history = client.get_metric_history(run_id, "seconds")
    return max((point.step for point in history), default=-1)


def log_history(
    client: MlflowClient, run_id: str, rows: Iterable[Row], *, started: int, after: int
) -> int:
    """Log the rows of a training history beyond step `after`; return the last step.

    A row is never split over two batches, so the run holds all of a row or nothing of it.
    """
    from mlflow.entities import Metric

    batch: list[Metric] = []
    for row in rows:
        step = int(row["step"] or 0)
        if step <= after:
            continue
        after = step
        timestamp = started + round(1000 * (row["seconds"] or 0))
        points = [
            Metric(key, value, timestamp, step)
            for key, value in row.items()
            if value is not None and key != "step"
        ]
        if len(batch) + len(points) > METRICS_PER_BATCH:
            client.log_batch(run_id, metrics=batch)
            batch = []
        batch += points
    if batch:
        client.log_batch(run_id, metrics=batch)
    return after


def logged_images(client: MlflowClient, run_id: str) -> set[tuple[str, int]]:
    """Key and step of every picture that the run has."""
    names = (Path(file.path).name for file in client.list_artifacts(run_id, "images"))
    parts = (name.split("+") for name in names if name.endswith("+compressed.webp"))
    return {(part[0], int(part[2])) for part in parts}


def log_image(
    client: MlflowClient, run_id: str, path: Path, *, key: str, step: int, timestamp: int
) -> None:
    """Log a picture file under `key`, whose steps the UI shows under one slider."""
    from PIL import Image

    with Image.open(path) as image:
        client.log_image(run_id, image, key=key, step=step, timestamp=timestamp)


def end_stale_runs(client: MlflowClient, experiment_id: str, keep: str) -> None:
    """Mark KILLED the RUNNING runs whose process on this host is gone, but for train_key `keep`."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if run.data.tags.get("train_key") != keep and is_gone(run.data.tags.get(PROCESS, "")):
            client.set_terminated(run.info.run_id, status="KILLED")


def _tags(record: RunRecord, parent_id: str | None) -> dict[str, str]:
    """The record's tags, and those by which MLflow's own columns are filled."""
    tags = {
        **record.tags,
        "mlflow.source.type": "JOB",
        "mlflow.source.name": f"pipeline.stages.{record.kind}",
        "mlflow.source.git.commit": record.tags["git_commit"],
        "mlflow.source.git.branch": record.tags["git_branch"],
    }
    if parent_id:
        tags["mlflow.parentRunId"] = parent_id
    return tags


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def flat_protocol(protocol: dict[str, Any]) -> dict[str, Any]:
    return lineage.flatten(protocol, "protocol.")
