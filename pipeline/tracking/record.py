"""The record of a run, written into its stage's outs: what MLflow cannot learn from the others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline import files, lineage, paths

Kind = Literal["train", "evaluate"]

RECORD = "run.json"
PARAMS = "params.yaml"
DIFF = "changes.diff"


@dataclass(frozen=True)
class RunRecord:
    """One training or evaluation.

    `key` is the train_key or the eval_key; `train_key` is that of the training which an evaluation
    belongs to (empty for a training). Times are Unix milliseconds; `status` is RUNNING, FINISHED,
    FAILED or KILLED. `dataset` has name, digest and source; `model` what describes the generator.
    `metrics` are an evaluation's figures (None: not defined). `params_yaml` and `diff` are texts.
    """

    kind: Kind
    key: str
    name: str
    experiment: str
    params: dict[str, Any]
    tags: dict[str, str]
    started: int
    dataset: dict[str, str]
    ended: int | None = None
    status: str = "RUNNING"
    train_key: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    params_yaml: str = ""
    diff: str = ""

    def write(self, folder: Path) -> None:
        """Write run.json, params.yaml and, where code was changed, changes.diff."""
        values = dataclasses.asdict(self)
        texts = {PARAMS: values.pop("params_yaml"), DIFF: values.pop("diff")}
        for name, text in texts.items():
            if text:
                with files.atomic_file(folder / name) as fresh:
                    fresh.write_text(text, encoding="utf-8")
            else:
                (folder / name).unlink(missing_ok=True)
        files.write_json(folder / RECORD, values)

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        texts = {
            name: (folder / name).read_text(encoding="utf-8") if (folder / name).exists() else ""
            for name in (PARAMS, DIFF)
        }
        return cls(**files.read_json(folder / RECORD), params_yaml=texts[PARAMS], diff=texts[DIFF])

    def digest(self) -> str:
        """The hash of all that the record says."""
        return files.json_hash(dataclasses.asdict(self))


def start(
    kind: Kind,
    key: str,
    *,
    experiment: str,
    params: dict[str, Any],
    dataset: dict[str, str],
    train_key: str = "",
    model: dict[str, Any] | None = None,
    root: Path = Path(),
) -> RunRecord:
    """The record of a run that starts now, with the state of git and of params.yaml.

    `params` are nested. Raises UserError where there is no git commit.
    """
    git = lineage.git_facts(root)
    diff = git.pop("git_diff")
    training = train_key or key
    experiment_name = lineage.exp_name()
    name = experiment_name or training[:8]
    tags = {**git, "train_key": training, "dvc_stage": kind, "processor": lineage.processor()}
    if kind == "evaluate":
        tags["eval_key"] = key
        name = f"{key[:8]} of {name}"  # a training may have several; the UI cuts names short
    if experiment_name:
        tags["dvc_exp_name"] = experiment_name
    return RunRecord(
        kind=kind,
        key=key,
        name=f"{kind} {name}",
        experiment=experiment,
        params=lineage.flatten(params),
        tags=tags,
        started=_now(),
        dataset=dataset,
        train_key=train_key,
        model=model or {},
        params_yaml=(root / paths.PARAMS).read_text(encoding="utf-8"),
        diff=diff,
    )


def finish(
    record: RunRecord,
    *,
    status: str = "FINISHED",
    metrics: Mapping[str, float | None] | None = None,
    model: dict[str, Any] | None = None,
) -> RunRecord:
    """`record` as it ends now."""
    return dataclasses.replace(
        record,
        ended=_now(),
        status=status,
        metrics=dict(metrics or record.metrics),
        model=model or record.model,
    )


def _now() -> int:
    return int(time.time() * 1000)
