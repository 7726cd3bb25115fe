"""Stage `features`: train the data set's own feature extractor and keep the reals' features.

Points are their own features: there is nothing to train.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from pipeline import compatibility, extractor, files, launch, lineage, logs, parallel, paths
from pipeline.config import check, read_yaml
from pipeline.datasets import prepared
from pipeline.extractor_training import train_extractor, train_stacked
from pipeline.progress import bar
from pipeline.schema import STACKED, Features
from pipeline.training import devices

log = logging.getLogger(__name__)


def main() -> None:
    values = read_yaml(paths.PARAMS)
    params = check(values)
    device = devices.pick_device(params.train.device)
    devices.keep_freed_memory()
    data = prepared.load()
    if parallel.size() > 1:
        launch.agree(lineage.stage_inputs("features", values))
    compatibility.check_prepared(params, data)
    if data.points:
        model: extractor.AnyExtractor = extractor.Points(
            centres=data.manifest["centres"], sigma=data.manifest["sigma"]
        )
        facts: dict[str, Any] = {"task": "none: points are their own features"}
    else:
        model, facts = _trained(data, params.features, device)
    splits = {name: data.split(name).images for name in ("train", "val", "test")}
    found: dict[str, np.ndarray] = {}
    with bar("extract, images", sum(map(len, splits.values()))) as advance:
        for name, images in splits.items():
            found[name], logits = extractor.extract(model, images, device=device, on_batch=advance)
            if name != "train":  # nobody asks for them, and of stacks they are half a gigabyte
                found[f"{name}_logits"] = logits
    if not launch.leave():
        return
    with files.atomic_folder(paths.FEATURES) as folder:
        extractor.save(model, folder, facts)
        for name, array in found.items():
            np.save(folder / f"{name}.npy", array)
        told = extractor.told(data, folder)
    if told is not None and told.blind:
        log.warning(
            "%s. Figures in its features will say little, and no classes be counted: raise "
            "features.epochs (%d), or add images",
            told.text,
            params.features.epochs,
        )


def _trained(
    data: prepared.Prepared, config: Features, device: torch.device
) -> tuple[extractor.AnyExtractor, dict[str, Any]]:
    """An extractor trained on the train split, and what is known of it."""
    train, val = data.split("train"), data.split("val")
    stacked = data.manifest["source"] == STACKED
    teach = train_stacked if stacked else train_extractor
    training: dict[str, Any] = {
        "n_classes": data.n_classes,
        "dim": config.dim,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "seed": config.seed,
    }
    with bar("features, images", config.epochs * len(train)) as advance:
        model = teach(
            train.images,
            train.labels,
            **training,
            device=device,
            on_epoch=lambda epoch, loss: advance(len(train), note=f"loss {loss:.3f}"),
        )
    task = "rotation" if train.labels is None else "classes"
    accuracy = extractor.accuracy(model, val.images, val.labels, device=device)
    log.info(
        "extractor: %.1f%% of the held-out %s are told right; %d features",
        100 * accuracy,
        task,
        model.n_features,
    )
    return model, {"task": task, "val_accuracy": accuracy, "training": training}


if __name__ == "__main__":
    logs.setup()
    launch.run(main, "pipeline.stages.features")
