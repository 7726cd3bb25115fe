"""Stage outs as the stages write them, made in a moment."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import files, paths
from pipeline.evaluated import Samples
from pipeline.tracking import models
from pipeline.tracking.record import RunRecord

STARTED = 1_700_000_000_000
GIT = {"git_commit": "c0ffee", "git_branch": "main", "git_dirty": "false", "git_baseline": "c0ffee"}
COLUMNS = ("loss_g", "loss_d", "d_real", "d_fake", "d_acc_real", "d_acc_fake", "grad_norm_g",
           "grad_norm_d", "lr_g", "lr_d", "images_per_second", "memory_mb")  # fmt: skip


def history(points: int = 4, every: int = 50) -> list[dict[str, float | None]]:
    return [
        {
            "step": step,
            "images": step * 64,
            "kimg": step * 0.064,
            "seconds": step / 30,
            **{column: math.sin(step * (i + 1)) for i, column in enumerate(COLUMNS)},
            "eval_fd": 5.0 / step if step % (2 * every) == 0 else None,
        }
        for step in range(every, points * every + 1, every)
    ]


def train_record(key: str = "a" * 64, **changes) -> RunRecord:
    values = {
        "kind": "train",
        "key": key,
        "name": f"train {key[:8]}",
        "experiment": "gan",
        "params": {"train.lr_g": 2e-4, "train.betas_g": "[0.0, 0.99]", "model.conditional": True, "data.name": None},
        "tags": {**GIT, "train_key": key, "dvc_stage": "train"},
        "started": STARTED,
        "ended": STARTED + 60_000,
        "status": "FINISHED",
        "dataset": {"name": "mnist5k", "digest": "d" * 64, "source": "mnist5k"},
        "model": {"name": "dcgan", "latent_dim": 64},
        "params_yaml": "train:\n  lr_g: 2.0e-4\n",
        "diff": "diff --git a/x b/x\n",
    }  # fmt: skip
    return RunRecord(**{**values, **changes})


def write_training(root: Path, record: RunRecord, points: int = 4, grids: int = 2) -> None:
    folder = root / paths.TRAIN_REPORT
    (folder / "grids").mkdir(parents=True)
    rows = history(points)
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for step in range(100, 100 * grids + 1, 100):
        Image.new("L", (280, 280), step % 256).save(folder / "grids" / f"step_{step:06d}.png")
    Image.new("L", (280, 280)).save(folder / "grids" / "reals.png")
    record.write(folder)


def write_evaluation(root: Path, training: RunRecord, key: str = "e" * 64, **changes) -> RunRecord:
    values = {
        "kind": "evaluate",
        "key": key,
        "name": f"evaluate {key[:8]} of {training.key[:8]}",
        "experiment": "gan",
        "params": {"evaluate.samples": 3500},
        "tags": {**GIT, "train_key": training.key, "eval_key": key, "dvc_stage": "evaluate"},
        "started": STARTED + 70_000,
        "ended": STARTED + 80_000,
        "status": "FINISHED",
        "dataset": {"name": "mnist5k", "digest": "f" * 64, "source": "mnist5k"},
        "train_key": training.key,
        "metrics": {"fd": 3.25, "fd_floor": 1.5, "label_kl": 0.01, "ct_z": None},
        "params_yaml": "evaluate:\n  samples: 3500\n",
    }
    record = RunRecord(**{**values, **changes})
    folder = root / paths.EVALUATION_REPORT
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "protocol.json", {"extractor": "domain", "n": {"real": 1000}})
    Image.new("L", (280, 280), 9).save(folder / "samples.png")
    record.write(folder)
    write_samples(root, key)
    write_package(root, training.key, key)
    return record


def write_package(root: Path, train_key: str, eval_key: str) -> None:
    """What `models.log` needs of a package; it cannot be loaded."""
    from mlflow.models import Model

    with files.atomic_folder(root / paths.PACKAGE) as folder:
        config = {
            "train_key": train_key,
            "eval_key": eval_key,
            "generator": {"name": "dcgan", "latent_dim": 64},
            "checkpoint": "best",
            "best_step": 100,
            "weights": {"generator": "0" * 64},
        }
        files.write_json(folder / models.CONFIG, config)
        Model(model_uuid=None, utc_time_created="2026-01-01").save(str(folder / "MLmodel"))


def write_samples(root: Path, key: str, n: int = 60, d: int = 4, quality: float = 1.0) -> Samples:
    """Samples whose classes lie as far apart as the reals' where `quality` is 1, else nearer."""
    rng = np.random.default_rng(0)
    classes = np.arange(n) % 2
    reals = rng.normal(size=(n, d)).astype(np.float32) + 4 * classes[:, None].astype(np.float32)
    fakes = rng.normal(size=(n, d)).astype(np.float32) + 4 * quality * classes[:, None]
    fakes = fakes.astype(np.float32)
    samples = Samples(
        features=fakes,
        logits=fakes[:, :1] * np.float32([-1, 1]) + np.float32([2, -2]),
        real_features=reals,
        real_logits=reals[:, :1] * np.float32([-1, 1]) + np.float32([2, -2]),
        space=fakes,
        space_real=reals,
        labels=None,
        data={
            "kind": "image",
            "source": "mnist5k",
            "splits": {"train": {"class_counts": [n // 2, n // 2]}},
        },
        eval_key=key,
    )
    with files.atomic_folder(root / paths.EVALUATION) as folder:
        samples.write(folder)
    return samples


def write_report(root: Path, eval_key: str, text: str = "hello") -> None:
    (root / paths.REPORT).write_text(
        f'<head><meta name="eval-key" content="{eval_key}"></head>{text}'
    )


def everything(client, experiment_id: str) -> dict:
    """All that the store shows of its runs, by their keys; ids and file uuids left out."""
    shown = {}
    runs = client.search_runs([experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    for run in runs:
        run_id = run.info.run_id
        tags = dict(run.data.tags)
        if "mlflow.parentRunId" in tags:
            tags["mlflow.parentRunId"] = names[tags["mlflow.parentRunId"]]
        tags.pop("process", None)
        tags.pop("mlflow.user", None)
        shown[tags["dvc_stage"], tags["train_key"], tags.get("eval_key")] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": tags,
            "metrics": {
                key: sorted(
                    (p.step, p.value, p.timestamp) for p in client.get_metric_history(run_id, key)
                )
                for key in run.data.metrics
            },
            "latest": run.data.metrics,
            "datasets": [
                (d.dataset.name, d.dataset.digest, [(t.key, t.value) for t in d.tags])
                for d in run.inputs.dataset_inputs
            ],
            "models": (len(run.inputs.model_inputs), len(run.outputs.model_outputs)),
            "files": _artifacts(client, run_id),
        }
    models = client.search_logged_models([experiment_id])
    shown["models"] = sorted(
        (m.name, str(m.status), sorted((x.key, x.value, x.dataset_digest) for x in m.metrics or []))
        for m in models
    )
    return shown


def _artifacts(client, run_id: str, path: str | None = None) -> list[tuple]:
    found = []
    for file in client.list_artifacts(run_id, path):
        if file.is_dir:
            found += _artifacts(client, run_id, file.path)
        else:
            parts = file.path.split("+")
            found.append(
                (*parts[:5], file.path.rpartition(".")[2])
                if len(parts) > 1
                else (file.path, file.file_size)
            )
    return sorted(found)
