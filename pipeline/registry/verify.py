"""Does every link from a version to what it came from still hold?"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import files, lineage, paths
from pipeline.datasets import prepared
from pipeline.errors import UserError
from pipeline.registry import fresh, package, promote
from pipeline.registry.lineage import Origin, origin
from pipeline.tracking import locks, models, trials

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

State = Literal["ok", "broken", "not here"]
ROWS = 10_000  # of an array that are hashed at a time


@dataclass(frozen=True)
class Link:
    """`not here`: it can neither be shown to hold nor to be broken on this machine."""

    name: str
    state: State
    text: str


@dataclass(frozen=True)
class _Case:
    client: MlflowClient
    origin: Origin
    folder: Path
    config: dict[str, Any]


def verify(client: MlflowClient, uri: str) -> tuple[Origin, list[Link]]:
    """Every link of a version. Raises UserError where it or its runs are not in the store."""
    found = origin(client, uri)
    folder = models.fetch(found.uri, tag=uri)
    case = _Case(client, found, folder, package.read_config(folder))
    links = []
    for name, check in CHECKS.items():
        try:
            state, text = check(case)
        except UserError as error:
            state, text = "broken", str(error)
        links.append(Link(name, state, text))
    return found, links


def _package(case: _Case) -> tuple[State, str]:
    damage = package.damage(case.folder)
    return ("broken", "; ".join(damage)) if damage else ("ok", "every file as it was written")


def _weights(case: _Case) -> tuple[State, str]:
    digest = files.file_hash(case.folder / package.WEIGHTS)
    recorded = {
        "the package": case.config["weights"]["generator"],
        "the version": case.origin.version.tags.get("weights_sha256"),
    }
    other = [what for what, value in recorded.items() if value != digest]
    if other:
        return "broken", f"SHA-256 {digest[:12]} is not what {' and '.join(other)} recorded"
    return "ok", f"SHA-256 {digest}"


def _sample(case: _Case) -> tuple[State, str]:
    sampled = case.config["sampled"]
    samples, _ = fresh.sample(case.folder, n=sampled["n"], seed=sampled["seed"])
    problems = promote.differing(case.folder, samples, n=sampled["n"], seed=sampled["seed"])
    if problems:
        return "broken", "; ".join(problems)
    return "ok", f"{sampled['n']} samples of seed {sampled['seed']}, drawn afresh"


def _runs(case: _Case) -> tuple[State, str]:
    wrong = [
        f"{what} has {key} {str(run.data.tags.get(key))[:8]}, the package {case.config[key][:8]}"
        for what, run, key in (
            ("the training run", case.origin.training, "train_key"),
            ("the evaluation run", case.origin.evaluation, "eval_key"),
        )
        if run.data.tags.get(key) != case.config[key]
    ]
    if wrong:
        return "broken", "; ".join(wrong)
    return "ok", f"{case.origin.training.info.run_name}, {case.origin.evaluation.info.run_name}"


def _commit(case: _Case) -> tuple[State, str]:
    commit = case.origin.training.data.tags["git_commit"]
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        return "broken", f"{commit} is not in this repository: git fetch may bring it"
    return "ok", commit


def _changes(case: _Case) -> tuple[State, str]:
    tags = case.origin.training.data.tags
    untracked = tags.get("git_untracked")
    if untracked:
        return "broken", f"it was trained with untracked code, which nothing holds: {untracked}"
    if case.origin.diff is None:
        if tags["git_dirty"] == "true":
            return "broken", "the tree had changes, and their diff is not in the store"
        return "ok", "none beyond the commit"
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        diff = Path(scratch) / "changes.diff"
        diff.write_bytes(case.origin.diff)
        _git("read-tree", tags["git_commit"], **index)
        done = _git("apply", "--cached", "--check", str(diff), **index)
    if done.returncode:
        return "broken", f"the diff does not apply to the commit: {done.stderr.strip()[:200]}"
    return "ok", "the recorded diff applies to the commit"


def _params(case: _Case) -> tuple[State, str]:
    if case.origin.params is None:
        return "broken", "params.yaml is not in the store"
    from ruamel.yaml import YAML

    values = lineage.flatten(YAML(typ="safe").load(case.origin.params))
    recorded = case.origin.training.data.params
    texts = {key: x if isinstance(x, str) else json.dumps(x) for key, x in values.items()}
    wrong = [key for key, text in texts.items() if recorded.get(key, text[:6000]) != text[:6000]]
    if wrong:
        return "broken", f"params.yaml and the run differ in {', '.join(wrong[:5])}"
    return "ok", f"{len(texts)} keys"


def _lock(case: _Case) -> tuple[State, str]:
    tag = case.origin.evaluation.data.tags.get(locks.TAG)
    if tag is None:
        return "not here", "no dvc.lock of it was found when it was promoted"
    if case.origin.lock is None or hashlib.sha256(case.origin.lock).hexdigest() != tag:
        return "broken", "dvc.lock in the store is not the one that was recorded"
    outs = {out["path"]: out for out in locks.stage(case.origin.lock, "train").get("outs", [])}
    generator = outs.get(f"{paths.GENERATOR.as_posix()}/", outs.get(paths.GENERATOR.as_posix(), {}))
    return "ok", f"{tag[:12]}; the generator is {generator.get('md5', 'not in it')}"


def _data(case: _Case) -> tuple[State, str]:
    digest = case.config["data_digest"]
    recorded = case.origin.version.tags.get("data_digest", digest)
    if recorded != digest:
        return "broken", f"the version names the data {recorded[:12]}, the package {digest[:12]}"
    try:
        here = prepared.load()
    except UserError:
        return "not here", f"{digest[:12]}: dvc checkout {paths.PREPARED} brings it"
    if here.digest != digest:
        return "not here", f"{digest[:12]}; {paths.PREPARED} has {here.digest[:12]}"
    changed = [
        name
        for name, split in here.manifest["splits"].items()
        if _array_hash(np.load(here.path / f"{name}.npy", mmap_mode="r")) != split["sha256"]
    ]
    if changed:
        return "broken", f"{', '.join(changed)} in {paths.PREPARED} changed: dvc checkout --force"
    return "ok", f"{digest[:12]}: every image as it was"


def _trial(case: _Case) -> tuple[State, str]:
    tags = case.origin.training.data.tags
    if "tune_study" not in tags:
        return "ok", "not of a search"
    study, trial = tags["tune_study"], tags["tune_trial"]
    experiment = case.client.get_experiment(case.origin.training.info.experiment_id)
    found = case.client.get_experiment_by_name(trials.experiment_of(experiment.name))
    if found is not None and case.client.search_runs(
        [found.experiment_id],
        f"tags.{trials.STUDY} = '{study}' and tags.{trials.TRIAL} = '{trial}'",
        max_results=1,
    ):
        return "ok", f"trial {trial} of {study}"
    return "broken", f"trial {trial} of {study} is not in the store"


def _array_hash(array: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(array), ROWS):
        digest.update(np.ascontiguousarray(array[start : start + ROWS]).tobytes())
    return digest.hexdigest()


def _git(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


CHECKS: dict[str, Callable[[_Case], tuple[State, str]]] = {
    "package": _package,
    "weights": _weights,
    "sample": _sample,
    "runs": _runs,
    "commit": _commit,
    "changes": _changes,
    "params": _params,
    "dvc.lock": _lock,
    "data": _data,
    "trial": _trial,
}
