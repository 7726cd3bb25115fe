"""From the stages' outs to the MLflow store, and where they wait while it cannot be reached.

Every `deliver_*` reads a folder laid out as the repository is. What is there already is left alone,
so each may be called again at any time, also after it was interrupted.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import files, paths
from pipeline.errors import UserError
from pipeline.evaluated import ABOUT
from pipeline.tracking import locks, models, runs, store
from pipeline.tracking.record import DIFF, PARAMS, RECORD, RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

HISTORY = "history.csv"
EVENTS = "events.csv"
PROTOCOL = "protocol.json"
REPORT_TAG = "report_sha256"
SAMPLES = "samples"
REALS = "reals"
KEPT = "evaluation"  # the artifact folder of what an evaluation keeps of its samples
KEPT_BYTES = 64 * 2**20  # a run that holds more would fill the store
NOT_KEPT = "samples_not_kept"  # the tag that says why a run has no such folder


class Delivery(NamedTuple):
    run_id: str
    changed: bool  # False: the store held all of it


@dataclass
class Summary:
    """What `sync` did: names of runs, and of those that stay behind the reason."""

    delivered: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def deliver_training(client: MlflowClient, experiment_id: str, folder: Path) -> Delivery:
    """Make the training run hold what `folder`/reports/train does."""
    source = folder / paths.TRAIN_REPORT
    record = RunRecord.read(source)
    with _exclusive(client, experiment_id, record) as run:
        run_id = run.info.run_id
        if run.data.tags.get(runs.DELIVERED) == record.digest():
            return Delivery(run_id, False)
        runs.describe(client, run, record, record.params)
        rows = read_history(source / HISTORY)
        after = runs.last_step(client, run_id)
        runs.log_history(client, run_id, rows, started=record.started, after=after)
        _log_grids(client, run_id, source, record)
        _log_files(client, run_id, source, record)
        client.log_artifact(run_id, source / HISTORY)
        if (source / EVENTS).exists():
            client.log_artifact(run_id, source / EVENTS)
        _complete(client, run_id, record)
    return Delivery(run_id, True)


def deliver_evaluation(client: MlflowClient, experiment_id: str, folder: Path) -> Delivery:
    """Make the evaluation's run, a child of its training's, hold `folder`/reports/evaluation.

    The training run shows the figures of its newest evaluation too. Raises UserError where the
    training is neither in the store nor in `folder`.
    """
    from mlflow.entities import LoggedModelInput, Metric

    source = folder / paths.EVALUATION_REPORT
    record = RunRecord.read(source)
    parent_id = _training_run(client, experiment_id, folder, record)
    with _exclusive(client, experiment_id, record, parent_id) as run:
        run_id = run.info.run_id
        if run.data.tags.get(runs.DELIVERED) == record.digest():
            return Delivery(run_id, False)
        protocol = runs.flat_protocol(files.read_json(source / PROTOCOL))
        runs.describe(client, run, record, {**record.params, **protocol}, parent_id)
        link: dict[str, str] = {
            "dataset_name": record.dataset["name"],
            "dataset_digest": runs.digest(record),
        }
        model = models.log(client, experiment_id, parent_id, folder / paths.PACKAGE, record)
        if model:
            client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])
            link["model_id"] = model.model_id
        # All at step 0: the newest evaluation then shows, whichever checkpoint it took.
        ended = record.ended or record.started
        figures = {key: value for key, value in record.metrics.items() if value is not None}
        client.log_batch(
            run_id, metrics=[Metric(key, value, ended, 0, **link) for key, value in figures.items()]
        )
        client.log_batch(
            parent_id, metrics=[Metric(key, value, ended, 0) for key, value in figures.items()]
        )
        samples = source / "samples.png"
        if samples.exists() and (SAMPLES, 0) not in runs.logged_images(client, run_id):
            runs.log_image(client, run_id, samples, key=SAMPLES, step=0, timestamp=ended)
        _log_files(client, run_id, source, record)
        client.log_artifact(run_id, source / PROTOCOL)
        _log_kept(client, run_id, folder / paths.EVALUATION, record)
        client.set_tag(run_id, locks.METRICS_TAG, locks.metrics_md5(record))
        _complete(client, run_id, record)
    return Delivery(run_id, True)


def deliver_report(client: MlflowClient, experiment_id: str, folder: Path) -> Delivery:
    """Put `folder`/reports/index.html on the evaluation that it is about and on its training.

    Raises UserError where the page is about another evaluation than the one in `folder`.
    """
    page = folder / paths.REPORT
    record = _record_of("evaluate", folder)
    if report_key(page) != record.key:
        raise UserError(f"{page} is not about {_label(record)}: run dvc repro")
    run_id = deliver_evaluation(client, experiment_id, folder).run_id
    content = files.file_hash(page)
    with _exclusive(client, experiment_id, record) as run:
        if run.data.tags.get(REPORT_TAG) == content:
            return Delivery(run_id, False)
        client.log_artifact(run.data.tags["mlflow.parentRunId"], page)
        client.log_artifact(run_id, page)
        client.set_tag(run_id, REPORT_TAG, content)
    return Delivery(run_id, True)


def report_key(page: Path) -> str | None:
    """The eval_key that a page is about: its `<meta name="eval-key" content="...">`."""
    with page.open(encoding="utf-8") as file:
        head = file.read(4096)
    match = re.search(r'<meta name="eval-key" content="(\w+)"', head)
    return match[1] if match else None


def deliver_or_keep(stage: str, root: Path = Path()) -> bool:
    """What a stage (`train`, `evaluate`, `report`) calls when its outs are written.

    Returns False, after one warning, where the store did not take them: they are kept then, and
    `sync` delivers them. It never raises for what MLflow does, so no stage fails by its tracking.
    """
    try:
        client, experiment_id = store.ready(_record_of(stage, root).experiment)
        DELIVER[stage](client, experiment_id, root)
    except Exception as error:  # MLflow, requests, SQLAlchemy and storage clients raise their own
        log.debug("delivery failed", exc_info=True)
        try:
            kept = keep_back(stage, root)
        except OSError as full:
            log.warning(
                "MLflow at %s failed (%s), nor can the run be kept: %s; its outs are whole",
                store.shown_uri(),
                reason(error),
                full,
            )
            return False
        log.warning(
            "MLflow at %s did not take this run (%s). It is kept in %s; `gan sync` delivers it.",
            store.shown_uri(),
            reason(error),
            kept,
        )
        return False
    return True


def keep_back(stage: str, root: Path = Path()) -> Path:
    """Copy the outs that `sync` needs of this run to `paths.undelivered()`, and return where."""
    record = _record_of(stage, root)
    training = root / paths.TRAIN_REPORT
    folders = [root / paths.EVALUATION_REPORT] if record.kind == "evaluate" else []
    if _has_record(training) and RunRecord.read(training).key == (record.train_key or record.key):
        folders.append(training)
    with files.atomic_folder(paths.undelivered() / record.key) as kept:
        for source in folders:
            shutil.copytree(source, kept / source.relative_to(root))
        samples = root / paths.EVALUATION
        if record.kind == "evaluate" and not _why_not_kept(samples, record):
            shutil.copytree(samples, kept / paths.EVALUATION)
        package = root / paths.PACKAGE
        if record.kind == "evaluate" and models.is_of(package, record.key):
            shutil.copytree(package, kept / paths.PACKAGE)
        if stage == "report":
            shutil.copy2(root / paths.REPORT, kept / paths.REPORT)
    return paths.undelivered() / record.key


def sync(root: Path = Path()) -> Summary:
    """Deliver all that was kept back, then the outs in the workspace. Only adds to the store.

    What is delivered is removed from where it was kept. Raises UserError where the store cannot be
    reached; MLflow is not even imported where there is nothing to deliver.
    """
    summary = Summary()
    kept = [folder for folder in paths.undelivered().glob("*") if not folder.name.startswith(".")]
    for folder in [*sorted(kept, key=_ended), root]:
        failed = False
        for stage in DELIVER:
            if not _is_there(stage, folder):
                continue
            record = _record_of(stage, folder)
            name = _label(record) + (" report" if stage == "report" else "")
            client, experiment_id = reach(record.experiment)
            try:
                delivery = DELIVER[stage](client, experiment_id, folder)
            except Exception as error:  # one broken run must not hold back the others
                log.debug("%s stays", name, exc_info=True)
                summary.left[name] = reason(error)
                failed = True
            else:
                (summary.delivered if delivery.changed else summary.unchanged).append(name)
        if folder is not root and not failed:
            shutil.rmtree(folder)
    if _is_there("evaluate", root) and not summary.left:
        _attach_lock(root)
    return summary


def _attach_lock(root: Path) -> None:
    record = _record_of("evaluate", root)
    content = locks.of_workspace(locks.metrics_md5(record), root)
    if content is None:
        return
    client, experiment_id = reach(record.experiment)
    run = runs.find(client, experiment_id, "evaluate", record.key)
    if run is not None and locks.TAG not in run.data.tags:
        locks.attach(client, [run.info.run_id, run.data.tags["mlflow.parentRunId"]], content)


def reason(error: BaseException) -> str:
    """One line on what went wrong: the cause where it lies in the system or the network."""
    cause = error
    while further := cause.__cause__ or cause.__context__:
        cause = further
    text = str(cause if isinstance(cause, OSError) else error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line if len(line) <= 200 else f"{line[:200]}..."


def read_history(path: Path) -> list[dict[str, float | None]]:
    """The rows of a history.csv; None where a cell is empty."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key: float(cell) if cell else None for key, cell in row.items()}
            for row in csv.DictReader(file)
        ]


def reach(experiment: str) -> tuple[MlflowClient, str]:
    try:
        return store.ready(experiment)
    except UserError:
        raise
    except Exception as error:  # as in deliver_or_keep
        raise UserError(
            f"MLflow at {store.shown_uri()} cannot be reached ({reason(error)}); nothing is lost: "
            "start it, or mend MLFLOW_TRACKING_URI, and run gan sync again"
        ) from error


@contextlib.contextmanager
def _exclusive(
    client: MlflowClient, experiment_id: str, record: RunRecord, parent_id: str | None = None
) -> Iterator[Run]:
    """The run of `record`, which nobody else here delivers meanwhile; other runs they may."""
    with store.lock(record.key):
        with store.lock():
            run = runs.find_or_create(client, experiment_id, record, parent_id)
        yield run


def _training_run(
    client: MlflowClient, experiment_id: str, folder: Path, evaluation: RunRecord
) -> str:
    training = folder / paths.TRAIN_REPORT
    if _has_record(training) and RunRecord.read(training).key == evaluation.train_key:
        return deliver_training(client, experiment_id, folder).run_id
    run = runs.find(client, experiment_id, "train", evaluation.train_key)
    if run is None:
        raise UserError(
            f"{evaluation.name}: its training {evaluation.train_key[:8]} is neither tracked nor "
            "here; dvc checkout, then gan sync"
        )
    return str(run.info.run_id)


def _log_grids(client: MlflowClient, run_id: str, source: Path, record: RunRecord) -> None:
    there = runs.logged_images(client, run_id)
    for path in sorted((source / "grids").glob("*.png")):
        key, step = grid_key(path)
        if (key, step) not in there:
            runs.log_image(client, run_id, path, key=key, step=step, timestamp=record.started)


def grid_key(path: Path) -> tuple[str, int]:
    """Key and step of a grid by its file name: step_000500.png -> ("samples", 500)."""
    match = re.fullmatch(r"step_(\d+)", path.stem)
    return (SAMPLES, int(match[1])) if match else (path.stem, 0)


def _log_files(client: MlflowClient, run_id: str, source: Path, record: RunRecord) -> None:
    if record.params_yaml:
        client.log_artifact(run_id, source / PARAMS, "config")
    if record.diff:
        # MLflow's UI shows no file that ends in .diff.
        client.log_text(run_id, record.diff, f"code/{DIFF}.txt")


def _log_kept(client: MlflowClient, run_id: str, kept: Path, record: RunRecord) -> None:
    """What `gan compare` needs of the samples, or why it is not there."""
    reason = _why_not_kept(kept, record)
    if reason:
        client.set_tag(run_id, NOT_KEPT, reason)
    else:
        client.log_artifacts(run_id, str(kept), KEPT)


def _why_not_kept(kept: Path, record: RunRecord) -> str:
    if not is_of(kept, record.key):
        return "the features of its samples were not there when it was delivered"
    size = sum(file.stat().st_size for file in kept.iterdir())
    if size > KEPT_BYTES:
        return (
            f"the features of its samples are {size / 2**20:.0f} MB, and a run keeps at most "
            f"{KEPT_BYTES / 2**20:.0f} MB"
        )
    return ""


def is_of(kept: Path, eval_key: str) -> bool:
    """Does the folder hold the samples of this evaluation?"""
    about = kept / ABOUT
    return about.exists() and files.read_json(about)["eval_key"] == eval_key


def _complete(client: MlflowClient, run_id: str, record: RunRecord) -> None:
    client.set_terminated(run_id, status=record.status, end_time=record.ended)
    client.set_tag(run_id, runs.DELIVERED, record.digest())


def _has_record(folder: Path) -> bool:
    return (folder / RECORD).exists()


def _is_there(stage: str, folder: Path) -> bool:
    if not _has_record(folder / FOLDERS[stage]):
        return False
    page = folder / paths.REPORT
    # After a new evaluation the old page stays until the report stage has run.
    return stage != "report" or (
        page.exists() and report_key(page) == _record_of("evaluate", folder).key
    )


def _label(record: RunRecord) -> str:
    key = record.key[:8]
    return record.name if key in record.name else f"{record.name} ({key})"


def _record_of(stage: str, folder: Path) -> RunRecord:
    return RunRecord.read(folder / FOLDERS[stage])


def _ended(folder: Path) -> int:
    stage = "evaluate" if _is_there("evaluate", folder) else "train"
    return _record_of(stage, folder).ended or 0


FOLDERS = {
    "train": paths.TRAIN_REPORT,
    "evaluate": paths.EVALUATION_REPORT,
    "report": paths.EVALUATION_REPORT,
}

DELIVER: dict[str, Callable[[Any, str, Path], Delivery]] = {
    "train": deliver_training,
    "evaluate": deliver_evaluation,
    "report": deliver_report,
}
