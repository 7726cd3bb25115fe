"""What MLflow's UI says of runs beside their figures: notes, and a view chosen for GANs.

The view is one that a user could have saved (menu "Views"); MLflow keeps it in a tag of the
experiment. Without it the table has no figure, and pictures lie hidden beneath all the params.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from pipeline.tracking.record import DIFF, RunRecord

NOTE = "mlflow.note.content"
VIEW_ID = "gan"  # part of the view's address
VIEW = f"mlflow.sharedViewState.{VIEW_ID}"

COLUMNS = {
    "metrics": ("fd", "fd_floor", "fid", "fid_floor", "label_kl", "precision", "recall"),
    "params": ("model.name", "loss.name", "train.steps", "train.lr_g", "train.lr_d", "seed"),
}
TRAINING, EVALUATION = "Training", "Evaluation"
FIGURES = ("fd", "fid", "label_kl", "precision", "recall", "density", "coverage")

ABOUT = {  # the params that a run's note names
    "train": ("model.name", "loss.name", "train.steps"),
    "evaluate": (
        "evaluate.checkpoint",
        "evaluate.samples",
        "evaluate.extractor",
        "evaluate.neighbours",
    ),
}
EXPERIMENT_NOTE = """\
One run a training, named after its DVC experiment or its `train_key`; its evaluations are its \
children, and it shows the figures of the newest. \
[Figures]({table}) · [Curves and samples]({charts})
"""
RUN_NOTE = """\
{kind} on {dataset}: {about}. Again, in the repository:

```
{commands}
```
"""


def run_note(record: RunRecord) -> str:
    """One line on a run, and the commands that repeat it."""
    about = [f"{key} {record.params[key]}" for key in ABOUT[record.kind] if key in record.params]
    commands = [f"git checkout {record.tags['git_commit']}"]
    if record.diff:
        commands.append(f"git apply {DIFF}.txt   # an artifact of this run, in code/")
    return RUN_NOTE.format(
        kind={"train": "Training", "evaluate": "Evaluation"}[record.kind],
        dataset=record.dataset["name"],
        about=", ".join(about),
        commands="\n".join([*commands, f"dvc repro {record.kind}"]),
    )


def address(experiment_id: str, *, charts: bool = False) -> str:
    """The view's address below the UI's own; `charts` instead of the table."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return (
        f"#/experiments/{experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={VIEW_ID}{mode}"
    )


def experiment_tags(experiment_id: str, created: int) -> dict[str, str]:
    """The experiment's tags that make its note and the view; `created` in Unix milliseconds."""
    note = EXPERIMENT_NOTE.format(
        table=address(experiment_id), charts=address(experiment_id, charts=True)
    )
    view = {"name": "GAN", "createdAt": created, "updatedAt": created, "state": _packed(_state())}
    return {NOTE: note, VIEW: json.dumps(view)}


def _state() -> dict[str, Any]:
    return {
        "selectedColumns": [f"{kind}.`{key}`" for kind, keys in COLUMNS.items() for key in keys],
        "compareRunCharts": [
            _lines("loss_g", "loss_d"),
            _lines("d_acc_real", "d_acc_fake"),
            _lines("grad_norm_g", "grad_norm_d"),
            _pictures("samples"),
            _pictures("reals"),
            _lines("eval_fd"),
            _lines("eval_label_kl"),
            _lines("images_per_second"),
            _lines("memory_mb"),
            *(_card("BAR", EVALUATION, key, metricKey=key) for key in FIGURES),
        ],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True}
            for name in (TRAINING, EVALUATION)
        ],
        "isAccordionReordered": True,  # else the sections are sorted by name
    }


def _card(kind: str, section: str, name: str, **values: Any) -> dict[str, Any]:
    card = {"type": kind, "uuid": name, "metricSectionId": section, "isGenerated": False}
    return {**card, "deleted": False, **values}


def _lines(*keys: str) -> dict[str, Any]:
    return _card(
        "LINE",
        TRAINING,
        keys[0],
        metricKey=keys[0],
        selectedMetricKeys=keys,
        xAxisKey="step",
        xAxisScaleType="linear",
        scaleType="linear",
        yAxisKey="metric",
        yAxisExpressions=[],
        selectedXAxisMetricKey="",
        lineSmoothness=0,
        range={},
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )


def _pictures(key: str) -> dict[str, Any]:
    return _card("IMAGE", TRAINING, key, imageKeys=[key], step=0, showRunParams=False)


def _packed(state: dict[str, Any]) -> str:
    """As MLflow's UI packs a view: a tag has little room."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
