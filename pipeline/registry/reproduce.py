"""Train a registered model again, from its commit, its changes and its params, with no cache.

In a git worktree of its own, whose DVC cache and MLflow store are empty: nothing can be taken from
the first time. On the same hardware and versions the weights must be the same, bit for bit; on
others every figure must lie within its interval.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import compare, files, paths
from pipeline.errors import UserError
from pipeline.evaluated import Evaluated
from pipeline.processes import run_patiently
from pipeline.registry.lineage import Origin, origin
from pipeline.tracking import deliver, evaluations, models
from pipeline.tracking.record import PARAMS, RunRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

HARDWARE = ("device", "precision")  # tags of a training run
FETCHED = Path(".cache/init_from")


@dataclass(frozen=True)
class Reproduced:
    """`verdict`: identical, within intervals, or differs. `outside`: figures beyond theirs."""

    uri: str
    verdict: str
    text: str
    weights: str
    outside: list[str] = field(default_factory=list)
    folder: str | None = None


def reproduce(client: MlflowClient, uri: str, *, keep: bool = False) -> Reproduced:
    """Train and evaluate it again; as long as that takes. `keep` leaves the worktree there.

    Raises UserError where what it was made of is not all recorded, or is gone.
    """
    found = origin(client, uri)
    _refuse_unrecorded(found)
    before = _as_it_was(client, found)
    with _worktree(found.training.data.tags["git_commit"], keep) as folder:
        _restore(folder, found)
        _run(folder, "dvc", "repro", "evaluate")
        result = _judge(found, before, folder)
        return Reproduced(**{**vars(result), "folder": str(folder) if keep else None})


def _as_it_was(client: MlflowClient, found: Origin) -> Evaluated:
    """The figures as they were."""
    protocol = evaluations.protocol_of(client, found.evaluation)
    return Evaluated(found.uri, found.evaluation.data.metrics, protocol, missing="trained anew")


def _refuse_unrecorded(found: Origin) -> None:
    tags = found.training.data.tags
    if "git_untracked" in tags:
        raise UserError(
            f"{found.uri} was trained with code that git did not track, and nothing holds it: "
            f"{tags['git_untracked']}. Commit code before training what is to be reproduced"
        )
    if tags["git_dirty"] == "true" and found.diff is None:
        raise UserError(f"{found.uri} was trained with changes whose diff is not in the store")
    if found.params is None:
        raise UserError(f"{found.uri}: its params.yaml is not in the store")


@contextlib.contextmanager
def _worktree(commit: str, keep: bool) -> Iterator[Path]:
    """A checkout of the commit beside everything else."""
    folder = Path(tempfile.mkdtemp(prefix="gan-reproduce-")) / "project"
    done = subprocess.run(
        ["git", "worktree", "add", "--detach", str(folder), commit],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(
            f"commit {commit[:12]} cannot be checked out ({done.stderr.strip().splitlines()[-1]}): "
            "git fetch may bring it"
        )
    try:
        yield folder
    finally:
        if keep:
            log.info("left in %s; git worktree remove --force takes it away", folder)
        else:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(folder)],
                capture_output=True,
                check=False,
            )
            shutil.rmtree(folder.parent, ignore_errors=True)


def _restore(folder: Path, found: Origin) -> None:
    """Changes, params, and data that git does not hold, as they were."""
    from ruamel.yaml import YAML

    if found.diff:
        diff = folder.parent / "changes.diff"
        diff.write_bytes(found.diff)
        _run(folder, "git", "apply", str(diff))
    text = found.evaluated_params or found.params or b""
    files.write_bytes(folder / PARAMS, text)
    yaml = YAML()
    values = yaml.load(text)
    given = values.get("model", {}).get("init_from")
    if given and str(given).startswith(evaluations.MODEL):
        # The store here is out of the worktree's reach; what counts is what is in the files.
        shutil.copytree(models.fetch(given), folder / FETCHED)
        values["model"]["init_from"] = FETCHED.as_posix()
        with (folder / PARAMS).open("w", encoding="utf-8") as file:
            yaml.dump(values, file)
    here = paths.shared_root()
    downloads = folder / ".cache" / "downloads"
    if paths.downloads().exists():
        downloads.parent.mkdir(parents=True, exist_ok=True)
        downloads.symlink_to(paths.downloads())
    added = [str(path.relative_to(folder)) for path in folder.rglob("*.dvc") if path.is_file()]
    if added:
        cache = here / ".dvc" / "cache"
        _run(folder, "dvc", "remote", "add", "--local", "--force", "--default", "here", str(cache))
        _run(folder, "dvc", "pull", *added)


def _judge(found: Origin, before: Evaluated, folder: Path) -> Reproduced:
    made = files.read_json(folder / paths.GENERATOR / "config.json")
    wanted = found.version.tags["weights_sha256"]
    which = files.read_json(folder / paths.PACKAGE / "artifacts/model/config.json")["checkpoint"]
    weights = made["weights"][which]
    if made["train_key"] != found.training.data.tags["train_key"]:
        raise UserError(
            f"{found.uri}: code, data or params are not those of its training (train_key "
            f"{made['train_key'][:8]} in place of {found.training.data.tags['train_key'][:8]}): "
            "not all of it was recorded, or another precision was chosen here"
        )
    if weights == wanted:
        return Reproduced(found.uri, "identical", "the same weights, bit for bit", weights)
    record = RunRecord.read(folder / paths.TRAIN_REPORT)
    protocol = files.read_json(folder / paths.EVALUATION_REPORT / deliver.PROTOCOL)
    unlike = _unlike(found, before.protocol, record, protocol)
    metrics = {k: v for k, v in files.read_json(folder / paths.METRICS).items() if v is not None}
    now = Evaluated("trained anew", metrics, protocol, missing="trained anew")
    figures = compare.compare(before, now).figures
    outside = [x.key for x in figures if x.low is not None and not x.low <= 0 <= (x.high or 0)]
    judged = sum(x.low is not None for x in figures)
    if not unlike:
        text = "other weights, though hardware and versions are the same"
        return Reproduced(found.uri, "differs", text, weights, outside)
    where = f"other weights, as {'; '.join(unlike)}"
    if outside:
        text = f"{where}; beyond their intervals: {', '.join(outside)}"
        return Reproduced(found.uri, "differs", text, weights, outside)
    text = f"{where}; all {judged} figures that have an interval lie within it"
    return Reproduced(found.uri, "within intervals", text, weights)


def _unlike(
    found: Origin, before: dict[str, Any], record: RunRecord, now: dict[str, Any]
) -> list[str]:
    """What of hardware and versions is not as it was."""
    tags = found.training.data.tags
    pairs = {key: (tags.get(key), record.tags.get(key)) for key in HARDWARE}
    pairs["processor"] = (tags.get("processor"), record.tags.get("processor"))
    old, new = (x.get("versions", {}) for x in (before, now))
    pairs |= {key: (old.get(key), new.get(key)) for key in old.keys() | new.keys()}
    return [f"{key} was {x} and is {y}" for key, (x, y) in pairs.items() if x != y]


def _run(folder: Path, *command: str) -> None:
    """Run it there with nothing of this workspace's environment. Raises UserError."""
    hidden = ("DVC_", "MLFLOW_", "PYTHONPATH", "GIT_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    kept["MLFLOW_DISABLE_TELEMETRY"] = "true"
    if run_patiently(command, cwd=folder, env=kept):
        raise UserError(f"`{' '.join(command)}` failed in the worktree: see above")
