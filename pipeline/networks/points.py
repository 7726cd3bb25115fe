"""Fully connected networks for points in the plane, made for narrow modes far apart.

Three hidden layers, no normalisation. Both networks see their input through random Fourier features
too (Tancik et al. 2020, arXiv:2006.10739), without which D learns the gaps between the modes many
times slower. The units of G's last hidden layer saturate: a connected latent space has to jump from
mode to mode, and steps do that in a narrower strip than slopes. What each is worth is in
docs/mode_benchmarks.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks import heads

HIDDEN = 3
SLOPE = 0.2
STEEPNESS = 3.0
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
        self.body = _hidden(self.fourier.n_out + n_classes, width, heads.normalised(False))
        self.body[-1] = nn.Identity()  # its units step instead
        self.last = nn.Linear(width, math.prod(shape))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        units = self.body(heads.one_hot_beside(self.fourier(latents), labels, self.n_classes))
        return self.last(torch.tanh(STEEPNESS * units))


class Discriminator(heads.OfVectors):
    """Points (N, D) [and classes (N,)] -> logits (N,), high for real."""

    def __init__(self, *, shape: Sequence[int], width: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.fourier = Fourier(math.prod(shape), BANDWIDTH_D)
        self.body = _hidden(self.fourier.n_out + self.n_beside, width, self.norm)
        self.judged_by(width)

    def vectors(self, samples: Tensor) -> Tensor:
        return self.fourier(samples)


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


def _hidden(n_in: int, width: int, norm: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    """Hidden layers that keep the size of what passes through them (He et al. 2015)."""
    layers: list[nn.Module] = []
    for _ in range(HIDDEN):
        linear = nn.Linear(n_in, width)
        nn.init.kaiming_normal_(linear.weight, a=SLOPE)
        nn.init.zeros_(linear.bias)
        layers += [norm(linear), nn.LeakyReLU(SLOPE)]
        n_in = width
    return nn.Sequential(*layers)
