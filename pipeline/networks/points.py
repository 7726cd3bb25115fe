"""Fully connected networks for points in the plane, sharp enough for narrow modes.

Three hidden layers, no normalisation. Both see their input through random Fourier features too
(Tancik et al. 2020, arXiv:2006.10739): without them D learns the gaps between the modes, and G the
jumps across them, many times slower (docs/mode_benchmarks.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

HIDDEN = 3
SLOPE = 0.2
FREQUENCIES = 32
BANDWIDTH_G, BANDWIDTH_D = 2.0, 2.5  # radians per unit of the latent vector, of the data


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> points (N, D)."""

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        self.fourier = Fourier(latent_dim, BANDWIDTH_G)
        inputs = self.fourier.n_out + n_classes
        self.body = _layers(inputs, width, math.prod(shape), spectral_norm=False)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.body(_with_class(self.fourier(latents), labels, self.n_classes))


class Discriminator(nn.Module):
    """Points (N, D) [and classes (N,)] -> logits (N,), high for real."""

    def __init__(
        self, *, shape: Sequence[int], n_classes: int, width: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.fourier = Fourier(math.prod(shape), BANDWIDTH_D)
        self.body = _layers(self.fourier.n_out + n_classes, width, 1, spectral_norm=spectral_norm)

    def forward(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.body(_with_class(self.fourier(points), labels, self.n_classes)).squeeze(1)


class Fourier(nn.Module):
    """Vectors (N, D) -> themselves with sine and cosine of random projections, (N, n_out).

    Frequencies are normal with deviation `bandwidth`, drawn once and not learnt.
    """

    frequencies: Tensor

    def __init__(self, n_in: int, bandwidth: float) -> None:
        super().__init__()
        self.n_out = n_in + 2 * FREQUENCIES
        self.register_buffer("frequencies", bandwidth * torch.randn(n_in, FREQUENCIES))

    def forward(self, x: Tensor) -> Tensor:
        phases = x @ self.frequencies
        return torch.cat([x, phases.sin(), phases.cos()], dim=1)


def _layers(n_in: int, width: int, n_out: int, *, spectral_norm: bool) -> nn.Sequential:
    """Hidden layers that keep the size of what passes through them (He et al. 2015)."""
    norm = with_spectral_norm if spectral_norm else _unchanged
    layers: list[nn.Module] = []
    for _ in range(HIDDEN):
        linear = nn.Linear(n_in, width)
        nn.init.kaiming_normal_(linear.weight, a=SLOPE)
        nn.init.zeros_(linear.bias)
        layers += [norm(linear), nn.LeakyReLU(SLOPE)]
        n_in = width
    return nn.Sequential(*layers, norm(nn.Linear(n_in, n_out)))


def _unchanged(module: nn.Module) -> nn.Module:
    return module


def _with_class(vectors: Tensor, labels: Tensor | None, n_classes: int) -> Tensor:
    if not n_classes:
        return vectors
    assert labels is not None
    return torch.cat([vectors, F.one_hot(labels, n_classes).to(vectors.dtype)], dim=1)
