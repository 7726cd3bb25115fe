"""Outs of all stages, as they write them, made in a moment and without training."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np

from pipeline import files, paths
from pipeline.datasets import prepared
from pipeline.datasets.points import MIXTURES, prepare_points
from pipeline.evaluated import PER_CLASS
from pipeline.grids import save_grid, save_png
from pipeline.metrics.per_class import ClassFigures
from pipeline.networks.build import build
from pipeline.sampling import class_labels
from pipeline.scatter import scatter
from pipeline.tracking.record import RunRecord

STARTED = 1_700_000_000_000
N = {"train": 60, "val": 20, "test": 30}
DIM = 6
GIT = {"git_commit": "c0ffee" * 6, "git_branch": "main", "git_dirty": "false"}
TRAIN_KEY, EVAL_KEY = "a" * 64, "e" * 64
GOOD = {
    "fd": 3.12, "fd_floor": 1.3, "fd_ci_low": 2.8, "fd_ci_high": 3.3, "kid": 0.01, "kid_se": 0.002,
    "precision": 0.8, "recall": 0.7, "density": 0.9, "coverage": 0.75, "label_kl": 0.004,
    "ndb_jsd": 0.01, "selfnn_ratio": 1.02, "within_var_ratio": 0.9, "label_kl_floor": 0.002,
    "modes": 3, "n_groups": 3, "dup_rate": 0.0, "control_real_vs_real": 1.0, "control_dropped_class": 1.0,
    "controls": 1.0, "n_real": 1000, "n_fake": 40,
}  # fmt: skip


def write(
    root: Path,
    *,
    class_names: list[str] | None = None,
    conditional: bool = True,
    image_size: int = 8,
    channels: int = 1,
    evaluations: int = 3,
    missing_class: int | None = None,
    metrics: dict[str, float] | None = None,
    inception: str | None = None,
    blind: bool = False,
) -> None:
    """Write them below `root`. `class_names` None: unlabelled data.

    `blind`: the extractor takes all for the first class, or guesses rotations.
    `inception` is what the protocol calls the extractor where the figures are a fid's.
    """
    rng = np.random.default_rng(0)
    n_classes = len(class_names or [])
    labels = (
        {s: rng.permutation(np.arange(n) % n_classes) for s, n in N.items()} if n_classes else {}
    )
    _prepared(root, rng, labels, class_names, image_size, channels)
    (root / paths.FEATURES).mkdir(parents=True)
    for split, n in N.items():
        np.save(root / paths.FEATURES / f"{split}.npy", rng.normal(size=(n, DIM)).astype("f"))
    _extractor(root, labels.get("val"), n_classes, blind=blind)
    given = n_classes if conditional else 0
    _generator(root, image_size, channels, given)
    figures = {**GOOD, **(metrics or {})}
    if inception:
        figures = as_fid(figures)
    _evaluation(root, rng, n_classes, given, missing_class, figures, inception or "domain")
    _training(root, rng, image_size, channels, evaluations)


def turn_to_points(root: Path) -> None:
    """Make the outs below `root`, of an unconditional model, those of the ring."""
    from safetensors.torch import save_file

    ring = MIXTURES["ring"]
    shutil.rmtree(root / paths.PREPARED)
    prepare_points(ring, out=root / paths.PREPARED, name="ring", source_name="ring", draws=200,
                   val_fraction=0.2, test_fraction=0.3, split_seed=0)  # fmt: skip
    data = prepared.load(root / paths.PREPARED)
    for split in N:
        np.save(root / paths.FEATURES / f"{split}.npy", data.split(split).images)
    n = len(np.load(root / paths.EVALUATION / "features.npy"))
    points, modes = ring.draw(n, 1)
    np.save(root / paths.EVALUATION / "features.npy", points)
    np.save(root / paths.EVALUATION / "logits.npy", np.eye(8, dtype="f")[modes])
    shape = {"shape": [2], "latent_dim": 4, "n_classes": 0, "width": 8}
    generator, _ = build("points", spectral_norm=False, seed=0, **shape)
    config = files.read_json(root / paths.GENERATOR / "config.json")
    for which in ("best", "last"):
        save_file(generator.state_dict(), root / paths.GENERATOR / f"{which}.safetensors")
    generator_config = {"generator": {"name": "points", **shape}}
    files.write_json(root / paths.GENERATOR / "config.json", config | generator_config)
    metrics = files.read_json(root / paths.METRICS)
    own = {"hq": 0.975, "modes": 8, "n_groups": 8, "reverse_kl": 0.0021, "reverse_kl_floor": 0.0014}
    files.write_json(root / paths.METRICS, metrics | own)
    for path in (root / paths.TRAIN_REPORT / "grids").glob("*.png"):
        save_png(path, scatter(points, points, size=100))


def _prepared(root, rng, labels, class_names, size, channels) -> None:
    folder = root / paths.PREPARED
    folder.mkdir(parents=True)
    splits = {}
    for split, n in N.items():
        images = rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
        np.save(folder / f"{split}.npy", images)
        counts = None
        if labels:
            np.save(folder / f"{split}_labels.npy", labels[split])
            counts = np.bincount(labels[split], minlength=len(class_names)).tolist()
        splits[split] = {"n": n, "sha256": "0" * 64, "labels_sha256": None, "class_counts": counts}
    manifest = {
        "name": "dots & <lines>", "source": "folder", "kind": "image", "image_size": size,
        "channels": channels, "class_names": class_names, "splits": splits, "refused": 2,
        "duplicates": {"within": {"train": 4}, "across": {"train/test": 1}}, "digest": "d" * 64,
    }  # fmt: skip
    files.write_json(folder / "manifest.json", manifest)


def _extractor(root, labels, n_classes, *, blind) -> None:
    """What is known of one that tells all of val right, or nothing."""
    right = 0.25 if blind else 1.0
    files.write_json(root / paths.FEATURES / "config.json", {"val_accuracy": right})
    if labels is not None:
        answers = np.zeros_like(labels) if blind else labels
        logits = np.eye(n_classes, dtype="f")[answers]
        np.save(root / paths.FEATURES / "val_logits.npy", logits)


def _generator(root, size, channels, n_classes) -> None:
    from safetensors.torch import save_file

    shape = {
        "shape": [size, size, channels],
        "latent_dim": 4,
        "n_classes": n_classes,
        "width": 8,
    }
    generator, _ = build("mlp", spectral_norm=False, seed=0, **shape)
    folder = root / paths.GENERATOR
    folder.mkdir(parents=True)
    for which in ("best", "last"):
        save_file(generator.state_dict(), folder / f"{which}.safetensors")
    config = {
        "train_key": TRAIN_KEY, "generator": {"name": "mlp", **shape}, "n_classes": n_classes,
        "best_step": 100, "last_step": 300, "weights": {"best": "1" * 64, "last": "2" * 64},
    }  # fmt: skip
    files.write_json(folder / "config.json", config)


def as_fid(metrics: dict[str, float]) -> dict[str, float]:
    """The same figures as if Inception had seen the images."""
    return {f"fid{key[2:]}" if key.startswith("fd") else key: x for key, x in metrics.items()}


def _evaluation(root, rng, n_classes, given, missing_class, metrics, extractor) -> None:
    n = int(metrics["n_fake"])
    folder = root / paths.EVALUATION
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", rng.normal(size=(n, DIM)).astype("f"))
    outputs = n_classes or 4
    logits = np.eye(outputs, dtype="f")[np.arange(n) % outputs]
    if missing_class is not None:
        logits[:, missing_class] = -1
    np.save(folder / "logits.npy", logits)
    if given:
        np.save(folder / "labels.npy", class_labels([1] * n_classes, n, seed=0))
        rows = [ClassFigures(k, 20, 20, 3.0 + k, 1.0, 0.9) for k in range(n_classes)]
        (root / paths.EVALUATION_REPORT).mkdir(parents=True)
        files.write_table(root / paths.EVALUATION_REPORT / PER_CLASS, [vars(row) for row in rows])
    files.write_json(root / paths.METRICS, metrics)
    record = RunRecord(
        kind="evaluate", key=EVAL_KEY, name="evaluate aaaaaaaa", experiment="gan",
        params={"evaluate.checkpoint": "best", "evaluate.seed": 0}, metrics=metrics,
        tags={**GIT, "train_key": TRAIN_KEY, "eval_key": EVAL_KEY, "dvc_stage": "evaluate"},
        started=STARTED, ended=STARTED + 1000, status="FINISHED", train_key=TRAIN_KEY,
        dataset={"name": "dots", "digest": "d" * 64, "source": "folder"},
    )  # fmt: skip
    protocol = {
        "extractor": extractor,
        "n_real": 1000,
        "n_fake": n,
        "split": "test",
        "versions": {"torch": "2"},
    }
    (root / paths.EVALUATION_REPORT).mkdir(parents=True, exist_ok=True)
    files.write_json(root / paths.EVALUATION_REPORT / "protocol.json", protocol)
    record.write(root / paths.EVALUATION_REPORT)


def _training(root, rng, size, channels, evaluations) -> None:
    folder = root / paths.TRAIN_REPORT
    folder.mkdir(parents=True)
    columns = ("loss_g", "loss_d", "d_real", "d_fake", "d_acc_real", "d_acc_fake", "grad_norm_g",
               "grad_norm_d", "images_per_second")  # fmt: skip
    signals = (
        "eval_fd",
        "eval_label_kl",
        "eval_ndb_jsd",
        "eval_selfnn_ratio",
        "eval_within_var_ratio",
    )
    rows = []
    for step in range(50, 50 * max(1, 2 * evaluations) + 1, 50):
        row = {"step": step, "kimg": step * 0.064, "seconds": step / 10}
        row |= {name: rng.uniform(0.1, 1) for name in columns}
        if step % 100 == 0:
            row |= {name: rng.uniform(0.01, 1) for name in signals}
            images = rng.integers(0, 256, (30, size, size, channels), dtype=np.uint8)
            save_grid(folder / "grids" / f"step_{step:06d}.png", images, 10)
            save_grid(folder / "grids" / "reals.png", images, 10)
        rows.append(row)
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)
    record = RunRecord(
        kind="train", key=TRAIN_KEY, name="train <aaaaaaaa>", experiment="gan",
        params={"train.lr_g": 2e-4, "data.name": None},
        tags={**GIT, "train_key": TRAIN_KEY, "dvc_stage": "train", "device": "cpu"},
        started=STARTED, ended=STARTED + 60_000, status="FINISHED",
        dataset={"name": "dots", "digest": "d" * 64, "source": "folder"},
    )  # fmt: skip
    record.write(folder)
