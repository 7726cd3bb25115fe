"""An evaluation by any name that a user has for it: run, key, model version, file or revision.

What names a training stands for its newest evaluation.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import files, paths
from pipeline.errors import UserError
from pipeline.evaluated import Evaluated, Samples
from pipeline.tracking import deliver
from pipeline.tracking.record import RECORD, RunRecord

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

FEWEST_DIGITS = 4  # of a key
MODEL = "models:/"
NEWEST = "attributes.end_time DESC"


def resolve(names: list[str], experiment: str) -> list[Evaluated]:
    """The evaluations that `names` stand for. The store is synced first where one is in there.

    Raises UserError where a name stands for none or for several.
    """
    found = {name: of_path(Path(name)) for name in names}
    rest = [name for name, one in found.items() if one is None]
    if rest:
        for run, reason in deliver.sync().left.items():
            log.warning("%s is not in the store: %s", run, reason)
        client, _ = deliver.reach(experiment)
        for name in rest:
            found[name] = of_store(client, name) or of_revision(name)
            if found[name] is None:
                raise UserError(_unknown(client, name))
    return [one for name in names if (one := found[name]) is not None]


def of_path(path: Path) -> Evaluated | None:
    """The evaluation of a metrics file, or of a folder: a repository, its reports/ or its outs.

    None where there is none. Raises UserError for a metrics file that has no protocol beside it.
    """
    if path.is_dir():
        for file in (path / paths.METRICS, path / paths.METRICS.name):
            if file.is_file():
                return of_path(file)
        if (path / RECORD).is_file() and (path / deliver.PROTOCOL).is_file():
            return _of_outs(path, RunRecord.read(path).metrics, str(path))
        return None
    if path.suffix != ".json":
        return None
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    report = path.parent / paths.EVALUATION_REPORT.name
    folders = [x for x in (report, path.parent) if (x / deliver.PROTOCOL).is_file()]
    if not folders:
        raise UserError(
            f"{path} has no {deliver.PROTOCOL} beside it, nor in {report}: what was measured "
            "under an unknown protocol cannot be compared. In a repository dvc repro evaluate "
            "writes it (dvc pull brings it, where it was pushed); elsewhere copy it there"
        )
    try:
        metrics = {name: float(x) for name, x in files.read_json(path).items() if x is not None}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a flat JSON object of figures: {error}") from error
    # The folder of outs may be of another evaluation; what lies beside the figures is theirs.
    folder = report if report in folders and _figures_of(report) == metrics else folders[-1]
    return _of_outs(folder, metrics, str(path))


def _figures_of(report: Path) -> dict[str, float] | None:
    """Those of the run whose record is in the folder, if there is one."""
    if not (report / RECORD).is_file():
        return None
    return {name: x for name, x in RunRecord.read(report).metrics.items() if x is not None}


def _of_outs(report: Path, metrics: dict[str, Any], name: str) -> Evaluated:
    """`report`: the folder of the protocol and, where it is a stage's out, of the run's record."""
    figures = {key: float(value) for key, value in metrics.items() if value is not None}
    protocol = files.read_json(report / deliver.PROTOCOL)
    if isinstance(protocol, list):  # as it is in git, beside the figures
        protocol = protocol[0]
    of_record = _figures_of(report)
    if of_record is None:
        return Evaluated(name, figures, protocol, missing="only its figures are there")
    if of_record != figures:
        return Evaluated(name, figures, protocol, missing=f"{report} is of another evaluation")
    record = RunRecord.read(report)
    kept = report.parent.parent / paths.EVALUATION
    samples = _read(kept, record.key)
    return Evaluated(record.name, figures, protocol, samples, "" if samples else _missing(kept))


def of_store(client: MlflowClient, name: str) -> Evaluated | None:
    """The evaluation of a run, a key, an experiment or a model version; None where there is none.

    Raises UserError where there are several, or where a training has none.
    """
    run = _run(client, name)
    return _of_run(client, run) if run else None


def run_of(client: MlflowClient, name: str) -> Run:
    """The run of the evaluation that `name` stands for. Raises UserError where there is none."""
    run = _run(client, name)
    if run is None:
        raise UserError(_unknown(client, name))
    return run


def protocol_of(client: MlflowClient, run: Run) -> dict[str, Any]:
    """The protocol of an evaluation's run. Raises UserError where it was not delivered."""
    run_id, name = run.info.run_id, str(run.info.run_name)
    if deliver.PROTOCOL not in {file.path for file in client.list_artifacts(run_id)}:
        raise UserError(
            f"{name} ({run_id}) has no {deliver.PROTOCOL}: its delivery was interrupted. "
            "dvc repro evaluate, then gan sync"
        )
    with tempfile.TemporaryDirectory() as scratch:
        client.download_artifacts(run_id, deliver.PROTOCOL, scratch)
        found: dict[str, Any] = files.read_json(Path(scratch) / deliver.PROTOCOL)
        return found


def _run(client: MlflowClient, name: str) -> Run | None:
    return _model_version(client, name) if name.startswith(MODEL) else _find(client, name)


def _find(client: MlflowClient, name: str) -> Run | None:
    """The evaluation's run. An exact name goes before a prefix."""
    if not re.fullmatch(r"[\w .:/@-]+", name):
        return None
    experiments = _experiments(client)

    def search(condition: str) -> list[Run]:
        return list(client.search_runs(experiments, condition, order_by=[NEWEST]))

    if re.fullmatch("[0-9a-f]{32}", name) and (exact := search(f"attributes.run_id = '{name}'")):
        return _evaluation_of(client, exact[0])
    named = search(f"attributes.run_name = '{name}'")
    if named:
        return _one(name, [_evaluation_of(client, run) for run in named])
    # The name now stands for the newest, as it does in DVC.
    tagged = search(f"tags.dvc_exp_name = '{name}'")
    for run in sorted(tagged, key=lambda run: run.data.tags["dvc_stage"]):  # evaluate, then train
        return _evaluation_of(client, run)
    if not re.fullmatch(f"[0-9a-f]{{{FEWEST_DIGITS},64}}", name):
        return None
    evaluations = search(f"tags.eval_key LIKE '{name}%'")
    trainings = search(f"tags.train_key LIKE '{name}%' and tags.dvc_stage = 'train'")
    return _one(name, [_evaluation_of(client, run) for run in [*evaluations, *trainings]])


def _experiments(client: MlflowClient) -> list[str]:
    return [x.experiment_id for x in client.search_experiments()]


def _evaluation_of(client: MlflowClient, run: Run) -> Run:
    """The run itself, or the newest evaluation of a training."""
    if run.data.tags.get("dvc_stage") != "train":
        return run
    found = client.search_runs(
        [run.info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and tags.dvc_stage = 'evaluate'",
        max_results=1,
        order_by=[NEWEST],
    )
    if not found:
        raise UserError(f"{run.info.run_name} has no evaluation yet: dvc repro evaluate")
    return found[0]


def _one(name: str, found: Iterable[Run]) -> Run | None:
    by_id = {run.info.run_id: run for run in found}
    if len(by_id) > 1:
        lines = [
            f"  {run.info.run_id}  {run.info.run_name}, {_when(run)}" for run in by_id.values()
        ]
        raise UserError(f"{name} stands for several evaluations; name one:\n" + "\n".join(lines))
    return next(iter(by_id.values()), None)


def _when(run: Run) -> str:
    ended = run.info.end_time or run.info.start_time
    return datetime.fromtimestamp(ended / 1000).strftime("%Y-%m-%d %H:%M")


def _model_version(client: MlflowClient, name: str) -> Run:
    from mlflow.exceptions import MlflowException

    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))", name)
    if match is None:
        raise UserError(f"{name}: write models:/name/version or models:/name@alias")
    model, version, alias = match.groups()
    try:
        if version:
            found = client.get_model_version(model, version)
        else:
            found = client.get_model_version_by_alias(model, alias)
        run_id = found.tags.get("evaluation_run") or found.run_id
        if not run_id and found.model_id:
            run_id = client.get_logged_model(found.model_id).source_run_id
        run = client.get_run(run_id) if run_id else None
    except MlflowException as error:
        raise UserError(f"{name}: {error.message}") from error
    if run is None:
        raise UserError(f"{name} does not say which run it came from")
    return _evaluation_of(client, run)


def _of_run(client: MlflowClient, run: Run) -> Evaluated:
    run_id, name = run.info.run_id, str(run.info.run_name)
    if run.data.tags.get("dvc_stage") != "evaluate":
        raise UserError(f"{name} ({run_id}) is not a run of this pipeline")
    protocol = protocol_of(client, run)
    there = {file.path for file in client.list_artifacts(run_id)}
    with tempfile.TemporaryDirectory() as scratch:
        key, samples = run.data.tags["eval_key"], None
        if deliver.KEPT in there:
            samples = _read(Path(client.download_artifacts(run_id, deliver.KEPT, scratch)), key)
        # Too large for the store, but made here.
        samples = samples or _read(paths.EVALUATION, key)
    missing = run.data.tags.get(deliver.NOT_KEPT, "the features of its samples were not kept")
    return Evaluated(name, run.data.metrics, protocol, samples, "" if samples else missing)


def of_revision(name: str) -> Evaluated | None:
    """The evaluation of a git revision or a DVC experiment; None where there is no such revision.

    Git has its figures and their protocol, DVC's cache, or not, its samples. Raises UserError where
    there are no figures, or they are older than the protocol beside them and not in the cache.
    """
    if not _is_revision(name):
        return None
    from dvc.api import DVCFileSystem

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        try:
            tree = DVCFileSystem(rev=name)
        except Exception as error:  # DVC's, of its many parts
            raise UserError(
                f"the revision {name} cannot be read: {deliver.reason(error)}"
            ) from error
        for path in (paths.METRICS, paths.PROTOCOL, paths.EVALUATION_REPORT, paths.EVALUATION):
            try:
                tree.get(str(path), str(root / path), recursive=True)
            except Exception:  # what is not there is told below, or compared without
                shutil.rmtree(root / path, ignore_errors=True)
        if not (root / paths.METRICS).is_file():
            raise UserError(
                f"the revision {name} has no evaluation here: it lacks {paths.METRICS}. "
                f"git log -- {paths.METRICS} shows the commits that have one"
            )
        report = root / paths.EVALUATION_REPORT
        if not any(x.is_file() for x in (root / paths.PROTOCOL, report / deliver.PROTOCOL)):
            raise UserError(
                f"the revision {name} has no evaluation here that could be compared: git has no "
                f"{paths.PROTOCOL} of it, nor DVC's cache its {paths.EVALUATION_REPORT}. "
                "git checkout it and dvc pull (where it was pushed) or dvc repro"
            )
        found = of_path(root)
    if found is None or found.samples:
        return found
    missing = f"DVC's cache lacks its {paths.EVALUATION}: dvc fetch brings it, where it was pushed"
    return Evaluated(name, found.metrics, found.protocol, missing=missing)


def _is_revision(name: str) -> bool:
    """Is it a commit, or a DVC experiment?"""
    commands = (
        ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"],
        ["git", "for-each-ref", "--count=1", f"refs/exps/*/*/{name}"],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0 and done.stdout:
            return True
    return False


def _read(folder: Path, eval_key: str) -> Samples | None:
    """The samples in `folder`, if they are those of this evaluation."""
    if not deliver.is_of(folder, eval_key):
        return None
    try:
        return Samples.read(folder)
    except FileNotFoundError:
        return None


def _missing(folder: Path) -> str:
    return f"{folder} does not hold the features of its samples"


def _unknown(client: MlflowClient, name: str) -> str:
    import difflib

    found = client.search_runs(_experiments(client), max_results=200)
    runs = {str(run.info.run_name) for run in found}
    runs |= {run.data.tags["dvc_exp_name"] for run in found if "dvc_exp_name" in run.data.tags}
    close = difflib.get_close_matches(name, runs, n=3)
    hint = f" (there is {', '.join(close)})" if close else ""
    return (
        f"{name} is no run, key, experiment, model version, metrics file or revision{hint}: "
        "gan ui shows the runs"
    )
