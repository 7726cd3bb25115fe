"""Train the GAN on the prepared samples: the generator's moving average, its history, its samples.

Continues from the last checkpoint of the same code, data and params; a change starts anew.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline import errors, evaluation, extractor, files, lineage, logs, paths, progress
from pipeline.config import Params, check, read_yaml
from pipeline.datasets import prepared
from pipeline.grids import save_grid, save_png
from pipeline.sampling import class_labels, sample_images
from pipeline.scatter import scatter
from pipeline.tracking import record
from pipeline.tracking.deliver import deliver_or_keep
from pipeline.tracking.live import LiveRun
from pipeline.training import callbacks, checkpoints, devices, recipe
from pipeline.training.loop import Callback, Row
from pipeline.training.state import State, weights_of

log = logging.getLogger(__name__)


def main() -> None:
    values = read_yaml(paths.PARAMS)
    params = check(values)
    data = prepared.load()
    device = devices.pick_device(params.train.device)
    precision = devices.pick_precision(params.train.precision, device)
    if params.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch then asks for
        torch.use_deterministic_algorithms(True)
    inputs = lineage.stage_inputs("train", values)
    # `auto` is another precision on another machine, and then another result.
    inputs["params"]["train.precision"] = str(precision)
    key = lineage.stage_key(inputs)

    split = data.split("train")
    n_classes = data.n_classes if params.model.conditional else 0
    task = recipe.make_task(params, split.images, split.labels, device)
    state = recipe.make_state(params, shape=data.shape, n_classes=n_classes, device=device)
    run = record.start(
        "train",
        key,
        experiment=params.tracking.experiment,
        params=values,
        dataset={"name": data.name, "digest": data.digest, "source": params.data.source},
    )
    run.tags.update(device=devices.describe(device), precision=str(precision).split(".")[1])

    with checkpoints.hold(paths.checkpoints(), key) as folder:
        start = _restore(state, folder, inputs)
        live = LiveRun(run, params.tracking.upload_every)
        grids = _grids(folder / "grids", params, split, n_classes, live)
        if start == 0:
            grids.write(state)
        try:
            with progress.bar("train", params.train.steps, start=start) as advance:
                recipe.run(
                    params,
                    state,
                    task,
                    precision=precision,
                    evaluate=_judge(params, data, device),
                    save=lambda state: checkpoints.save(state, folder),
                    callbacks=[
                        callbacks.StopOnDivergence(),
                        callbacks.ShowProgress(advance, start),
                        Curves(live),
                        grids,
                    ],
                )
        except BaseException as error:
            live.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        live.close()
        config = _write_generator(state, params, data, key)
        with files.atomic_folder(paths.TRAIN_REPORT) as out:
            files.write_table(out / "history.csv", state.history)
            evaluated = [row for row in state.history if "eval_fd" in row]
            files.write_table(out / "evaluations.csv", evaluated)  # DVC's plots draw gaps as zeros
            shutil.copytree(folder / "grids", out / "grids")
            record.finish(run, model=config).write(out)
        checkpoints.discard(folder)
    log.info("best of the checkpoints: step %d, fd %.2f on val", state.best_step, state.best_score)
    deliver_or_keep("train")


def _grids(
    folder: Path, params: Params, split: prepared.Split, n_classes: int, live: LiveRun
) -> callbacks.Grids:
    """What draws the samples over time; writes the picture of reals beside them."""
    if split.points:
        reals = split.images[: callbacks.POINTS]
        labels = np.arange(callbacks.POINTS) % n_classes if n_classes else None
        save_png(folder / "reals.png", scatter(reals, reals))
    else:
        reals = callbacks.reals_for_grid(split.images, split.labels, n_classes)
        labels = callbacks.grid_labels(n_classes) if n_classes else None
        save_grid(folder / "reals.png", reals, callbacks.COLUMNS)
    return callbacks.Grids(
        folder,
        latent_dim=params.model.latent_dim,
        labels=labels,
        beneath=reals if split.points else None,
        seed=params.seed,
        on_file=live.image,
    )


class Curves(Callback):
    """Hands the history to MLflow as it grows."""

    def __init__(self, live: LiveRun) -> None:
        self.live = live

    def on_step(self, state: State, row: Row) -> None:
        self.live.log([row])


def _restore(state: State, folder: Path, inputs: lineage.Inputs) -> int:
    """Load the checkpoint of these inputs, or say why there is none. Returns the step reached."""
    if checkpoints.restore(state, folder):
        log.info("continuing from the checkpoint at step %d", state.step)
        return state.step
    nearest = checkpoints.nearest(folder.parent, inputs)
    if nearest is not None:
        other, lines = nearest
        log.info(
            "starting anew: the nearest checkpoint (%s) is of other inputs: %s",
            other[:8],
            "; ".join(lines[:5]) + ("; ..." if len(lines) > 5 else ""),
        )
    checkpoints.remember_inputs(folder, inputs)
    return 0


def _judge(
    params: Params, data: prepared.Prepared, device: torch.device
) -> Callable[[nn.Module], dict[str, float]]:
    """Figures of a generator on `val`, by the data set's own extractor."""
    judge = extractor.load().to(device)
    counts = data.manifest["splits"]["train"]["class_counts"]
    reference = evaluation.build_reference(
        np.load(paths.FEATURES / "val.npy"),
        np.load(paths.FEATURES / "val_logits.npy"),
        counts,
        evaluation.benchmark_of(data.manifest),
    )
    n, seed = params.train.eval_samples, params.evaluate.seed
    labels = class_labels(counts, n, seed) if params.model.conditional else None

    def judge_generator(generator: nn.Module) -> dict[str, float]:
        images = sample_images(generator, n=n, seed=seed, labels=labels, device=device)
        return evaluation.monitor(*extractor.extract(judge, images, device=device), reference)

    return judge_generator


def _write_generator(
    state: State, params: Params, data: prepared.Prepared, key: str
) -> dict[str, Any]:
    """models/generator: both checkpoints and what is needed to load and to name them."""
    from safetensors.torch import save as to_bytes

    assert state.best_weights is not None
    n_classes = data.n_classes if params.model.conditional else 0
    config = {
        "train_key": key,
        "generator": recipe.generator_config(params, data.shape, n_classes),
        "n_classes": n_classes,
        "class_names": data.class_names,
        "class_counts": data.manifest["splits"]["train"]["class_counts"],
        "data_name": data.name,
        "data_digest": data.digest,
        "best_step": state.best_step,
        "last_step": state.step,
    }
    with files.atomic_folder(paths.GENERATOR) as out:
        files.write_bytes(out / "best.safetensors", to_bytes(state.best_weights))
        files.write_bytes(out / "last.safetensors", to_bytes(weights_of(state.ema)))
        config["weights"] = {
            which: files.file_hash(out / f"{which}.safetensors") for which in ("best", "last")
        }
        files.write_json(out / "config.json", config)
    return config


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
