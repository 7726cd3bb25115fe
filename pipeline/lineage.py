"""What a result came from: the files and params of a stage, hashed, and the state of git.

Keys are computed here and never read from dvc.lock, which holds the old values while a stage runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from pipeline import files, paths
from pipeline.errors import UserError

MANIFESTS = ("manifest.json", "config.json")
NOT_CODE = ("dvc.lock", "reports")  # `dvc repro` rewrites them: they make no tree dirty

Inputs = dict[str, dict[str, Any]]


def stage_inputs(
    stage: str,
    params: dict[str, Any],
    dvc_yaml: Path = paths.DVC_YAML,
    root: Path = Path(),
    *,
    code_only: bool = False,
) -> Inputs:
    """What dvc.yaml says that `stage` depends on: `{"files": {path: sha256}, "params": {...}}`.

    `params` is params.yaml as nested dictionaries. A folder stands for its manifest (manifest.json
    or config.json); one that has none, for every file in it. `code_only` leaves out what is not
    the pipeline's code. Raises UserError where one is missing.
    """
    from ruamel.yaml import YAML

    definition = YAML(typ="safe").load(root / dvc_yaml)["stages"][stage]
    hashes: dict[str, str] = {}
    for dependency in definition.get("deps", []):
        path = _resolve(dependency, params)
        if code_only and not path.startswith("pipeline/"):
            continue
        for file in _files(root / path, stage):
            hashes[file.relative_to(root).as_posix()] = files.file_hash(file)
    values = {key: _lookup(params, key) for key in definition.get("params", [])}
    return {"files": hashes, "params": values}


def stage_key(inputs: Inputs, train_key: str = "") -> str:
    """The name of a stage's result by its inputs: the same inputs give the same key.

    An evaluation's key also holds the `train_key` of the training that it evaluates.
    """
    return files.json_hash({**inputs, "train_key": train_key} if train_key else inputs)


def difference(before: Inputs, after: Inputs) -> list[str]:
    """The changes from `before` to `after`, one line each, params first."""
    old, new = flatten(before["params"]), flatten(after["params"])
    keys = old.keys() | new.keys()
    # An empty mapping that is filled is told by what it is filled with.
    filled = {key.rpartition(".")[0] for key in keys}
    lines = [
        f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}"
        for key in sorted(keys - filled)
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    ]
    for path in sorted(before["files"].keys() | after["files"].keys()):
        if path not in after["files"]:
            lines.append(f"{path} no longer used")
        elif path not in before["files"]:
            lines.append(f"{path} added")
        elif before["files"][path] != after["files"][path]:
            lines.append(f"{path} changed")
    return lines


def flatten(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"lr_g": 1e-4}}` as `{"train.lr_g": 1e-4}`; lists, and `{}`, as JSON text."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(value) if isinstance(value, list | dict) else value
    return flat


def tuned_mark(study: str, trial: int, params: dict[str, Any]) -> str:
    """What `tune.applied` says of settings that a trial found: study, trial, and their hash."""
    return f"{study}/{trial}/{_settings_hash(params)}"


def tuned_tags(params: dict[str, Any]) -> dict[str, str]:
    """Study and trial that these params (nested) came from, as tags; none once they are changed."""
    mark = params["tune"]["applied"]
    if not mark:
        return {}
    study, trial, digest = mark.rsplit("/", 2)
    if digest != _settings_hash(params):
        return {}
    return {"tune_study": study, "tune_trial": trial}


def _settings_hash(params: dict[str, Any]) -> str:
    return files.json_hash({name: params[name] for name in ("model", "loss", "train")})[:8]


def exp_name() -> str | None:
    """The DVC experiment that this process belongs to, if any."""
    return os.environ.get("DVC_EXP_NAME") or None


def processor() -> str:
    """The processor in words: sums round otherwise on another."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_facts(root: Path = Path()) -> dict[str, str]:
    """The state of the code: `git_commit`, `git_branch`, `git_dirty`, `git_baseline`, `git_diff`.

    `git_diff` is what `git apply` needs to get from the commit to the tracked files as they are.
    `git_untracked`, where there is any, names new code in pipeline/ that git does not track yet.
    `git_dirty` is "true" or "false"; dvc.lock and reports/ do not count, nor do untracked files
    outside pipeline/. In a DVC experiment the commit is the baseline. Raises UserError where there
    is no git, no repository or no commit.
    """
    try:
        commit = _git(root, "rev-parse", "--verify", "HEAD").strip()
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise UserError(
            f"{root.resolve()} has no git commit to trace results back to; make one: "
            "git init && git add -A && git commit -m start"
        ) from error
    try:
        return _facts(root, commit)
    except subprocess.CalledProcessError as error:  # `git diff` writes an index where it is stale
        reason = error.stderr.strip().splitlines()[-1] if error.stderr.strip() else error
        raise UserError(
            f"git {error.cmd[1]} failed ({reason}): if no space is left on the disk, or files may "
            "not grow that large (ulimit -f), mend that and run the same command again"
        ) from error


def _facts(root: Path, commit: str) -> dict[str, str]:
    excluded = [f":(exclude){path}" for path in NOT_CODE]
    status = _git(root, "status", "--porcelain", "--untracked-files=all", "--", ".", *excluded)
    untracked = [line[3:] for line in status.splitlines() if line.startswith("?? pipeline/")]
    changed = [line for line in status.splitlines() if not line.startswith("??")]
    facts = {
        "git_commit": commit,
        "git_branch": _git(root, "rev-parse", "--abbrev-ref", "HEAD").strip(),
        "git_dirty": "true" if changed or untracked else "false",
        "git_baseline": os.environ.get("DVC_EXP_BASELINE_REV") or commit,
        "git_diff": _git(
            root, "diff", "HEAD", "--no-ext-diff", "--no-color", "--binary", "--", ".", excluded[1]
        ),
    }
    if untracked:  # no diff holds it
        facts["git_untracked"] = " ".join(untracked)
    return facts


def _git(root: Path, *arguments: str) -> str:
    # Reading the status would otherwise take the index lock from a git command of the user's.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env=environment,
        restore_signals=False,  # a limit on file sizes is then an error, not a signal
        check=True,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    return done.stdout


def _resolve(template: str, params: dict[str, Any]) -> str:
    return re.sub(r"\$\{\s*([\w.]+)\s*\}", lambda match: str(_lookup(params, match[1])), template)


def _lookup(params: dict[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"params.yaml lacks {key}, which dvc.yaml names")
        value = value[part]
    return value


def _files(path: Path, stage: str) -> list[Path]:
    if not path.exists():
        raise UserError(
            f"{path}, which stage {stage} depends on, is missing: run dvc repro {stage}"
        )
    if path.is_file():
        return [path]
    for name in MANIFESTS:
        if (path / name).is_file():
            return [path / name]
    return sorted(
        file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    )
