"""What each thing that the pipeline does for speed gives on this machine's processor.

Each row is a knob's: the time with it and without it, measured in turn, and the median and range of
the rounds' ratios. Convolutions and augmentation are called here, after a check that both ways give
the same. Trainings are processes of their own, on the digits and without looks, which train some
updates whenever they are asked. Stages run in a clone of the committed state.

    python -m benchmarks.knobs                          # all: a quarter of an hour
    python -m benchmarks.knobs --only gather bf16 --rounds 9
    python -m benchmarks.knobs --out docs/speed.md      # writes the table there

With --only the page's other rows stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn

from benchmarks import overhead, pages
from pipeline import augment, config, errors, files, paths, presets
from pipeline.benchmark import runs
from pipeline.datasets.mnist5k import open_mnist5k
from pipeline.networks import scales
from pipeline.training import loop, numerics, recipe
from pipeline.training.state import State

MARK = "knobs"
HEAD = ("knob", "what", "with", "without", "times as fast", "lowest to highest")
CPU = torch.device("cpu")
LEAST = 0.3  # seconds of calls, a round
UPDATES = 20  # of a training, a round
NEVER = 10**6  # updates
STEPS = 300  # of the stage
REDUCES = 500  # a round


@dataclass(frozen=True)
class Row:
    """Seconds with and without a knob, by rounds; there may be no without."""

    what: str
    on: list[float]
    off: list[float]

    def cells(self) -> tuple[str, ...]:
        on = shown(statistics.median(self.on))
        if not self.off:
            return self.what, on, "", "", f"{shown(min(self.on))} to {shown(max(self.on))}"
        ratios = [b / a for a, b in zip(self.on, self.off, strict=True)]
        times = f"{statistics.median(ratios):.2f}"
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        return self.what, on, shown(statistics.median(self.off)), times, spread


def shown(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def in_turn(
    on: Callable[[], float], off: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    pairs = [(on(), off()) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


# Calls.


def calls(
    on: Callable[[], tuple[Tensor, ...]],
    off: Callable[[], tuple[Tensor, ...]],
    rounds: int,
    *,
    tolerance: float,
) -> tuple[list[float], list[float]]:
    """Seconds a call of each. They must agree, to a share of the largest number."""
    numerics.prepare(CPU, deterministic=False)
    for a, b in zip(on(), off(), strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()
    return in_turn(lambda: seconds_of(on), lambda: seconds_of(off), rounds)


def seconds_of(call: Callable[[], object]) -> float:
    """Of one call, the mean of as many as take LEAST."""
    n, began = 0, time.perf_counter()
    while n == 0 or time.perf_counter() - began < LEAST:
        call()
        n += 1
    return (time.perf_counter() - began) / n


def there_and_back(of: Callable[[], Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """What `of` gives, and the gradients of half its sum of squares."""
    found = of()
    return found.detach(), *torch.autograd.grad(found, leaves, found.detach())


def random_maps(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()


def joined(change: str, rounds: int) -> Row:
    """A convolution of SNGAN's in one with the doubling before or the halving after it."""
    channels, side, n = 256, 32, 16
    conv = nn.Conv2d(channels, channels, 3, 1, 1).to(memory_format=torch.channels_last)
    maps = random_maps(n, channels, *[side // 2 if change == "doubling" else side] * 2)
    ways = {
        "doubling": (
            lambda: scales.conv_of_doubled(conv, maps, side),
            lambda: conv(scales.doubled(maps, side)),
        ),
        "halving": (
            lambda: scales.halved_conv(conv, maps),
            lambda: scales.halved(conv(maps)),
        ),
    }
    leaves = [maps, *conv.parameters()]
    on, off = (functools.partial(there_and_back, of, leaves) for of in ways[change])
    what = (
        f"a convolution joined with the {change} beside it, forward and backward in fp32: "
        f"{n} maps of {channels} channels, sides of {side // 2} and {side}"
    )
    return Row(what, *calls(on, off, rounds, tolerance=1e-4))


def indexed(images: Tensor, places: Tensor) -> Tensor:
    """`augment._at` by plain indexing."""
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2)
    each = torch.arange(len(images)).view(-1, 1, 1)
    return pixels[each, places].permute(0, 3, 1, 2)


def gather(rounds: int) -> Row:
    images, u = random_maps(64, 3, 32, 32), torch.rand(64, 3)

    def augmented() -> Tensor:
        return augment.translation(augment.rotation(images, u[:, :1]), u[:, 1:])

    def on() -> tuple[Tensor, ...]:
        return there_and_back(augmented, [images])

    def off() -> tuple[Tensor, ...]:
        with mock.patch.object(augment, "_at", indexed):
            return on()

    what = (
        "augmentation by `gather` in place of indexing, forward and backward, the same bits: "
        "rotation and translation of 64 images of 32 pixels"
    )
    return Row(what, *calls(on, off, rounds, tolerance=0.0))


# Trainings.


@dataclass(frozen=True)
class Job:
    preset: str
    changes: tuple[str, ...]
    threads: int
    keep_freed: bool = True
    updates: int = UPDATES  # a round


class InTurn(loop.Callback):
    """Has a training wait for a line before each row of its history, and say its seconds."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer

    def wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit
        self.began = time.perf_counter(), time.process_time()

    def on_step(self, state: State, row: loop.Row) -> None:
        wall, processor = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        answer = {"wall": wall / self.updates, "processor": processor / self.updates}
        print(json.dumps(answer), file=self.out, flush=True)
        self.wait()


def train(job: Job) -> None:
    """Be a training that goes on whenever it is asked, until nobody asks any more."""
    never = [f"train.{key}={NEVER}" for key in ("steps", "eval_every", "checkpoint_every")]
    params = config.check(
        runs.settings(job.preset, [*job.changes, *never, f"train.log_every={job.updates}"])
    )
    torch.set_num_threads(job.threads)
    if job.keep_freed:
        numerics.prepare(CPU, deterministic=False)
    digits = open_mnist5k(Path(), Path())
    images = digits.images[..., None]
    task = recipe.make_task(params, images, digits.labels.astype(np.int64), CPU)
    n_classes = 10 if params.model.conditional else 0
    state = recipe.make_state(params, shape=images.shape[1:], n_classes=n_classes, device=CPU)
    turns = InTurn(job.updates)
    turns.wait()
    recipe.run(
        params,
        state,
        task,
        precision=numerics.pick_precision(params.train.precision, CPU),
        evaluate=lambda generator: {"fd": 1.0},
        save=lambda state: None,
        callbacks=[turns],
    )


class Training:
    """A process that trains, with a compiler's cache of its own, empty at first."""

    def __init__(self, job: Job, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.knobs", "--worker", json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder},
        )

    def ask(self, clock: str) -> float:
        """Seconds an update, of the next ones."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a training ended with code {self.process.wait()}")
        return json.loads(line)[clock]

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def trainings(
    on: Job, off: Job, rounds: int, *, clock: str = "wall"
) -> tuple[list[float], list[float], float]:
    """Seconds an update of each, and how many more than those of `off` the first of `on` took."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [Training(job, folder) for job in (on, off)]
        try:
            first = [process.ask(clock) for process in processes]
            a, b = (functools.partial(process.ask, clock) for process in processes)
            found = in_turn(a, b, rounds)
        finally:
            for process in processes:
                process.close()
    more = [one - statistics.median(usual) for one, usual in zip(first, found, strict=True)]
    return *found, on.updates * more[0] - off.updates * more[1]


def bf16(rounds: int) -> Row:
    on, off = (
        Job("dcgan", (f"train.precision={precision}",), torch.get_num_threads())
        for precision in ("bf16", "fp32")
    )
    a, b, _ = trainings(on, off, rounds)
    return Row("bf16 in place of fp32: an update of `dcgan`", a, b)


def freed(precision: str, batch_size: int, rounds: int) -> Row:
    changes = (f"train.precision={precision}", f"train.batch_size={batch_size}")
    updates = max(1, UPDATES * 64 // batch_size)
    on, off = (Job("dcgan", changes, 1, kept, updates) for kept in (True, False))
    a, b, _ = trainings(on, off, rounds, clock="processor")
    what = f"freed memory kept: the processor's time of an update of `dcgan` in {precision}"
    return Row(f"{what}, batch {batch_size}, one thread", a, b)


def compiled(precision: str, rounds: int) -> Row:
    on, off = (
        Job(
            "default",
            (f"train.precision={precision}", f"train.compile={compiles}"),
            torch.get_num_threads(),
        )
        for compiles in ("true", "false")
    )
    a, b, more = trainings(on, off, rounds)
    what = f"`train.compile`: an update of the default in {precision}, "
    return Row(f"{what}after {more:.0f} s of compiling", a, b)


# Several processes.


def trained(root: Path) -> float:
    """What the stage says of its updates: without its start."""
    with (root / paths.TRAIN_REPORT / "history.csv").open() as file:
        return float([*csv.DictReader(file)][-1]["seconds"])


def stage(name: str, rounds: int) -> Row:
    """The default's stage in two processes and in one, on as many cores."""
    cores = 2 * max(1, (os.cpu_count() or 2) // 2)

    def run(module: str, devices: int) -> float:
        presets.write({"train": {"devices": devices}}, root / paths.PARAMS)
        threads = f"OMP_NUM_THREADS={cores // devices}"
        return overhead.shell(f"{threads} python -m pipeline.stages.{module}", root)[0]

    def seconds(devices: int) -> float:
        wall = run(name, devices)
        return trained(root) if name == "train" else wall

    with tempfile.TemporaryDirectory() as folder:
        root = overhead.clone(Path(folder))
        presets.use("default", root / paths.PARAMS, everything=True)
        few = {"steps": STEPS, "eval_every": STEPS, "checkpoint_every": STEPS, "device": "cpu"}
        presets.write({"train": few}, root / paths.PARAMS)
        for before in ("prepare", "features", *(["train"] if name == "evaluate" else [])):
            run(before, 1)
        found = in_turn(lambda: seconds(2), lambda: seconds(1), rounds)
    did = f"{STEPS} updates of the default" if name == "train" else "`evaluate` of the default"
    return Row(f"two processes in place of one, on {cores} cores: {did}", *found)


def reduce(rank: int, folder: str, rounds: int) -> None:
    """One of two processes that sum 100 numbers again and again; the first writes the seconds."""
    meet = Path(folder) / "meet"
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    numbers, found = torch.zeros(100), []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        for _ in range(REDUCES):
            distributed.all_reduce(numbers)
        found.append((time.perf_counter() - began) / REDUCES)
    if rank == 0:
        files.write_json(Path(folder) / "seconds.json", found[1:])
    distributed.destroy_process_group()


def all_reduce(rounds: int) -> Row:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(reduce, (folder, rounds), nprocs=2)
        found = files.read_json(Path(folder) / "seconds.json")
    return Row("an all-reduce of 100 numbers between two processes, over gloo", found, [])


KNOBS: dict[str, Callable[[int], Row]] = {
    "doubling": functools.partial(joined, "doubling"),
    "halving": functools.partial(joined, "halving"),
    "gather": gather,
    "freed-fp32": functools.partial(freed, "fp32", 64),
    "freed-bf16": functools.partial(freed, "bf16", 64),
    "freed-large": functools.partial(freed, "fp32", 1024),
    "bf16": bf16,
    "compile-fp32": functools.partial(compiled, "fp32"),
    "compile-bf16": functools.partial(compiled, "bf16"),
    "devices-train": functools.partial(stage, "train"),
    "devices-evaluate": functools.partial(stage, "evaluate"),
    "all-reduce": all_reduce,
}


# The page.


def read(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The page's lines by knob, and how each was measured."""
    _, text, _ = pages.place(path, MARK)
    lines = {found[1]: found[0] for found in re.finditer(r"^\| `(.*?)` \|.*$", text, re.M)}
    stamps = {
        name: stamp
        for names, stamp in re.findall(r"^(`.*`): (.*)$", text, re.M)
        for name in re.findall(r"`(.*?)`", names)
    }
    return lines, stamps


def table(lines: dict[str, str], stamps: dict[str, str]) -> list[str]:
    head, rule = pages.markdown(HEAD, [])
    known = [name for name in KNOBS if name in lines and name in stamps]
    told = []
    for stamp in dict.fromkeys(stamps[name] for name in known):
        names = ", ".join(f"`{name}`" for name in known if stamps[name] == stamp)
        told += ["", f"{names}: {stamp}"]
    return [head, rule, *(lines[name] for name in known), *told]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=KNOBS, metavar="NAME", help=", ".join(KNOBS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the page to write the table to")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        train(Job(**json.loads(arguments.worker)))
        return
    lines, stamps = read(arguments.out) if arguments.out else ({}, {})
    stamp = (
        f"{date.today()}, {pages.machine(CPU)}; {pages.beside()}; "
        f"medians over {arguments.rounds} rounds."
    )
    for name in arguments.only or KNOBS:
        row = KNOBS[name](arguments.rounds)
        lines[name] = pages.line((f"`{name}`", *row.cells()))
        stamps[name] = stamp
        print(lines[name], flush=True)
        if arguments.out:
            pages.write(arguments.out, MARK, table(lines, stamps))
    print("\n" + "\n".join(table(lines, stamps)))


if __name__ == "__main__":
    errors.run(main)
