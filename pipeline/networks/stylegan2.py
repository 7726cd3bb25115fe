"""StyleGAN2's networks (Karras et al. 2020, arXiv:1912.04958) for images of any size from 8.

A mapping network makes of each latent vector a style w, which scales the input channels of every
convolution (modulation) and is divided out of its output (demodulation); a picture is summed up
over the sides (skip connections), and D is residual. Noise enters after each convolution: fresh in
training, drawn by the network's own generator; fixed pictures in use, so that a latent vector is
one image. Where maps grow, bilinear resampling is the paper's filter [1, 3, 3, 1]; where they
shrink, it is means of 2 x 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import parallel
from pipeline.networks import equalised, heads
from pipeline.networks.draws import Draws
from pipeline.networks.equalised import activated
from pipeline.networks.scales import bounded, doubled, halved, sides, widths

MOST = 8  # times `width`: channels of the coarsest maps
MAPPING_LAYERS = 4
MAPPING_RATE = 0.01
STYLE_DIM = 128
MIXED = 0.9  # share of batches in which the finer layers get another style
MEAN_DECAY = 0.995  # of the running mean of w


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> images (N, C, S, S) in [-1, 1].

    `width` channels at the image's resolution, twice as many at each coarser side.
    """

    style_mean: Tensor

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        self.sides = sides(shape[0])
        channels = widths(len(self.sides), width, MOST * width)
        self.embedding = nn.Embedding(n_classes, latent_dim) if n_classes else None
        inputs = 2 * latent_dim if n_classes else latent_dim
        self.mapping = nn.ModuleList(
            equalised.Linear(inputs if i == 0 else STYLE_DIM, STYLE_DIM, rate=MAPPING_RATE)
            for i in range(MAPPING_LAYERS)
        )
        self.register_buffer("style_mean", torch.zeros(STYLE_DIM))
        self.constant = nn.Parameter(torch.randn(1, channels[0], self.sides[0], self.sides[0]))
        self.draws = Draws()
        self.layers = nn.ModuleList([Layer(channels[0], channels[0], self.sides[0])])
        for (n_in, n_out), side in zip(itertools.pairwise(channels), self.sides[1:], strict=True):
            self.layers += [Layer(n_in, n_out, side), Layer(n_out, n_out, side)]
        self.to_image = nn.ModuleList(ToImage(width, shape[2]) for width in channels)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        styles = self.styles(latents, labels)
        if self.training:
            with torch.no_grad():
                mean = parallel.mean(styles[:, 0].detach().float().mean(dim=0))
                self.style_mean.lerp_(mean, 1 - MEAN_DECAY)
            styles = self._mixed(styles, labels)
        return self.synthesise(styles)

    def styles(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """One style for each layer, here all the same: (N, layers, STYLE_DIM)."""
        x = equalised.normalised(latents)
        if self.embedding is not None:
            x = torch.cat([x, equalised.normalised(self.embedding(labels))], dim=1)
        for layer in self.mapping:
            x = activated(layer(x))
        return x[:, None].expand(-1, len(self.layers), -1)

    def synthesise(self, styles: Tensor) -> Tensor:
        """Styles (N, layers, STYLE_DIM) -> images (N, C, S, S)."""
        draws = self.draws if self.training else None
        x = self.layers[0](self.constant.expand(styles.shape[0], -1, -1, -1), styles[:, 0], draws)
        image = self.to_image[0](x, styles[:, 0])
        for i, side in enumerate(self.sides[1:], start=1):
            for layer in (2 * i - 1, 2 * i):
                if layer % 2:
                    x = doubled(x, side, "bilinear")
                x = self.layers[layer](x, styles[:, layer], draws)
            image = doubled(image, side, "bilinear") + self.to_image[i](x, styles[:, 2 * i])
        return bounded(image, self.training)

    def _mixed(self, styles: Tensor, labels: Tensor | None) -> Tensor:
        """Now and then another vector's styles from some layer on."""
        chance, place = self.draws.uniform((2,), torch.device("cpu")).tolist()
        if chance >= MIXED:
            return styles
        others = _drawn(self.draws, (len(styles), self.latent_dim), styles.device)
        first = 1 + int(place * (len(self.layers) - 1))
        return torch.cat([styles[:, :first], self.styles(others, labels)[:, first:]], dim=1)


class Layer(nn.Module):
    """A modulated and demodulated convolution, noise, bias and leaky ReLU."""

    picture: Tensor

    def __init__(self, n_in: int, n_out: int, side: int) -> None:
        super().__init__()
        self.conv = Modulated(n_in, n_out, 3, demodulate=True)
        self.bias = nn.Parameter(torch.zeros(n_out, 1, 1))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("picture", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, style: Tensor, draws: Draws | None) -> Tensor:
        x = self.conv(x, style)
        shape = (x.shape[0], 1, *x.shape[2:])
        noise = self.picture if draws is None else _drawn(draws, shape, x.device)
        return activated(x + (self.strength * noise).to(x.dtype) + self.bias.to(x.dtype))


class ToImage(nn.Module):
    def __init__(self, n_in: int, channels: int) -> None:
        super().__init__()
        self.conv = Modulated(n_in, channels, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return self.conv(x, style) + self.bias.to(x.dtype)


class Modulated(nn.Module):
    """A convolution whose input channels the style scales; demodulated, its output has unit size.

    Scaling the input and the output equals scaling the weights of each sample, without groups.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, *, demodulate: bool) -> None:
        super().__init__()
        self.conv = equalised.Conv(n_in, n_out, kernel, bias=False)
        self.affine = equalised.Linear(STYLE_DIM, n_in, bias=1.0)
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scales = self.affine(style)
        out = self.conv(x * scales[:, :, None, None])
        if not self.demodulate:
            return out
        power = (self.conv.weight * self.conv.scale).square().sum(dim=(2, 3))  # (out, in)
        size = torch.rsqrt(F.linear(scales.square(), power) + 1e-8)
        return out * size[:, :, None, None].to(out.dtype)


class Discriminator(heads.Discriminator):
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
        super().__init__()
        assert not spectral_norm  # weights are scaled where they are used
        beside = n_classes and conditioning == "concat"
        self.plane = heads.ClassPlane(n_classes, shape[0]) if beside else None
        all_sides = sides(shape[0])
        channels = widths(len(all_sides), width, MOST * width)[::-1]
        self.first = equalised.Conv(shape[2] + bool(beside), channels[0], 1)
        self.blocks = nn.ModuleList(Down(*pair) for pair in itertools.pairwise(channels))
        self.last = equalised.Conv(channels[-1] + 1, channels[-1], 3)
        self.dense = equalised.Linear(channels[-1] * all_sides[0] ** 2, channels[-1])
        self.head = heads.Head(
            channels[-1],
            n_classes=n_classes,
            norm=equalised.of_head,
            conditioning=conditioning,
            **head,
        )

    def features(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.plane is not None:
            images = self.plane(images, labels)
        x = activated(self.first(images))
        for block in self.blocks:
            x = block(x)
        spread = heads.deviation(x)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x = activated(self.last(torch.cat([x, spread], dim=1)))
        return activated(self.dense(x.flatten(1)))


class Down(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([equalised.Conv(n_in, n_in, 3), equalised.Conv(n_in, n_out, 3)])
        self.shortcut = equalised.Conv(n_in, n_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = activated(self.convs[1](halved(activated(self.convs[0](x)))))
        return (inner + self.shortcut(halved(x))) / math.sqrt(2)


def _drawn(draws: Draws, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal numbers for these rows of the batch."""
    return parallel.draw(lambda whole: draws.normal(whole, device), shape)
