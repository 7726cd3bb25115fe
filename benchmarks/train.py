"""Images a second of the training loop against torch-mimicry's and the PyTorch DCGAN example's.

The same networks, batch and images for each: mimicry's DCGAN-32 and SNGAN-32 by its own training
steps and by this loop, SNGAN's D there made of the pipeline's own blocks; the DCGAN example's
networks at 64 pixels, and the pipeline's own DCGAN at 32, by the usual tutorial loop, which is
written anew here, and by this loop. Each contender is a process of its own with a share of the
steps in turn, so that what else runs on the machine falls on all alike; ratios are medians over the
rounds. This loop also keeps a moving average of G, which the others do not.

Before it measures, the benchmark gives the other's weights to this loop's networks and compares
what they say of the same batch, to TOLERANCE. There is one difference: in mimicry's SNGAN
discriminator a ReLU that works in place changes what the shortcut beside it gets, x to relu(x),
which the paper's does not, nor the pipeline's. It gives this loop no time: both have as many
layers, products and ReLUs, and one in place writes no new maps. mimicry's DCGAN-32 has the same
ReLU, for both contenders alike.

mimicry is installed without its dependencies (its package imports TensorFlow, which no training
step needs) into a folder of the benchmark's own, .cache/benchmarks/mimicry, and only its networks
and steps are imported.

On CUDA this loop replays its updates as graphs; beside that it is measured without them, and with
networks that went through torch.compile.

    python -m benchmarks.train                        # all networks
    python -m benchmarks.train --only sngan --rounds 7
    python -m benchmarks.train --out docs/speed.md    # writes the tables there
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import pages
from pipeline import errors, paths
from pipeline.losses import LOSSES
from pipeline.networks import heads
from pipeline.networks.build import build
from pipeline.networks.heads import Verdict
from pipeline.networks.resnet import Down
from pipeline.training import devices, loop, numerics
from pipeline.training.balance import Fixed
from pipeline.training.loop import Callback
from pipeline.training.optimizers import OPTIMIZERS
from pipeline.training.schedules import SCHEDULES
from pipeline.training.state import Average, State, average_of
from pipeline.training.tasks import Batch, Generate

MIMICRY = "torch-mimicry==0.1.16"
IMAGES = 2048  # random ones: their content costs no time
OURS = ("ours fp32", "ours bf16")
ON_CUDA = ("ours bf16, no graphs", "ours bf16, compiled")  # beside these
# network -> whom this loop is compared with; images' side; D updates a round
NETWORKS = {
    "dcgan": ("mimicry", 32, 1),
    "sngan": ("mimicry", 32, 5),
    "example": ("tutorial", 64, 1),
    "own": ("tutorial", 32, 1),
}
TITLES = {
    "dcgan": "mimicry's DCGAN-32",
    "sngan": "mimicry's SNGAN-32, 5 D updates a G update",
    "example": "the PyTorch example's DCGAN, 64 pixels",
    "own": "the pipeline's DCGAN, 32 pixels, width 64",
}
# times the other: in fp32, in bf16; asked for on a CPU
WANTED = {"dcgan": (1.8, 3.5), "sngan": (1.8, 3.5), "example": (1.15, 1.8)}
RATE, BETAS = 2e-4, [0.0, 0.9]
TOLERANCE = 1e-4  # of the largest output: how far the same networks may be apart, in float32
LOG_EVERY = 50  # steps per row of the history, as by default

Run = Callable[[int], float | None]  # trains so many G updates; seconds, where it has timed itself


# The networks.


def mimicry_folder() -> Path:
    """Where mimicry is, installed on first use."""
    folder = paths.benchmarks() / "mimicry"
    if not (folder / "torch_mimicry").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), MIMICRY], check=True)
    return folder


def mimicry_networks(name: str) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator, by mimicry's own classes and initial weights."""
    folder = mimicry_folder()
    sys.path.insert(0, str(folder))
    # Their own __init__ import TensorFlow and TensorBoard: empty packages instead find the rest.
    for name_ in ("torch_mimicry", "torch_mimicry.training"):
        package = types.ModuleType(name_)
        package.__path__ = [str(folder / name_.replace(".", "/"))]
        sys.modules[name_] = package
    if name == "dcgan":
        from torch_mimicry.nets.dcgan import dcgan_32

        return dcgan_32.DCGANGenerator32(), dcgan_32.DCGANDiscriminator32()
    from torch_mimicry.nets.sngan import sngan_32

    return sngan_32.SNGANGenerator32(), sngan_32.SNGANDiscriminator32()


def contenders(network: str, device: torch.device) -> tuple[str, ...]:
    return (NETWORKS[network][0], *OURS, *(ON_CUDA if device.type == "cuda" else ()))


def networks_of(network: str) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator as whom this loop is compared with has them."""
    if network == "example":
        return example_networks()
    if network == "own":
        of_both: dict[str, Any] = {"shape": (32, 32, 3), "n_classes": 0, "width": 64}
        g, d = build("dcgan", latent_dim=128, spectral_norm=False, seed=0, **of_both)
        return g, Logits(d)
    return mimicry_networks(network)


def networks_here(network: str) -> tuple[nn.Module, ...]:
    """The same networks as this loop trains them."""
    g, d = networks_of(network)
    here = (g, sngan_discriminator() if network == "sngan" else d)
    return tuple(module.to(memory_format=torch.channels_last) for module in here)  # type: ignore[call-overload]


class Logits(nn.Module):
    """A discriminator of the pipeline's, as the tutorial's loop calls one."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: Tensor) -> Tensor:
        return self.discriminator(images).logits


def sngan_discriminator(width: int = 128) -> nn.Module:
    """mimicry's SNGAN discriminator of 32 pixels, made of the pipeline's blocks.

    The same layers, whose weights have the same shapes; a convolution and the halving after it are
    computed as one. (mimicry's generator doubles bilinearly, the pipeline's by repeated pixels:
    both contenders have mimicry's.)
    """
    norm = heads.normalised(True)
    ends = [(3, width), *[(width, width)] * 3]
    blocks = [
        Down(n_in, n_out, norm, first=i == 0, halves=i < 2) for i, (n_in, n_out) in enumerate(ends)
    ]
    return nn.Sequential(*blocks, nn.ReLU(), Sums(), norm(nn.Linear(width, 1)))


class Sums(nn.Module):
    """Maps (N, C, H, W) -> (N, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.sum(dim=(2, 3))


def example_networks(latent_dim: int = 100, width: int = 64) -> tuple[nn.Module, nn.Module]:
    """The DCGAN of the tutorial: five transposed convolutions against five convolutions."""
    channels = [8 * width, 4 * width, 2 * width, width]
    g: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, channels[0], 4, 1, 0, bias=False)]
    for n_in, n_out in itertools.pairwise(channels):
        g += [nn.BatchNorm2d(n_in), nn.ReLU(True)]
        g += [nn.ConvTranspose2d(n_in, n_out, 4, 2, 1, bias=False)]
    g += [nn.BatchNorm2d(channels[-1]), nn.ReLU(True)]
    g += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
    d: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for n_in, n_out in itertools.pairwise(channels[::-1]):
        d += [nn.Conv2d(n_in, n_out, 4, 2, 1, bias=False), nn.BatchNorm2d(n_out)]
        d += [nn.LeakyReLU(0.2, True)]
    d += [nn.Conv2d(channels[0], 1, 4, 1, 0, bias=False)]
    networks = nn.Sequential(*g), nn.Sequential(*d)
    for module in itertools.chain(*(network.modules() for network in networks)):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return networks


def latents_of(network: str) -> tuple[int, ...]:
    """The shape of one latent vector."""
    return (100, 1, 1) if network == "example" else (128,)


def pixels(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)


# Whether the networks are the same.


@torch.no_grad()
def compare(network: str) -> str:
    """How far the networks here are from those that they are compared with, in words.

    Raises SystemExit where they are not the same.
    """
    torch.manual_seed(0)
    side, said = NETWORKS[network][1], []
    inputs = torch.randn(8, *latents_of(network)), torch.rand(8, 3, side, side) * 2 - 1
    pairs = zip("GD", networks_of(network), networks_here(network), inputs, strict=True)
    for name, theirs, ours, batch in pairs:
        if type(ours) is type(theirs):
            said.append(f"{name} is of one class")
            continue
        take_normalised(theirs, ours, batch)
        said.append(f"{name} with ReLU in place {apart(ours(batch), theirs(batch)):.2g}")
        for module in theirs.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        distance = apart(ours(batch), theirs(batch))
        said.append(f"{name} {distance:.2g}")
        if distance > TOLERANCE:
            raise SystemExit(f"{network}: not the same networks: {', '.join(said)} apart")
    return f"{network}: the same networks; apart, of the largest output: {', '.join(said)}"


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def take_normalised(theirs: nn.Module, ours: nn.Module, images: Tensor) -> None:
    """Give weights and the estimates of their norms to `ours`, layer by layer; no more learning.

    mimicry's estimates begin at random vectors, the pipeline's after 15 steps of the same power
    iteration, and each then takes its half steps in another order: while they train they are near
    each other only once they have settled.
    """
    for _ in range(20):
        theirs(images)
    layers = (
        [one for one in module.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        for module in (theirs, ours)
    )
    for given, layer in zip(*layers, strict=True):
        norm = layer.parametrizations.weight  # type: ignore[union-attr]
        norm.original.copy_(given.weight_orig)
        norm[0]._u.copy_(given.weight_u)
        norm[0]._v.copy_(given.weight_v)
        layer.bias.copy_(given.bias)
    theirs.eval()
    ours.eval()


# The contenders.


def mimicry(network: str, batch_size: int, device: torch.device) -> Run:
    """mimicry's trainer: its steps in its order; batches come from memory, without a loader."""
    g, d = mimicry_networks(network)
    from torch_mimicry.training.metric_log import MetricLog

    g.to(device)
    d.to(device)
    optimizers = [torch.optim.Adam(m.parameters(), RATE, betas=tuple(BETAS)) for m in (g, d)]
    _, side, n_dis = NETWORKS[network]
    images = torch.from_numpy(pixels(side)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    images = images.contiguous()
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)

    def run(steps: int) -> None:
        for step in range(steps):
            told = MetricLog()
            for i in range(n_dis):
                chosen = torch.randint(IMAGES, (batch_size,))
                batch = (images[chosen].to(device), labels)
                shared = {"log_data": told, "global_step": step, "device": device}
                told = d.train_step(real_batch=batch, netG=g, optD=optimizers[1], **shared)
                if i == n_dis - 1:
                    told = g.train_step(real_batch=batch, netD=d, optG=optimizers[0], **shared)

    return run


def tutorial(network: str, batch_size: int, device: torch.device) -> Run:
    """The loop of the DCGAN tutorial: reals, then fakes, then G, with figures of every step."""
    g, d = (module.to(device) for module in networks_of(network))
    side, latents = NETWORKS[network][1], latents_of(network)
    criterion = nn.BCEWithLogitsLoss()
    optimizer_d = torch.optim.Adam(d.parameters(), lr=RATE, betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(g.parameters(), lr=RATE, betas=(0.5, 0.999))
    images = torch.from_numpy(pixels(side)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    dataset = torch.utils.data.TensorDataset(images.contiguous())
    loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, drop_last=True)

    def epochs() -> Iterator[Tensor]:
        while True:
            for (batch,) in loader:
                yield batch

    batches = epochs()

    def run(steps: int) -> None:
        for _ in range(steps):
            real = next(batches).to(device)
            label = torch.full((len(real),), 1.0, device=device)
            d.zero_grad()
            output = d(real).view(-1)
            error_real = criterion(output, label)
            error_real.backward()
            noise = torch.randn(len(real), *latents, device=device)
            fake = g(noise)
            label.fill_(0.0)
            output = d(fake.detach()).view(-1)
            error_fake = criterion(output, label)
            error_fake.backward()
            optimizer_d.step()
            g.zero_grad()
            label.fill_(1.0)
            output = d(fake).view(-1)
            error_g = criterion(output, label)
            error_g.backward()
            optimizer_g.step()
            _ = (error_real + error_fake).item(), error_g.item(), output.mean().item()

    return run


class Foreign(Generate):
    """Unconditional generation with networks that are not the pipeline's."""

    of_each: tuple[int, ...]  # the shape of one latent vector
    graphs = True  # not while phases are timed

    def fake(self, generator: nn.Module, batch: Batch) -> Tensor:
        return generator(batch.latents.view(-1, *self.of_each))

    def judge(self, discriminator: nn.Module, images: Tensor, batch: Batch) -> Verdict:
        logits = discriminator(images).reshape(-1)
        return Verdict(logits, logits, None)


class Clock(Callback):
    """Seconds since the second row of the history: the first may come before a capture."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.rows = device, 0
        self.began: float | None = None

    def on_step(self, state: State, row: loop.Row) -> None:
        self.rows += 1
        if self.rows == 2:
            synchronise(self.device)
            self.began, self.first = time.perf_counter(), state.step

    def seconds(self, state: State, steps: int) -> float:
        """Of so many steps, by those since then."""
        assert self.began is not None
        synchronise(self.device)
        return (time.perf_counter() - self.began) * steps / (state.step - self.first)


def ours(network: str, batch_size: int, device: torch.device, name: str) -> Run:
    """This loop."""
    numerics.prepare(device, deterministic=False)
    _, side, n_dis = NETWORKS[network]
    g, d = (module.to(device) for module in networks_here(network))
    average = average_of(g)
    betas = [0.5, 0.999] if network == "example" else BETAS
    optimizers = [OPTIMIZERS["adam"](m.parameters(), RATE, betas, 0.0) for m in (g, d)]
    state = State(g, d, average, *optimizers, Fixed(d_steps=n_dis, g_steps=1))
    latents = latents_of(network)
    task = Foreign(
        pixels(side), None, latent_dim=latents[0], batch_size=batch_size, seed=0, device=device
    )
    task.of_each = latents

    def run(steps: int) -> float | None:
        """Where updates are replayed, the seconds without those in which they are captured."""
        clock = Clock(device) if device.type == "cuda" else None
        loop.train(
            state,
            task,
            loss=LOSSES["hinge" if network == "sngan" else "non_saturating"],
            terms=[],
            weight_clip=None,
            steps=state.step + steps + (2 * LOG_EVERY if clock else 0),
            lr_g=RATE,
            lr_d=RATE,
            schedule_g=SCHEDULES["none"],
            schedule_d=SCHEDULES["none"],
            clip_grad=None,
            ema_decay=0.999,
            ema_warmup=10.0,
            precision=torch.bfloat16 if "bf16" in name else torch.float32,
            compile="compiled" in name,
            cuda_graphs="no graphs" not in name and task.graphs,
            log_every=LOG_EVERY,
            eval_every=10**9,
            checkpoint_every=10**9,
            evaluate=lambda generator: {"fd": 1.0},
            save=lambda state: None,
            callbacks=[clock] if clock else [],
        )
        return clock.seconds(state, steps) if clock else None

    run.state, run.task = state, task  # type: ignore[attr-defined]
    return run


def contender(name: str, network: str, batch_size: int, device: torch.device) -> Run:
    if name == "mimicry":
        run = mimicry(network, batch_size, device)
    elif name == "tutorial":
        run = tutorial(network, batch_size, device)
    else:
        run = ours(network, batch_size, device, name)
    return run


# Time by phase, of this loop.


class Phases:
    """Seconds by phase while it is in force: methods of the loop's parts are wrapped."""

    def __init__(self, run: Any, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self.device, self.run = device, run
        self.undo: list[Callable[[], None]] = []

    def __enter__(self) -> Phases:
        state, task = self.run.state, self.run.task
        task.graphs = False  # a replay has no phases
        self._wrap(task, "drawn", "data and noise")
        self._wrap(task, "batch", "data and noise")
        self._wrap(task, "fake", "G forward")
        self._wrap(task, "judge", "D forward")
        self._wrap(torch.Tensor, "backward", "backward")
        self._wrap(state.optimizer_g, "step", "optimizers")
        self._wrap(state.optimizer_d, "step", "optimizers")
        self._wrap(Average, "update", "moving average")
        return self

    def __exit__(self, *_: object) -> None:
        self.run.task.graphs = True
        for undo in self.undo:
            undo()

    def _wrap(self, owner: Any, name: str, phase: str) -> None:
        inner = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            synchronise(self.device)
            began = time.perf_counter()
            found = inner(*arguments, **named)
            synchronise(self.device)
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began
            return found

        own = name in vars(owner)
        setattr(owner, name, timed)
        self.undo.append(lambda: setattr(owner, name, inner) if own else delattr(owner, name))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Workers, who do what they are told on standard input, and the one who tells them.


def work(name: str, network: str, batch_size: int, device_name: str) -> None:
    """Serve requests, a JSON line each: {"steps": k, "phases": false}."""
    device = devices.pick_device(device_name)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.manual_seed(0)
    run = contender(name, network, batch_size, device)
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        synchronise(device)
        began = time.perf_counter()
        timed = None
        if asked["phases"]:
            with Phases(run, device) as phases:
                run(asked["steps"])
            answer["phases"] = phases.seconds
        else:
            timed = run(asked["steps"])
        synchronise(device)
        answer["seconds"] = timed or time.perf_counter() - began
        answer["memory_mb"] = devices.peak_memory_mb(device)
        print(json.dumps(answer), file=out, flush=True)


class Worker:
    def __init__(self, name: str, network: str, batch_size: int, device: str) -> None:
        command = [sys.executable, "-m", "benchmarks.train", "--worker", name, "--only", network]
        command += ["--batch", str(batch_size), "--device", device]
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, steps: int, *, phases: bool = False) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"steps": steps, "phases": phases}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with code {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def measure(network: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Rounds in which every contender trains in turn; seconds of each, phases, memory."""
    names = contenders(network, devices.pick_device(arguments.device))
    names = tuple(name for name in names if name not in (arguments.leave_out or ()))
    workers = {name: Worker(name, network, arguments.batch, arguments.device) for name in names}
    try:
        first = {name: worker.ask(1) for name, worker in workers.items()}  # warm-up
        # As many steps as take the slowest some seconds.
        slowest = max(workers[name].ask(1)["seconds"] for name in names)
        steps = max(1, round(arguments.seconds / slowest))
        seconds: dict[str, list[float]] = {name: [] for name in names}
        last = first
        for i in range(arguments.rounds):
            for name, worker in workers.items():
                last[name] = worker.ask(steps)
                seconds[name].append(last[name]["seconds"] / steps)
            told = ", ".join(f"{name} {1e3 * values[-1]:.4g}" for name, values in seconds.items())
            print(f"{network}, round {i + 1} of {arguments.rounds}: {told} ms a step", flush=True)
        phases = {name: workers[name].ask(steps, phases=True) for name in OURS if name in names}
    finally:
        for worker in workers.values():
            worker.close()
    return {
        "seconds": seconds,
        "memory": {name: answer["memory_mb"] for name, answer in last.items()},
        "phases": {name: shares(answer) for name, answer in phases.items()},
    }


def shares(answer: dict[str, Any]) -> dict[str, float]:
    """Of the time of some steps: the share of each phase, and of the rest."""
    found = {name: value / answer["seconds"] for name, value in answer["phases"].items()}
    return {**found, "losses, meters, the rest": 1 - sum(found.values())}


# Tables.


def table(network: str, found: dict[str, Any], batch_size: int) -> list[str]:
    names, (base_name, _, n_dis) = tuple(found["seconds"]), NETWORKS[network]
    base = found["seconds"][base_name]
    head = ("", "images/s", f"times {base_name}", "lowest to highest", "wanted", "peak memory, MB")
    asked = dict(zip(OURS, WANTED.get(network, ()), strict=False))
    rows = []
    for name in names:
        target = f"{asked[name]:g}" if name in asked else ""
        seconds = found["seconds"][name]
        ratios = [a / b for a, b in zip(base, seconds, strict=True)]
        rate = batch_size * n_dis / statistics.median(seconds)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if name != base_name else ""
        ratio = f"{statistics.median(ratios):.2f}"
        rows.append((name, f"{rate:,.1f}", ratio, spread, target, f"{found['memory'][name]:.0f}"))
    timed: dict[str, dict[str, float]] = found["phases"]
    phase_head = ("phase", *timed)
    phase_rows = [
        (phase, *(f"{of_phases.get(phase, 0):.0%}" for of_phases in timed.values()))
        for phase in dict.fromkeys(phase for of_phases in timed.values() for phase in of_phases)
    ]
    return [
        f"### {TITLES[network]}, batch {batch_size}",
        "",
        *pages.markdown(head, rows),
        "",
        *pages.markdown(phase_head, phase_rows),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=NETWORKS, help="one of the networks")
    parser.add_argument("--leave-out", action="append", choices=(*OURS, *ON_CUDA))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of the slowest, a round")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="the page to write the tables to")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.only, arguments.batch, arguments.device)
        return
    mimicry_folder()
    device = devices.pick_device(arguments.device)
    networks = [arguments.only] if arguments.only else [*NETWORKS]
    if arguments.out:  # before an hour of measuring
        for network in networks:
            pages.place(arguments.out, f"speed: {network}")
    for network in networks:
        print(compare(network), flush=True)
        lines = table(network, measure(network, arguments), arguments.batch)
        print("\n".join(lines), flush=True)
        if arguments.out:
            day = datetime.datetime.now(datetime.UTC).date()
            said = f"{day}, {pages.machine(device)}; medians over {arguments.rounds} rounds."
            pages.write(arguments.out, f"speed: {network}", [*lines, said])


if __name__ == "__main__":
    errors.run(main)
