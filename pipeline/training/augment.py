"""Augmentation of what D sees, reals and fakes alike, so that it cannot learn few images by heart.

Gradients flow through it to G (differentiable augmentation, Zhao et al. 2020, arXiv:2006.10738).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shift(images: Tensor, offsets: Tensor, limit: int) -> Tensor:
    """Each image (N, C, H, W) moved by its `offsets` (N, 2), integers in [-limit, limit].

    What comes in from outside repeats the edge.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (limit, limit, limit, limit), mode="replicate").permute(0, 2, 3, 1)
    rows = (limit - offsets[:, 0])[:, None, None] + torch.arange(height, device=images.device)[
        :, None
    ]
    columns = (limit - offsets[:, 1])[:, None, None] + torch.arange(width, device=images.device)
    which = torch.arange(n, device=images.device)[:, None, None]
    return padded[which, rows, columns].permute(0, 3, 1, 2)
