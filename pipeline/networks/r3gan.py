"""R3GAN's networks: grouped convolutions in residual blocks, and no normalisation.

Huang et al. 2024, arXiv:2501.05441: ResNeXt blocks in both networks, resampled bilinearly, made
stable by fix-up initialisation (Zhang et al. 2019, arXiv:1901.09321) and by R1 and R2 beside the
relativistic loss. For images of any size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.networks import heads
from pipeline.networks.scales import bounded, doubled, halved, sides, widths

MOST = 8  # times `width`: channels of the coarsest maps
BLOCKS = 2  # a side
EXPANSION = 2  # channels within a block
GROUP = 16  # channels of a group
SLOPE = 0.2


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> images (N, C, S, S) in [-1, 1].

    `width` channels at the image's resolution, twice as many at each coarser side; a class enters
    as an embedding beside the latent vector.
    """

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        self.sides = sides(shape[0])
        channels = widths(len(self.sides), width, MOST * width)
        self.embedding = nn.Embedding(n_classes, latent_dim) if n_classes else None
        inputs = 2 * latent_dim if n_classes else latent_dim
        # The coarsest map: learnt pictures, weighted by the latent vector.
        self.basis = nn.Parameter(torch.randn(channels[0], self.sides[0], self.sides[0]))
        self.weigh = _sized(nn.Linear(inputs, channels[0], bias=False))
        n_blocks = BLOCKS * len(channels)
        self.stages = nn.ModuleList(_stage(width, n_blocks) for width in channels)
        self.changes = nn.ModuleList(_change(*pair) for pair in itertools.pairwise(channels))
        self.last = _sized(nn.Conv2d(channels[-1], shape[2], 1))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            latents = torch.cat([latents, self.embedding(labels)], dim=1)
        x = self.weigh(latents)[:, :, None, None] * self.basis
        # Or the pointwise convolutions would hand the other memory format on to the last one.
        x = self.stages[0](x.contiguous(memory_format=torch.channels_last))
        for change, stage, side in zip(self.changes, self.stages[1:], self.sides[1:], strict=True):
            x = stage(doubled(change(x), side, "bilinear"))
        return bounded(self.last(x), self.training)


class Discriminator(heads.Discriminator):
    """Images (N, C, S, S) in [-1, 1] [and classes (N,)] -> verdict: G backwards."""

    def __init__(
        self,
        *,
        shape: Sequence[int],
        n_classes: int,
        width: int,
        spectral_norm: bool,
        conditioning: str = "projection",
        **head: Any,
    ) -> None:
        super().__init__()
        assert not spectral_norm  # blocks start at zero, which has no spectral norm to divide by
        beside = n_classes and conditioning == "concat"
        self.plane = heads.ClassPlane(n_classes, shape[0]) if beside else None
        all_sides = sides(shape[0])
        channels = widths(len(all_sides), width, MOST * width)[::-1]
        self.first = _sized(nn.Conv2d(shape[2] + bool(beside), channels[0], 1))
        n_blocks = BLOCKS * len(channels)
        self.stages = nn.ModuleList(_stage(width, n_blocks) for width in channels)
        self.changes = nn.ModuleList(_change(*pair) for pair in itertools.pairwise(channels))
        # The last map's pictures, one a channel.
        pictures = nn.Conv2d(
            channels[-1], channels[-1], all_sides[0], groups=channels[-1], bias=False
        )
        self.basis = _sized(pictures)
        self.head = heads.Head(
            channels[-1],
            n_classes=n_classes,
            norm=_sized,
            conditioning=conditioning,
            **head,
        )

    def features(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.plane is not None:
            images = self.plane(images, labels)
        x = self.stages[0](self.first(images))
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            x = stage(change(halved(x)))
        return self.basis(x).flatten(1)


class Block(nn.Module):
    """x plus an inverted bottleneck: 1 x 1, grouped 3 x 3, 1 x 1, the last starting at zero."""

    def __init__(self, channels: int, n_blocks: int) -> None:
        super().__init__()
        hidden = EXPANSION * channels
        groups = hidden // GROUP if hidden % GROUP == 0 else 1
        self.widen = nn.Conv2d(channels, hidden, 1)
        self.spread = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=groups)
        self.narrow = nn.Conv2d(hidden, channels, 1, bias=False)
        for conv in (self.widen, self.spread):
            nn.init.kaiming_normal_(conv.weight, a=SLOPE)
            # Fix-up: of n blocks of three layers each layer's share is n^(-1/4).
            conv.weight.data *= n_blocks**-0.25
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.leaky_relu(self.widen(x), SLOPE)
        inner = F.leaky_relu(self.spread(inner), SLOPE)
        return x + self.narrow(inner)


def _stage(channels: int, n_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, n_blocks) for _ in range(BLOCKS)))


def _change(n_in: int, n_out: int) -> nn.Module:
    """From one number of channels to the next, where they differ."""
    return _sized(nn.Conv2d(n_in, n_out, 1, bias=False)) if n_in != n_out else nn.Identity()


def _sized(layer: nn.Module) -> nn.Module:
    """With weights by which what passes keeps its size: N(0, 1 / fan-in), and no bias yet."""
    assert isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)
    return layer
