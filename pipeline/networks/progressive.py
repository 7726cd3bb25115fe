"""PGGAN's networks, which grow while they train (Karras et al. 2018, arXiv:1710.10196).

Training starts at the coarsest side; each finer one is faded in and then trained for a while, all
within the first GROWING of the training. Images keep their size from the start: what is not grown
yet G fills by doubling pixels, and D takes means. The last layer has a tanh, which the
normalised pixels before it do not saturate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks import equalised, heads
from pipeline.networks.equalised import activated, normalised
from pipeline.networks.scales import doubled, halved, sides, widths

MOST = 8  # times `width`: channels of the coarsest maps
GROWING = 0.6  # of the training


class Growing(nn.Module):
    """A network that knows how many sides are grown: `level`, whole but for one that fades in.

    All are grown in a network that is not told otherwise.
    """

    def __init__(self, n_sides: int) -> None:
        super().__init__()
        self.highest = n_sides - 1
        self.level = float(self.highest)

    def grow(self, progress: float) -> None:
        """Set the level for this `progress` of the training, in [0, 1]."""
        self.level = level_at(progress, self.highest)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.level, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.level = float(state)


class Pair(nn.Module):
    """Two convolutions at one side, each followed by a leaky ReLU and `after`."""

    def __init__(self, n_in: int, n_between: int, n_out: int) -> None:
        super().__init__()
        self.first = equalised.Conv(n_in, n_between, 3)
        self.second = equalised.Conv(n_between, n_out, 3)

    def forward(self, x: Tensor, after: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        return after(activated(self.second(after(activated(self.first(x))))))


class Generator(Growing):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> images (N, C, S, S) in [-1, 1].

    `width` channels at the image's resolution, twice as many at each coarser side; a class enters
    as an embedding beside the latent vector.
    """

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__(len(sides(shape[0])))
        self.latent_dim, self.n_classes, self.sides = latent_dim, n_classes, sides(shape[0])
        channels = widths(len(self.sides), width, MOST * width)
        self.embedding = nn.Embedding(n_classes, latent_dim) if n_classes else None
        inputs = 2 * latent_dim if n_classes else latent_dim
        self.project = equalised.Linear(inputs, channels[0] * self.sides[0] ** 2)
        self.first = equalised.Conv(channels[0], channels[0], 3)
        self.blocks = nn.ModuleList(
            Pair(n_in, n_out, n_out) for n_in, n_out in itertools.pairwise(channels)
        )
        self.to_image = nn.ModuleList(equalised.Conv(n, shape[2], 1) for n in channels)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        x = normalised(latents)
        if self.embedding is not None:
            x = torch.cat([x, normalised(self.embedding(labels))], dim=1)
        x = self.project(x).view(x.shape[0], -1, self.sides[0], self.sides[0])
        x = normalised(activated(x))
        x = normalised(activated(self.first(x)))
        grown = math.ceil(self.level)  # sides in use beyond the coarsest
        image = self.to_image[0](x)
        for i, side in enumerate(self.sides[1 : grown + 1], start=1):
            x = doubled(x, side)
            x = self.blocks[i - 1](x, normalised)
            if i < int(self.level):
                continue  # a finer side makes the image
            finer, share = self.to_image[i](x), self.level - (i - 1)
            image = finer if share >= 1 else torch.lerp(doubled(image, side), finer, share)
        for side in self.sides[grown + 1 :]:
            image = doubled(image, side)
        return torch.tanh(image)


def level_at(progress: float, highest: int) -> float:
    """How many sides beyond the coarsest are grown: a stay at each, and a rise to the next.

    Stays and rises take equal shares of GROWING; from there on it is `highest`.
    """
    place = progress / GROWING * 2 * highest  # even: a stay, odd: a rise
    whole = int(place)
    level = whole / 2 if whole % 2 == 0 else (whole - 1) / 2 + (place - whole)
    return min(level, float(highest))


class Discriminator(Growing, heads.Discriminator):
    """Images (N, C, S, S) in [-1, 1] [and classes (N,)] -> verdict, with minibatch deviation."""

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
        all_sides = sides(shape[0])
        super().__init__(len(all_sides))
        assert not spectral_norm  # weights are scaled where they are used
        beside = n_classes and conditioning == "concat"
        self.plane = heads.ClassPlane(n_classes, shape[0]) if beside else None
        channels = widths(len(all_sides), width, MOST * width)
        seen = shape[2] + bool(beside)
        self.from_image = nn.ModuleList(equalised.Conv(seen, n, 1) for n in channels)
        self.blocks = nn.ModuleList(
            Pair(n_out, n_out, n_in) for n_in, n_out in itertools.pairwise(channels)
        )
        self.last = equalised.Conv(channels[0] + 1, channels[0], 3)
        self.dense = equalised.Linear(channels[0] * all_sides[0] ** 2, channels[0])
        self.head = heads.Head(
            channels[0],
            n_classes=n_classes,
            norm=equalised.of_head,
            conditioning=conditioning,
            **head,
        )

    def features(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.plane is not None:
            images = self.plane(images, labels)
        grown = math.ceil(self.level)
        for _ in range(self.highest - grown):
            images = halved(images)
        x = activated(self.from_image[grown](images))
        for i in range(grown, 0, -1):
            x = halved(self.blocks[i - 1](x))
            share = self.level - (i - 1)
            if share < 1:  # only the finest can be fading in
                x = torch.lerp(activated(self.from_image[i - 1](halved(images))), x, share)
        spread = heads.deviation(x)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x = activated(self.last(torch.cat([x, spread], dim=1)))
        return activated(self.dense(x.flatten(1)))
