"""SNGAN's residual networks (Miyato et al. 2018, arXiv:1802.05957) for images of any size.

Conditional: G's batch normalisation has a gain and a bias for each class (Dumoulin et al. 2017, de
Vries et al. 2017), D adds a projection (Miyato & Koyama 2018, arXiv:1802.05637) unless told
otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.networks import heads
from pipeline.networks.scales import (
    conv_of_doubled,
    doubled,
    halved,
    halved_conv,
    sides,
    widths,
)

MOST = 8  # times `width`: channels of the coarsest maps


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> images (N, C, S, S) in [-1, 1].

    `width` channels at the image's resolution, twice as many at each coarser side.
    """

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        self.sides = sides(shape[0])
        channels = widths(len(self.sides), width, MOST * width)
        self.project = nn.Linear(latent_dim, channels[0] * self.sides[0] ** 2)
        self.blocks = nn.ModuleList(
            Up(n_in, n_out, n_classes) for n_in, n_out in itertools.pairwise(channels)
        )
        self.norm = nn.BatchNorm2d(channels[-1])
        self.last = nn.Conv2d(channels[-1], shape[2], 3, 1, 1)
        self.apply(_init)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        # Units in the order of channels-last memory: the permuted view costs no copy.
        coarse = self.project(latents).view(latents.shape[0], self.sides[0], self.sides[0], -1)
        x = coarse.permute(0, 3, 1, 2)
        for block, side in zip(self.blocks, self.sides[1:], strict=True):
            x = block(x, labels, side)
        return torch.tanh(self.last(F.relu(self.norm(x))))


class Up(nn.Module):
    """A residual block that doubles the side."""

    def __init__(self, n_in: int, n_out: int, n_classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ClassNorm(n_in, n_classes), ClassNorm(n_out, n_classes)])
        self.convs = nn.ModuleList(
            [nn.Conv2d(n_in, n_out, 3, 1, 1), nn.Conv2d(n_out, n_out, 3, 1, 1)]
        )
        self.shortcut = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor, labels: Tensor | None, side: int) -> Tensor:
        inner = conv_of_doubled(self.convs[0], F.relu(self.norms[0](x, labels)), side)  # type: ignore[arg-type]
        inner = self.convs[1](F.relu(self.norms[1](inner, labels)))
        return inner + doubled(self.shortcut(x), side)


class ClassNorm(nn.Module):
    """Batch normalisation; of classes, with a gain and a bias for each."""

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not n_classes)
        self.gain = nn.Embedding(n_classes, channels) if n_classes else None
        self.bias = nn.Embedding(n_classes, channels) if n_classes else None
        if self.gain is not None and self.bias is not None:
            nn.init.normal_(self.gain.weight, mean=1.0, std=0.02)
            nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.gain is None or self.bias is None:
            return x
        gain, bias = (of(labels)[:, :, None, None].to(x.dtype) for of in (self.gain, self.bias))
        return x * gain + bias


class Discriminator(heads.Discriminator):
    """Images (N, C, S, S) in [-1, 1] [and classes (N,)] -> verdict.

    A block that halves for each side of G, one that does not, then the sum over the map.
    """

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
        normalised = heads.normalised(spectral_norm)

        def norm(layer: nn.Module) -> nn.Module:
            _init(layer)  # before: the weight of a normalised layer is computed, not kept
            return normalised(layer)

        beside = n_classes and conditioning == "concat"
        self.plane = heads.ClassPlane(n_classes, shape[0]) if beside else None
        n = len(sides(shape[0]))
        channels = [shape[2] + bool(beside), *widths(n, width, MOST * width)[::-1]]
        pairs = list(itertools.pairwise(channels))
        self.body = nn.Sequential(
            *(
                Down(n_in, n_out, norm, first=i == 0, halves=i < n - 1)
                for i, (n_in, n_out) in enumerate(pairs)
            )
        )
        self.head = heads.Head(
            channels[-1], n_classes=n_classes, norm=norm, conditioning=conditioning, **head
        )

    def features(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.plane is not None:
            images = self.plane(images, labels)
        return F.relu(self.body(images)).sum(dim=(2, 3))


class Down(nn.Module):
    """A residual block that halves the side, or keeps it; the first sees pixels as they are."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        norm: Callable[[nn.Module], nn.Module],
        *,
        first: bool,
        halves: bool,
    ) -> None:
        super().__init__()
        self.first, self.halves = first, halves
        self.convs = nn.ModuleList(
            [norm(nn.Conv2d(n_in, n_out, 3, 1, 1)), norm(nn.Conv2d(n_out, n_out, 3, 1, 1))]
        )
        self.shortcut = norm(nn.Conv2d(n_in, n_out, 1)) if n_in != n_out or halves else None

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.convs[0](x if self.first else F.relu(x)))
        if self.halves:
            # Pixels lose nothing by a shortcut at half the side: it is linear.
            inner, x = halved_conv(self.convs[1], inner), halved(x)  # type: ignore[arg-type]
        else:
            inner = self.convs[1](inner)
        return inner + (x if self.shortcut is None else self.shortcut(x))


def _init(module: nn.Module) -> None:
    """Glorot & Bengio 2010, as in the paper."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
