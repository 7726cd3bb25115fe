"""The networks of the published 2D mode benchmarks (PacGAN, Lin et al. 2018, arXiv:1712.04086).

With `width` 400 and `latent_dim` 2 they are the paper's: G of four hidden layers of 400 units,
batch normalised, D of three of 200 maxout units of five pieces; all weights from N(0, 0.02).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pipeline.networks import heads

HIDDEN_G, HIDDEN_D, PIECES = 4, 3, 5


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> points (N, D)."""

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        layers: list[nn.Module] = []
        n_in = latent_dim + n_classes
        for _ in range(HIDDEN_G):
            layers += [nn.Linear(n_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            n_in = width
        self.body = nn.Sequential(*layers, nn.Linear(n_in, math.prod(shape)))
        self.apply(heads.normal_weights)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.body(heads.one_hot_beside(latents, labels, self.n_classes))


class Discriminator(heads.OfVectors):
    """Points (N, D) [and classes (N,)] -> logits (N,), high for real."""

    def __init__(self, *, shape: Sequence[int], width: int, **settings: Any) -> None:
        super().__init__(**settings)
        layers: list[nn.Module] = []
        n_in, units = math.prod(shape) + self.n_beside, width // 2
        for _ in range(HIDDEN_D):
            layers += [self.norm(nn.Linear(n_in, units * PIECES)), Maxout(PIECES)]
            n_in = units
        self.body = nn.Sequential(*layers)
        self.judged_by(n_in)
        self.apply(heads.normal_weights)


class Maxout(nn.Module):
    """(N, units * pieces) -> the largest piece of each unit (Goodfellow et al. 2013)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(dim=2)
