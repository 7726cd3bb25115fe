"""Real trainings on this machine's device: how long they take, looks and checkpoints included.

    python -m benchmarks.device --work FOLDER [--preset default] [--steps N] [--out FOLDER]

FOLDER holds data/prepared and models/features, as `dvc repro features` leaves them. Each preset is
trained for its own steps, or for --steps, as the stage trains it but without MLflow: samples are
looked at and drawn, the best weights kept, checkpoints written. On CUDA its updates are replayed as
graphs; a twentieth of the steps without them tells what these give. The samples over time go to
--out.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.pages import machine, markdown
from benchmarks.train import synchronise
from pipeline import config, presets
from pipeline.datasets import prepared
from pipeline.training import callbacks, checkpoints, devices, numerics, recipe
from pipeline.training.monitor import Monitor

HEAD = (
    "preset",
    "CUDA graphs",
    "updates of G",
    "training, s",
    "reals/s",
    "looks, s",
    "pictures, s",
    "checkpoints, s",
    "beside the training",
    "fd on test",
)


class Timed:
    """Calls that say how long they took in all."""

    def __init__(self, inner: Callable[..., Any], device: torch.device) -> None:
        self.inner, self.device, self.seconds = inner, device, 0.0

    def __call__(self, *arguments: Any) -> Any:
        synchronise(self.device)
        began = time.perf_counter()
        found = self.inner(*arguments)
        synchronise(self.device)
        self.seconds += time.perf_counter() - began
        return found


def train(values: dict[str, Any], name: str, out: Path | None) -> tuple[str, ...]:
    """One training in this folder, and its row."""
    params = config.check(values)
    data = prepared.load()
    device = devices.pick_device(params.train.device)
    precision = numerics.pick_precision(params.train.precision, device)
    numerics.prepare(device, deterministic=params.train.deterministic)
    split, held_out = data.split("train"), data.split("val")
    n_classes = data.n_classes if params.model.conditional else 0
    task = recipe.make_task(
        params, split.images, split.labels, device, (held_out.images, held_out.labels)
    )
    state = recipe.make_state(params, shape=data.shape, n_classes=n_classes, device=device)
    of_look: dict[str, Any] = {"conditional": params.model.conditional, "device": device}
    monitor = Monitor(data, n=params.train.eval_samples, seed=params.evaluate.seed, **of_look)
    judge = Monitor(data, n=len(split), seed=99, split="test", **of_look)
    with tempfile.TemporaryDirectory() as folder:
        grids = callbacks.grids_of(
            split,
            out or Path(folder),
            latent_dim=params.model.latent_dim,
            n_classes=n_classes,
            seed=params.seed,
            on_file=lambda step, path: None,
        )
        looks = Timed(monitor, device)
        grids.write = pictures = Timed(grids.write, device)  # type: ignore[method-assign]
        synchronise(device)
        began = time.perf_counter()
        with checkpoints.background(Path(folder)) as in_background:
            save = Timed(in_background, device)
            recipe.run(
                params,
                state,
                task,
                precision=precision,
                evaluate=looks,
                save=save,
                callbacks=[callbacks.StopOnDivergence(), grids],
            )
        synchronise(device)
        wall = time.perf_counter() - began
    on_cuda = device.type == "cuda"
    return (
        f"`{name}`",
        ("yes" if params.train.cuda_graphs else "no") if on_cuda else "",
        f"{state.step:,}",
        f"{state.seconds:.1f}",
        f"{state.images / state.seconds:,.0f}",
        *(f"{one.seconds:.2f}" for one in (looks, pictures, save)),
        f"{(wall - state.seconds) / state.seconds:.1%}",
        f"{judge(state.ema)['fd']:.3g}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where data and features are")
    parser.add_argument("--preset", action="append", help="default: default")
    parser.add_argument("--steps", type=int, help="updates of G")
    parser.add_argument("--out", type=Path, help="a folder for the last samples")
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    rows = []
    out = arguments.out.resolve() if arguments.out else None
    for name in arguments.preset or ["default"]:
        values = presets.merged(presets.overlay("default"), presets.overlay(name))
        steps = arguments.steps or values["train"]["steps"]
        for graphs in (True, False) if cuda else (True,):
            wanted = steps if graphs else max(1, steps // 20)
            looks = {"eval_every": max(1, wanted // 8), "checkpoint_every": max(1, wanted // 8)}
            changed = {"steps": wanted, "cuda_graphs": graphs, **looks}
            with contextlib.chdir(arguments.work):
                folder = out / f"{name}_{graphs}" if out else None
                rows.append(train(presets.merged(values, {"train": changed}), name, folder))
            print(*rows[-1], flush=True)
    print("\n".join(markdown(HEAD, rows)))
    print(f"\n{datetime.date.today()}, {machine(devices.pick_device('auto'))}.")


if __name__ == "__main__":
    main()
