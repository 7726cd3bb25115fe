"""Runs a benchmark's preset through the pipeline's own stages, over several seeds.

All of it happens in a folder of the benchmark's own, with a params.yaml of its own: the user's
params, outs and dvc.lock are not touched. Preparation and features are made once; each seed is one
training and one evaluation, kept by the content of code and params, so that a benchmark that was
stopped goes on where it was, in the middle of a training too.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pipeline
from pipeline import config, files, lineage, paths, presets
from pipeline.errors import ConfigError, UserError
from pipeline.processes import run_patiently

log = logging.getLogger(__name__)

ONCE, PER_SEED = ("prepare", "features"), ("train", "evaluate")
KEPT = ("reports/metrics.json", "reports/evaluation/protocol.json")
PICTURE = "reports/evaluation/samples.png"


def settings(preset: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """All params of a benchmark: the defaults, the preset, and `changes` as "train.steps=100".

    Raises ConfigError for what is not valid.
    """
    values = presets.merged(presets.overlay("default"), presets.overlay(preset))
    values = presets.merged(values, {"tracking": {"experiment": f"benchmark-{preset}"}})
    for change in changes:
        values = presets.merged(values, _parsed(change))
    config.check(values, paths.PRESETS / f"{preset}.yaml")
    return values


def _parsed(change: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    key, equals, value = change.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{change!r}: write KEY=VALUE, such as train.steps=1000")
    parsed: Any = YAML(typ="safe", pure=True).load(value)
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def run(values: dict[str, Any], seeds: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Train and evaluate `values` with each seed in `folder`; what each came to, in their order.

    A result has seed, key, seconds and cpu_seconds (training and evaluation, also over several
    attempts of which all but the last were stopped), training (its images and seconds),
    picture (a path), metrics and protocol. Raises UserError where a stage fails.
    """
    from filelock import FileLock, Timeout

    work = folder / "work"
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            found = []
            for i, seed in enumerate(seeds):
                own = presets.merged(values, {"seed": seed})
                key = _key(own, (*ONCE, *PER_SEED))
                if not (results / f"{key}.json").is_file():
                    log.info("seed %d (%d of %d)", seed, i + 1, len(seeds))
                    _make(own, key, work, results)
                found.append({**files.read_json(results / f"{key}.json"), "key": key})
    except Timeout:
        raise UserError(f"{folder}: the same benchmark runs already") from None
    return found


def _make(values: dict[str, Any], key: str, work: Path, results: Path) -> None:
    """Run what this seed still needs in `work`, and keep its result."""
    prepare(values, work)
    with _counted(work / "spent.json", key) as spent:
        for stage in PER_SEED:
            _stage(stage, work)
    picture = results / f"{key}.png"
    shutil.copy2(work / PICTURE, picture)
    metrics, protocol = (files.read_json(work / name) for name in KEPT)
    record = {
        "seed": values["seed"],
        **{name: round(value, 1) for name, value in spent.items()},
        "picture": picture.name,
        "training": _speed(work),
        "metrics": metrics,
        "protocol": protocol,
    }
    files.write_json(results / f"{key}.json", record)


def prepare(values: dict[str, Any], work: Path) -> None:
    """Lay out the folder `work` for `values`, with data and features, unless they are there."""
    _lay_out(work, values)
    once, marker = _key(values, ONCE), work / "prepared.key"
    if not marker.is_file() or marker.read_text() != once:
        marker.unlink(missing_ok=True)
        for stage in ONCE:
            _stage(stage, work)
        marker.write_text(once)


@contextmanager
def _counted(path: Path, key: str) -> Iterator[dict[str, float]]:
    """The seconds and cpu_seconds that this takes, with those of earlier attempts of `key`."""
    spent = {"seconds": 0.0, "cpu_seconds": 0.0}
    if path.is_file() and (before := files.read_json(path))["key"] == key:
        spent = {name: before[name] for name in spent}
    began, cpu = time.monotonic(), _cpu_seconds()
    try:
        yield spent
    finally:
        spent["seconds"] += time.monotonic() - began
        spent["cpu_seconds"] += _cpu_seconds() - cpu
        files.write_json(path, {"key": key, **spent})


def _cpu_seconds() -> float:
    """Of the processes that this one started and that ended."""
    times = os.times()
    return times.children_user + times.children_system


def _speed(work: Path) -> dict[str, float]:
    """Images that the training showed D, and the seconds it took, evaluations aside."""
    import pandas as pd

    last = pd.read_csv(work / paths.TRAIN_REPORT / "history.csv").iloc[-1]
    return {"images": float(last["images"]), "seconds": float(last["seconds"])}


def _lay_out(work: Path, values: dict[str, Any]) -> None:
    """What a stage finds in its working directory: params, dvc.yaml and the code it is made of."""
    from ruamel.yaml import YAML

    work.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(work / paths.PARAMS) as fresh, fresh.open("w", encoding="utf-8") as file:
        YAML().dump(values, file)
    links = {
        "pipeline": Path(pipeline.__file__).parent,
        paths.DVC_YAML.name: paths.DVC_YAML.resolve(),
    }
    for name, target in links.items():
        if not (work / name).exists():
            (work / name).unlink(missing_ok=True)  # a link to where the project was
            (work / name).symlink_to(target)


def _stage(stage: str, work: Path) -> None:
    """Run a stage as DVC would, but for DVC; what it says goes to stderr."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("DVC_")},
        "DVC_ROOT": str(Path.cwd()),  # checkpoints, downloads and the MLflow store are shared
    }
    code = run_patiently(
        [sys.executable, "-m", f"pipeline.stages.{stage}"],
        cwd=work,
        env=environment,
        stdout=sys.stderr.fileno(),
    )
    if code:
        raise UserError(
            f"stage {stage} of the benchmark ended with code {code} (its own words are above); "
            "the same command goes on from there"
        )


def _key(values: dict[str, Any], stages: Sequence[str]) -> str:
    """The name of what `stages` make of these params with the code as it is."""
    inputs = {stage: lineage.stage_inputs(stage, values, code_only=True) for stage in stages}
    return files.json_hash(inputs)[:16]
