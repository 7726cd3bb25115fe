"""Fully connected networks: the original GAN's kind (Goodfellow et al. 2014, arXiv:1406.2661)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm


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
        return self.body(_with_class(latents, labels, self.n_classes)).view(-1, *self.shape)


class Discriminator(nn.Module):
    """Images (N, channels, S, S) in [-1, 1] [and classes (N,)] -> logits (N,), high for real."""

    def __init__(
        self, *, shape: Sequence[int], n_classes: int, width: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        sizes = [math.prod(shape) + n_classes, width, width, 1]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            linear = nn.Linear(n_in, n_out)
            layers += [with_spectral_norm(linear) if spectral_norm else linear]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.body(_with_class(images.flatten(1), labels, self.n_classes)).squeeze(1)


def _with_class(vectors: Tensor, labels: Tensor | None, n_classes: int) -> Tensor:
    if not n_classes:
        return vectors
    assert labels is not None
    return torch.cat([vectors, F.one_hot(labels, n_classes).to(vectors.dtype)], dim=1)
