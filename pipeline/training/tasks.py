"""Adversarial tasks: what a batch is, what G makes of it and what D sees of it.

The loop calls nothing but the methods of `Task`; another task (paired images, super-resolution) is
another class beside `Generate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.augment import Augment
from pipeline.training import randomness

# Up to here a set is copied to the device once; a larger one is read from disk batch by batch.
RESIDENT_BYTES = 2 * 2**30


class Task(Protocol):
    def batch(self, counter: int) -> Any:
        """The `counter`-th batch: a function of the counter alone."""

    def real(self, batch: Any) -> Tensor:
        """What D should take for real: images (N, C, H, W) in [-1, 1], or points (N, D)."""

    def fake(self, generator: nn.Module, batch: Any) -> Tensor:
        """What G makes, shaped like `real`."""

    def judge(self, discriminator: nn.Module, images: Tensor, batch: Any) -> Tensor:
        """D's logits (N,)."""

    def generator_terms(self, fake: Tensor, batch: Any) -> Tensor | None:
        """What G minimises beside the adversarial loss: a scalar, or None."""


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
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        *,
        latent_dim: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        augment: Augment | None = None,  # of all that D sees
    ) -> None:
        self.augment = augment
        self.n, self.batch_size, self.latent_dim = len(images), batch_size, latent_dim
        self.seed, self.device = seed, device
        resident = images.nbytes <= RESIDENT_BYTES
        self.images = torch.from_numpy(np.array(images)).to(device) if resident else images
        self.labels = None if labels is None else torch.from_numpy(np.array(labels)).to(device)

    def batch(self, counter: int) -> Batch:
        chosen = randomness.batch_indices(self.n, self.batch_size, self.seed, counter)
        latents = randomness.normal((self.batch_size, self.latent_dim), self.seed, counter)
        if isinstance(self.images, Tensor):
            pixels = self.images[chosen.to(self.device)]
        else:
            pixels = torch.from_numpy(self.images[chosen.numpy()]).to(self.device)
        images = for_networks(pixels)
        labels = None if self.labels is None else self.labels[chosen.to(self.device)]
        draws = randomness.Draws(self.seed, counter)
        return Batch(images, latents.to(self.device), labels, draws)

    def real(self, batch: Batch) -> Tensor:
        return batch.images

    def fake(self, generator: nn.Module, batch: Batch) -> Tensor:
        return generator(batch.latents, batch.labels)

    def judge(self, discriminator: nn.Module, images: Tensor, batch: Batch) -> Tensor:
        if self.augment is not None:
            images = self.augment(images, batch.draws)
        return discriminator(images, batch.labels)

    def generator_terms(self, fake: Tensor, batch: Batch) -> Tensor | None:
        return None


def for_networks(stored: Tensor) -> Tensor:
    """Samples as they are stored to samples as networks see them.

    uint8 images (N, H, W, C) become float (N, C, H, W) in [-1, 1]; points (N, D) stay.
    """
    if stored.dtype != torch.uint8:
        return stored
    # The permuted view of NHWC pixels is channels-last already: no copy.
    return stored.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)
