"""Train the GAN on the prepared samples: the generator's moving average, its history, its samples.

Continues from the last checkpoint of the same code, data and params; a change starts anew.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import compatibility, files, launch, lineage, logs, parallel, paths, progress
from pipeline.config import Params, check, read_yaml
from pipeline.datasets import prepared
from pipeline.networks import warm_start
from pipeline.networks.warm_start import Start
from pipeline.tracking import models, record
from pipeline.tracking.deliver import EVENTS, deliver_or_keep
from pipeline.tracking.listeners import Announce, Curves
from pipeline.tracking.live import LiveRun
from pipeline.training import callbacks, checkpoints, devices, interrupts, numerics, outs, recipe
from pipeline.training.guard import alarm_tags
from pipeline.training.monitor import Monitor
from pipeline.training.state import State

log = logging.getLogger(__name__)


def main() -> None:
    values = read_yaml(paths.PARAMS)
    params = check(values)
    data = prepared.load()
    compatibility.check_prepared(params, data)
    device = devices.pick_device(params.train.device)
    precision = numerics.agreed(numerics.pick_precision(params.train.precision, device))
    numerics.prepare(device, deterministic=params.train.deterministic)
    inputs = lineage.stage_inputs("train", values)
    # `auto` is another precision on another machine, and then another result.
    inputs["params"]["train.precision"] = numerics.name_of(precision)
    start = _start(params)
    if start is not None:  # what is in the files decides the result, not where they are
        inputs["params"]["model.init_from"] = start.digest
    launch.agree(inputs, **{"train.log_every": params.train.log_every})
    key = lineage.stage_key(inputs)

    split = data.split("train")
    n_classes = data.n_classes if params.model.conditional else 0
    held_out = data.split("val")
    task = recipe.make_task(
        params, split.images, split.labels, device, (held_out.images, held_out.labels)
    )
    state = recipe.make_state(params, shape=data.shape, n_classes=n_classes, device=device)
    if start is not None:
        recipe.warm_start(state, start)
    monitor = Monitor(
        data,
        n=params.train.eval_samples,
        seed=params.evaluate.seed,
        conditional=params.model.conditional,
        device=device,
    )
    train = functools.partial(
        recipe.run, params, state, task, precision=precision, evaluate=monitor
    )
    if parallel.rank() > 0:
        checkpoints.wait()
        checkpoints.restore(state, None)
        with interrupts.held_back() as asked:
            train(save=lambda state: None, asked=asked)
        launch.leave()
        return
    run = record.start(
        "train",
        key,
        experiment=params.tracking.experiment,
        params=values,
        dataset={"name": data.name, "digest": data.digest, "source": params.data.source},
    )
    run.tags.update(lineage.tuned_tags(values))
    run.tags.update(device=devices.describe(device), precision=numerics.name_of(precision))

    checkpoints.prune(paths.checkpoints(), keep=key)
    # Signals are held back to the end. The first of several processes is asked again while it
    # writes its last checkpoint, as torchrun ends all where one has ended; and a training that is
    # done would be lost without its outs.
    with checkpoints.hold(paths.checkpoints(), key) as folder, interrupts.held_back() as asked:
        resumed = checkpoints.resume(state, folder, inputs)
        began = checkpoints.first_start(folder, run.started, resumed=resumed)
        run = dataclasses.replace(run, started=began)
        live = LiveRun(run, params.tracking.upload_every)
        grids = _grids(folder / "grids", params, split, n_classes, live)
        if not resumed:
            grids.write(state)
        train = functools.partial(train, asked=asked)
        _tracked(train, state, folder, live, grids, steps=params.train.steps)
        _write(state, params, data, run, folder)
        best = "best of the checkpoints: step %d, fd %.3g on val"
        log.info(best, state.best_step, state.best_score)
        deliver_or_keep("train")
        checkpoints.discard(folder)


def _tracked(
    train: Callable[..., None],
    state: State,
    folder: Path,
    live: LiveRun,
    grids: callbacks.Grids,
    *,
    steps: int,
) -> None:
    """Train with progress, curves, samples and checkpoints; then part from other processes."""
    reached, before, clock = state.step, state.seconds, time.perf_counter()
    try:
        with (
            progress.bar("train", steps, start=reached) as advance,
            checkpoints.background(folder) as save,
        ):
            train(
                save=save,
                callbacks=[
                    callbacks.StopOnDivergence(),
                    callbacks.ShowProgress(advance, reached),
                    Curves(live),
                    grids,
                    Announce(live),
                ],
            )
    except BaseException as error:
        live.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    launch.leave()
    live.close()
    wall, trained = time.perf_counter() - clock, state.seconds - before
    log.info(
        "beside %.1f s of training: %.1f s (%.1f%%) of looks, tracking and checkpoints",
        trained,
        wall - trained,
        100 * (wall - trained) / max(trained, 1e-9),
    )


def _write(
    state: State, params: Params, data: prepared.Prepared, run: record.RunRecord, folder: Path
) -> None:
    """The stage's outs; `folder` holds the pictures of the samples over time."""
    config = outs.write_generator(state, params, data, run.key)
    outs.write_discriminator(state, params, data, run.key)
    with files.atomic_folder(paths.TRAIN_REPORT) as out:
        files.write_table(out / "history.csv", state.history)
        evaluated = [row for row in state.history if "eval_fd" in row]
        files.write_table(out / "evaluations.csv", evaluated)  # DVC's plots draw gaps as zeros
        if state.events:
            files.write_table(out / EVENTS, state.events)
        run.tags.update(alarm_tags(state.events))
        shutil.copytree(folder / "grids", out / "grids")
        record.finish(run, model=config).write(out)


def _start(params: Params) -> Start | None:
    """The weights that model.init_from names, if any: a folder or a model of the registry."""
    given = params.model.init_from
    if given is None:
        return None
    fetched = models.fetch(given) if given.startswith("models:/") else None
    start = warm_start.read(fetched or Path(given))
    if fetched is not None:  # now: several processes end by os._exit, which removes nothing
        shutil.rmtree(fetched, ignore_errors=True)
    kept = "both networks" if start.discriminator is not None else "the generator alone"
    log.info("starting from %s: %s", given, kept)
    return start


def _grids(
    folder: Path, params: Params, split: prepared.Split, n_classes: int, live: LiveRun
) -> callbacks.Grids:
    """What draws the samples over time; the picture of reals lies beside them."""
    callbacks.save_reals(split, folder, n_classes)
    return callbacks.grids_of(
        split,
        folder,
        latent_dim=params.model.latent_dim,
        n_classes=n_classes,
        seed=params.seed,
        on_file=live.image,
    )


if __name__ == "__main__":
    logs.setup()
    launch.run(main, "pipeline.stages.train")
