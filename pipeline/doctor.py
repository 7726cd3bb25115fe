"""Is everything in place for a run? What each check found and, where it failed, the way out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline import config, lineage, paths
from pipeline.errors import UserError
from pipeline.schema import OWN_DATA

FREE_BYTES = 2 * 2**30
PLOTS_PAGE = Path(".dvc/tmp/plots.html")


@dataclass(frozen=True)
class Finding:
    name: str
    state: Literal["ok", "warning", "failed"]
    text: str
    exit_code: int = 0


def examine(*, quick: bool) -> list[Finding]:
    """Run the checks; `quick` leaves out those that need slow imports.

    Where params.yaml is wrong, what it would decide is left out too.
    """
    findings = [_guarded("params", _params)]
    aside = (SLOW if quick else set()) | (BY_PARAMS if findings[0].exit_code else set())
    others = [name for name in CHECKS if name not in aside]
    return findings + [_guarded(name, CHECKS[name]) for name in others]


def _guarded(name: str, check: Callable[[], tuple[str, str]]) -> Finding:
    try:
        state, text = check()
    except UserError as error:
        return Finding(name, "failed", str(error), error.exit_code)
    return Finding(name, "warning" if state == "warning" else "ok", text)


def _params() -> tuple[str, str]:
    params = config.load_params()
    return "ok", f"{paths.PARAMS} is valid: {params.model.name} on {params.data_name}"


def _data() -> tuple[str, str]:
    data = config.load_params().data
    path = Path(data.path).expanduser()
    if not path.exists():
        raise UserError(
            f"data.path {data.path} does not exist: make it, or name your images' folder"
        )
    if data.source in OWN_DATA and path.is_dir() and not _visible(path):
        raise UserError(f"data.path {data.path} is empty: put your images there, or name another")
    return "ok", f"{data.source}, {data.path}"


def _prepared() -> tuple[str, str]:
    if not (paths.PREPARED / "manifest.json").is_file():
        return "ok", "nothing yet"
    from pipeline import compatibility
    from pipeline.datasets import prepared

    params, data = config.load_params(), prepared.load()
    if (data.name, data.manifest["source"]) != (params.data_name, params.data.source):
        return "ok", f"{data.name}, which dvc repro will replace"
    try:
        compatibility.check_prepared(params, data)
    except UserError as error:  # of params that have changed since, dvc repro prepares anew
        return "warning", f"as prepared: {error}"
    return "ok", f"{data.name}, digest {data.digest[:8]}"


def _visible(folder: Path) -> bool:
    return any(not entry.name.startswith(".") for entry in folder.iterdir())


def _extractor() -> tuple[str, str]:
    evaluate = config.load_params().evaluate
    if evaluate.extractor == "domain":
        return "ok", "domain, from the features stage"
    from pipeline import inception

    given = evaluate.inception_weights
    if given is None and not inception.place(None).exists():
        return "warning", (
            "evaluate will download Inception's weights, as evaluate.inception_weights is null. "
            f"Without a network: {inception.way_out()}"
        )
    weights = inception.find(given)
    return ("ok" if weights.standard else "warning"), f"{weights.extractor}, {weights.path}"


def _git() -> tuple[str, str]:
    facts = lineage.git_facts()
    dirty = ", with uncommitted changes" if facts["git_dirty"] == "true" else ""
    text = f"commit {facts['git_commit'][:8]}{dirty}"
    identity = subprocess.run(["git", "var", "GIT_AUTHOR_IDENT"], capture_output=True, check=False)
    if identity.returncode:
        return "warning", (
            f"{text}; git does not know who you are, which dvc exp needs: "
            "git config --global user.name NAME; git config --global user.email ADDRESS"
        )
    return "ok", text


def _folder() -> tuple[str, str]:
    if not os.access(Path.cwd(), os.W_OK):
        raise UserError(
            f"{Path.cwd()} is read-only for you: work in a folder that you may write to"
        )
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 2**30:.0f} GiB free"
    return ("ok", text) if free > FREE_BYTES else ("warning", f"only {text}")


def _commands() -> tuple[str, str]:
    if shutil.which("dvc") is None:
        raise UserError(
            "dvc is not on the PATH: run `make install` and use .venv/bin first on PATH"
        )
    if not PLOTS_PAGE.exists():
        return "warning", (
            f"{PLOTS_PAGE} is missing, which `dvc plots show` fills: "
            f"python -m pipeline.report.vega_page {PLOTS_PAGE}"
        )
    return "ok", "dvc is on the PATH"


def _device() -> tuple[str, str]:
    from pipeline.training import devices, numerics

    train = config.load_params().train
    device = devices.pick_device(train.device)
    precision = numerics.name_of(numerics.pick_precision(train.precision, device))
    return "ok", f"{devices.describe(device)}, {precision}"


def _store() -> tuple[str, str]:
    from pipeline.tracking import store

    try:
        store.ready(config.load_params().tracking.experiment)
    except UserError:
        raise
    except Exception as error:  # MLflow, requests and SQLAlchemy raise their own
        reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
        return "warning", (
            f"MLflow at {store.shown_uri()} cannot be reached ({reason}): runs are kept in "
            f"{paths.undelivered().name}/ until `gan sync` delivers them"
        )
    return "ok", store.shown_uri()


def _left_over() -> tuple[str, str]:
    checkpoints = list(paths.checkpoints().glob("*/state.pt"))
    waiting = list(paths.undelivered().glob("*"))
    if waiting:
        return "warning", f"{len(waiting)} runs wait for `gan sync`; {len(checkpoints)} checkpoints"
    size = sum(file.stat().st_size for file in checkpoints) / 2**20
    return "ok", f"{len(checkpoints)} checkpoints of unfinished trainings, {size:.0f} MiB"


CHECKS: dict[str, Callable[[], tuple[str, str]]] = {
    "data": _data,
    "prepared": _prepared,
    "extractor": _extractor,
    "git": _git,
    "folder": _folder,
    "commands": _commands,
    "device": _device,
    "mlflow": _store,
    "left over": _left_over,
}
SLOW = {"device", "mlflow"}
BY_PARAMS = {"data", "prepared", "extractor", "device", "mlflow"}
