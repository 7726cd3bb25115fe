"""Adversarial tasks: what a batch is, what G makes of it and what D sees of it.

The loop calls nothing but the methods of `Task`; another task (paired images, super-resolution) is
another class beside `Generate`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import parallel
from pipeline.augment import Adaptive, Augment
from pipeline.networks.heads import Verdict
from pipeline.regularizers import GeneratorTerm, Memory
from pipeline.training import devices, randomness
from pipeline.training.state import State

# Up to here a set is copied to memory once; a larger one is read from disk batch by batch. On CUDA
# up to this share of what is free there: networks and other workers of a search need room too.
RESIDENT_BYTES = 2 * 2**30
RESIDENT_SHARE = 1 / 4


class Task(Protocol):
    """What an update does with a batch must be a function of tensors, and the same one each time.

    It may be replayed as a CUDA graph: what changes from round to round (a noise that falls, a
    share that a controller moves) must be a tensor that changes in place.
    """

    batch_size: int  # reals that D is shown in an update, in all processes together

    def begin(self, state: State, progress: float) -> None:
        """Before each round: what depends on how far the training is, `progress` in [0, 1)."""

    def drawn(self, counter: int) -> tuple[tuple[Tensor, ...], randomness.Draws]:
        """What the host draws for the `counter`-th batch: a function of the counter alone.

        Tensors on the CPU, and what is to be drawn while the batch is used.
        """

    def batch(self, drawn: tuple[Tensor, ...], draws: randomness.Draws) -> Any:
        """The batch of what was drawn, once it is on the device: a function of tensors alone."""

    def batch_at(self, counter: int) -> Any:
        """The `counter`-th batch."""

    def held_out(self, counter: int) -> Any | None:
        """The `counter`-th batch of what D never learns from; None where there is none."""

    def real(self, batch: Any) -> Tensor:
        """What D should take for real: images (N, C, H, W) in [-1, 1], or points (N, D)."""

    def fake(self, generator: nn.Module, batch: Any) -> Tensor:
        """What G makes, shaped like `real`."""

    def judge(self, discriminator: nn.Module, images: Tensor, batch: Any) -> Verdict:
        """What D says of reals or fakes."""

    def discriminator_terms(self, real: Verdict, fake: Verdict, batch: Any) -> Tensor | None:
        """What D minimises beside the adversarial loss: a scalar, or None."""

    def generator_terms(self, fake: Tensor, verdict: Verdict, batch: Any) -> Tensor | None:
        """What G minimises beside the adversarial loss: a scalar, or None."""

    def uniform(self, batch: Any, shape: tuple[int, ...]) -> Tensor:
        """Uniform numbers in [0, 1) on the device, drawn with the batch."""

    def penalise(
        self, term: GeneratorTerm, generator: nn.Module, batch: Any, memory: Memory
    ) -> Tensor:
        """A term of the generator itself, with its input from the batch: a scalar."""

    def judged(self, real_logits: Tensor) -> dict[str, Tensor]:
        """After each update of D, its logits on reals; scalars for the history."""


@dataclass(frozen=True)
class Batch:
    images: Tensor  # (N, C, H, W) in [-1, 1], channels last; points (N, D)
    latents: Tensor  # (N, latent_dim)
    labels: Tensor | None  # (N,) int64
    draws: randomness.Draws  # what else is drawn while this batch is used


class Generate:
    """Latent vectors, and classes where conditional, to images or points.

    images: uint8 (n, H, W, C) or points float32 (n, D), an array or a memory map; labels: int64
    (n,), or None for unconditional training. Fakes get the classes of the reals beside them.
    `held_out`: more of both, that D never learns from.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        *,
        latent_dim: int,
        batch_size: int,  # of all processes together
        seed: int,
        device: torch.device,
        augment: Augment | None = None,  # of all that D sees
        instance_noise: float = 0.0,  # deviation at the start of what D sees; falls to zero
        pack: int = 1,  # samples that D judges together
        held_out: tuple[np.ndarray, np.ndarray | None] | None = None,
    ) -> None:
        self.augment, self.instance_noise, self.pack = augment, instance_noise, pack
        self.noise = torch.tensor(instance_noise, device=device)
        self.batch_size, self.latent_dim = batch_size, latent_dim
        self.seed, self.device = seed, device
        self.chosen = functools.partial(_chosen, len(images), batch_size, seed)
        resident = images.nbytes <= _room(device)
        self.images = _resident(images, device) if resident else None
        self.read = None if resident else ReadAhead(functools.partial(_read, images, self.chosen))
        self.labels = None if labels is None else torch.from_numpy(np.array(labels)).to(device)
        self.aside = held_out

    def begin(self, state: State, progress: float) -> None:
        if self.instance_noise:
            self.noise.fill_(self.instance_noise * (1 - progress))
        for network in (state.generator, state.discriminator, state.ema):
            if hasattr(network, "grow"):
                network.grow(progress)  # type: ignore[operator]
        if isinstance(self.augment, Adaptive):
            self.augment.p = state.memory.setdefault(
                "augment_p", torch.zeros(1, device=self.device)
            )

    def drawn(self, counter: int) -> tuple[tuple[Tensor, ...], randomness.Draws]:
        latents = randomness.normal((self.batch_size, self.latent_dim), self.seed, counter)
        latents, chosen = parallel.shard(latents), self.chosen(counter)
        draws = randomness.Draws(self.seed, counter)
        read = () if self.read is None else (self.read(counter),)
        return (latents, chosen, *read), draws

    def batch(self, drawn: tuple[Tensor, ...], draws: randomness.Draws) -> Batch:
        latents, chosen, *read = drawn
        stored = read[0] if self.images is None else self.images[chosen]
        labels = None if self.labels is None else self.labels[chosen]
        return Batch(for_networks(stored), latents, labels, draws)

    def batch_at(self, counter: int) -> Batch:
        drawn, draws = self.drawn(counter)
        return self.batch(tuple(devices.moved(x, self.device) for x in drawn), draws)

    def held_out(self, counter: int) -> Batch | None:
        if self.aside is None:
            return None
        images, labels = self.aside
        indices = randomness.batch_indices(len(images), self.batch_size, self.seed, counter)
        chosen = parallel.shard(indices).numpy()
        shown = devices.moved(torch.from_numpy(images[chosen]), self.device)
        classes = None
        if labels is not None:
            classes = devices.moved(torch.from_numpy(labels[chosen]), self.device)
        latents = torch.zeros((len(chosen), self.latent_dim), device=self.device)
        return Batch(for_networks(shown), latents, classes, randomness.Draws(self.seed, counter))

    def real(self, batch: Batch) -> Tensor:
        return batch.images

    def fake(self, generator: nn.Module, batch: Batch) -> Tensor:
        return generator(batch.latents, batch.labels)

    def judge(self, discriminator: nn.Module, images: Tensor, batch: Batch) -> Verdict:
        if self.augment is not None:
            images = self.augment(images, batch.draws)
        if self.instance_noise:
            noise = devices.moved(batch.draws.normal(tuple(images.shape)), images.device)
            images = images + self.noise * noise
        if self.pack > 1:
            # PacGAN (Lin et al. 2018, arXiv:1712.04086): side by side, as more channels.
            images = images.unflatten(0, (-1, self.pack)).flatten(1, 2)
        return discriminator(images, batch.labels)

    def discriminator_terms(self, real: Verdict, fake: Verdict, batch: Batch) -> Tensor | None:
        of_real, of_fake = _misnamed(real, batch), _misnamed(fake, batch)
        return None if of_real is None or of_fake is None else of_real + of_fake

    def generator_terms(self, fake: Tensor, verdict: Verdict, batch: Batch) -> Tensor | None:
        return _misnamed(verdict, batch)

    def uniform(self, batch: Batch, shape: tuple[int, ...]) -> Tensor:
        return devices.moved(batch.draws.uniform(shape), self.device)

    def penalise(
        self, term: GeneratorTerm, generator: nn.Module, batch: Batch, memory: Memory
    ) -> Tensor:
        def normal(shape: tuple[int, ...]) -> Tensor:
            return devices.moved(batch.draws.normal(shape), self.device)

        return term.penalty(generator, batch.latents, batch.labels, normal, memory)

    def judged(self, real_logits: Tensor) -> dict[str, Tensor]:
        return self.augment.adapt(real_logits) if isinstance(self.augment, Adaptive) else {}


class ReadAhead:
    """Calls `read(counter)` in a thread before it is asked for: counters come one after another."""

    def __init__(self, read: Callable[[int], Tensor]) -> None:
        self.read = read
        self.reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")
        self.ahead: tuple[int, Future[Tensor]] | None = None

    def __call__(self, counter: int) -> Tensor:
        if self.ahead is not None and self.ahead[0] == counter:
            found = self.ahead[1].result()
        else:
            found = self.read(counter)
        self.ahead = counter + 1, self.reader.submit(self.read, counter + 1)
        return found


def _chosen(n: int, batch_size: int, seed: int, counter: int) -> Tensor:
    """Which of `n` images the `counter`-th batch has of this process."""
    return parallel.shard(randomness.batch_indices(n, batch_size, seed, counter))


def _read(images: np.ndarray, chosen: Callable[[int], Tensor], counter: int) -> Tensor:
    return torch.from_numpy(images[chosen(counter).numpy()])


def _room(device: torch.device) -> int:
    """Bytes of images that may lie on the device for a whole training."""
    if device.type != "cuda":
        return RESIDENT_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int((free + kept) * RESIDENT_SHARE)


def _resident(images: np.ndarray, device: torch.device, rows: int = 4096) -> Tensor:
    """A copy on the device, made of parts: the host need not hold what the device can."""
    copy = torch.empty(images.shape, dtype=torch.from_numpy(images[:0].copy()).dtype, device=device)
    for start in range(0, len(images), rows):
        part = slice(start, start + rows)
        copy[part] = torch.from_numpy(np.array(images[part]))
    return copy


def _misnamed(verdict: Verdict, batch: Batch) -> Tensor | None:
    """Cross-entropy of the classes that an auxiliary classifier names; None without one."""
    if verdict.classes is None or batch.labels is None:
        return None
    return F.cross_entropy(verdict.classes.float(), batch.labels)


def for_networks(stored: Tensor) -> Tensor:
    """Samples as they are stored to samples as networks see them.

    uint8 images (N, H, W, C) become float (N, C, H, W) in [-1, 1]; points (N, D) stay.
    """
    if stored.dtype != torch.uint8:
        return stored
    # The permuted view of NHWC pixels is channels-last already: no copy.
    return stored.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)
