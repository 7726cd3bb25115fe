"""The dvc.lock that goes with an evaluation: it names every input and out by hash.

While a stage runs, dvc.lock still has the old values, so it is attached to the runs afterwards. It
is known by the hash of reports/metrics.json, which only the lock of this evaluation holds.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.tracking.record import RunRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOCK = "dvc.lock"
FOLDER = "config"  # the artifact folder
TAG = "dvc_lock_sha256"
METRICS_TAG = "metrics_md5"
COMMITS = 200  # the newest ones that are searched


def metrics_md5(record: RunRecord) -> str:
    """What DVC's lock says of the reports/metrics.json that the evaluation wrote."""
    text = json.dumps(record.metrics, indent=2, allow_nan=False) + "\n"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def of_workspace(md5: str, root: Path = Path()) -> bytes | None:
    """dvc.lock in `root`, if it is of that evaluation."""
    path = root / LOCK
    content = path.read_bytes() if path.is_file() else b""
    return content if _is_of(content, md5) else None


def of_git(md5: str, experiment: str | None) -> bytes | None:
    """The dvc.lock of that evaluation in a DVC experiment's commit, or in any other."""
    refs: list[str] = []
    if experiment:
        refs += _git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{experiment}")
    refs += _git("log", "--all", f"--max-count={COMMITS}", "--format=%H", "--", LOCK)
    for ref in refs:
        done = subprocess.run(["git", "show", f"{ref}:{LOCK}"], capture_output=True, check=False)
        if not done.returncode and _is_of(done.stdout, md5):
            return done.stdout
    return None


def attach(client: MlflowClient, run_ids: list[str], content: bytes) -> str:
    """Log the lock on runs that lack it; its SHA-256."""
    digest = hashlib.sha256(content).hexdigest()
    for run_id in run_ids:
        if client.get_run(run_id).data.tags.get(TAG) != digest:
            client.log_text(run_id, content.decode(), f"{FOLDER}/{LOCK}")
            client.set_tag(run_id, TAG, digest)
    return digest


def stage(content: bytes, name: str) -> dict[str, Any]:
    """What a lock says of one stage; {} where it has no such stage."""
    from ruamel.yaml import YAML

    found = YAML(typ="safe").load(content) or {}
    entry: dict[str, Any] = found.get("stages", {}).get(name, {})
    return entry


def _is_of(content: bytes, md5: str) -> bool:
    if md5.encode() not in content:
        return False
    outs = stage(content, "evaluate").get("outs", [])
    return any(out["path"] == paths.METRICS.as_posix() and out.get("md5") == md5 for out in outs)


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.split() if not done.returncode else []
