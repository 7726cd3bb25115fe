"""DCGAN (Radford et al. 2016, arXiv:1511.06434) for images of 28, 32 or 64 pixels.

Conditional: G gets the class as an embedding beside the latent vector, D by projection unless told
otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks import heads

# image size -> (side of G's coarsest feature map, doublings from there to the image, D's halvings)
SCALES = {28: (7, 2, 3), 32: (4, 3, 3), 64: (4, 4, 4)}


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> images (N, C, S, S) in [-1, 1].

    `width` channels at half the image's resolution, twice as many at each coarser scale, half as
    many at the image's own, where a last convolution joins what the doublings left apart.
    """

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        image_size, _, channels = shape
        self.side, doublings, _ = SCALES[image_size]
        self.embedding = nn.Embedding(n_classes, latent_dim) if n_classes else None
        widths = [width * 2**i for i in reversed(range(doublings))] + [max(8, width // 2)]
        inputs = 2 * latent_dim if n_classes else latent_dim
        self.project = nn.Linear(inputs, widths[0] * self.side**2, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for n_in, n_out in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(n_in, n_out, 4, 2, 1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.Conv2d(widths[-1], channels, 3, 1, 1), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.apply(heads.normal_weights)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            latents = torch.cat([latents, self.embedding(labels)], dim=1)
        # Units in the order of channels-last memory: the permuted view costs no copy.
        coarse = self.project(latents).view(latents.shape[0], self.side, self.side, -1)
        return self.body(coarse.permute(0, 3, 1, 2))


class Discriminator(heads.Discriminator):
    """Images (N, C, S, S) in [-1, 1] [and classes (N,)] -> logits (N,), high for real.

    Halvings down to a side of 3 or 4: one fewer, and D is too weak for G to learn from.
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
        norm = heads.normalised(spectral_norm)
        image_size, _, channels = shape
        self.plane = heads.plane_beside(n_classes, conditioning, image_size)
        _, _, halvings = SCALES[image_size]
        widths = [channels + (self.plane is not None)] + [width * 2**i for i in range(halvings)]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [norm(nn.Conv2d(n_in, n_out, 4, 2, 1)), nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*layers)
        features = widths[-1] * (image_size // 2**halvings) ** 2
        self.head = heads.Head(
            features, n_classes=n_classes, norm=norm, conditioning=conditioning, **head
        )
        self.apply(heads.normal_weights)

    def features(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.plane is not None:
            images = self.plane(images, labels)
        return self.body(images).permute(0, 2, 3, 1).flatten(1)
