"""Fully connected networks: the original GAN's kind (Goodfellow et al. 2014, arXiv:1406.2661)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pipeline.networks import heads


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> images (N, channels, S, S) in [-1, 1].

    Two hidden layers of `width` units; a class enters as a one-hot vector beside the latent one.
    """

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        height, across, channels = shape
        self.shape = (channels, height, across)
        self.body = nn.Sequential(
            nn.Linear(latent_dim + n_classes, width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(width, math.prod(self.shape)),
            nn.Tanh(),
        )

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.body(heads.one_hot_beside(latents, labels, self.n_classes)).view(
            -1, *self.shape
        )


class Discriminator(heads.OfVectors):
    """Images (N, channels, S, S) in [-1, 1] [and classes (N,)] -> logits (N,), high for real."""

    def __init__(self, *, shape: Sequence[int], width: int, **settings: Any) -> None:
        super().__init__(**settings)
        sizes = [math.prod(shape) + self.n_beside, width, width]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [self.norm(nn.Linear(n_in, n_out)), nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.judged_by(width)
