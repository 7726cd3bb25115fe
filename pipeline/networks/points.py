"""Plain networks for points in the plane: hidden layers of `width` units, no normalisation.

With R1 and the relativistic loss they find every mode (docs/mode_benchmarks.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

HIDDEN = 3


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> points (N, D)."""

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        self.body = _layers(latent_dim + n_classes, width, math.prod(shape), False)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.body(_with_class(latents, labels, self.n_classes))


class Discriminator(nn.Module):
    """Points (N, D) [and classes (N,)] -> logits (N,), high for real."""

    def __init__(
        self, *, shape: Sequence[int], n_classes: int, width: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.body = _layers(math.prod(shape) + n_classes, width, 1, spectral_norm)

    def forward(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.body(_with_class(points, labels, self.n_classes)).squeeze(1)


def _layers(n_in: int, width: int, n_out: int, spectral_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for units in [width] * HIDDEN + [n_out]:
        linear = nn.Linear(n_in, units)
        layers += [with_spectral_norm(linear) if spectral_norm else linear, nn.LeakyReLU(0.2)]
        n_in = units
    return nn.Sequential(*layers[:-1])


def _with_class(vectors: Tensor, labels: Tensor | None, n_classes: int) -> Tensor:
    if not n_classes:
        return vectors
    assert labels is not None
    return torch.cat([vectors, F.one_hot(labels, n_classes).to(vectors.dtype)], dim=1)
