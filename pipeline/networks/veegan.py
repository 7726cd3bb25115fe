"""The DCGAN of VEEGAN's stacked MNIST protocol (arXiv:1705.07761), as PacGAN's authors built it.

5 x 5 kernels, four halvings to 64, 128, 256 and 512 channels (`width` 64), batch normalisation in D
but for its first layer, G mirrored through the same sizes (28, 14, 7, 4 and 2 pixels), latent
vectors uniform in [-1, 1], weights from N(0, 0.02).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.networks import heads

HALVINGS = 4


class Generator(nn.Module):
    """Latent vectors (N, latent_dim) [and classes (N,)] -> images (N, C, S, S) in [-1, 1].

    The latent vectors are standard normal, as everywhere, and made uniform by their distribution
    function here.
    """

    def __init__(
        self, *, shape: Sequence[int], latent_dim: int, n_classes: int, width: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes = latent_dim, n_classes
        self.sizes = _sizes(shape[0])[::-1]
        widths = [width * 2**i for i in reversed(range(HALVINGS))] + [shape[2]]
        self.project = nn.Linear(latent_dim + n_classes, widths[0] * self.sizes[0] ** 2)
        self.first = nn.BatchNorm2d(widths[0])
        self.steps = nn.ModuleList(
            nn.ConvTranspose2d(n_in, n_out, 5, 2, 2) for n_in, n_out in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in widths[1:-1])
        self.apply(heads.normal_weights)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        uniform = torch.erf(latents / math.sqrt(2))
        if labels is not None and self.n_classes:
            uniform = torch.cat([uniform, F.one_hot(labels, self.n_classes).to(uniform)], dim=1)
        # Units in the order of channels-last memory: the permuted view costs no copy.
        x = self.project(uniform).view(latents.shape[0], self.sizes[0], self.sizes[0], -1)
        x = F.relu(self.first(x.permute(0, 3, 1, 2)))
        norms = [*self.norms, None]
        for step, norm, size in zip(self.steps, norms, self.sizes[1:], strict=True):
            x = step(x, output_size=[size, size])
            x = torch.tanh(x) if norm is None else F.relu(norm(x))
        return x


class Discriminator(heads.Discriminator):
    """Images (N, C, S, S) in [-1, 1] [and classes (N,)] -> logits (N,), high for real.

    Conditional: by projection unless told otherwise.
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
        self.plane = heads.plane_beside(n_classes, conditioning, shape[0])
        widths = [shape[2] + (self.plane is not None)] + [width * 2**i for i in range(HALVINGS)]
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            layers.append(norm(nn.Conv2d(n_in, n_out, 5, 2, 2)))
            if i:
                layers.append(nn.BatchNorm2d(n_out))
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers)
        features = widths[-1] * _sizes(shape[0])[-1] ** 2
        self.head = heads.Head(
            features, n_classes=n_classes, norm=norm, conditioning=conditioning, **head
        )
        self.apply(heads.normal_weights)

    def features(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.plane is not None:
            images = self.plane(images, labels)
        return self.body(images).flatten(1)


def _sizes(image_size: int) -> list[int]:
    """Sides of the maps from the image to the coarsest, each half of the one before, rounded up."""
    sizes = [image_size]
    for _ in range(HALVINGS):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes
