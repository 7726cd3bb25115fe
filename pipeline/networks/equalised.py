"""Layers whose weights are N(0, 1) and scaled where they are used (Karras et al. 2018).

So every weight has the same range, and one learning rate suits all (arXiv:1710.10196).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAIN = math.sqrt(2)  # of a leaky ReLU


class Linear(nn.Module):
    """`rate` multiplies the learning rate."""

    def __init__(self, n_in: int, n_out: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate)
        self.bias = nn.Parameter(torch.full((n_out,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(n_in), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Conv(nn.Module):
    """A convolution that keeps the side."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.scale, self.padding = 1 / math.sqrt(n_in * kernel**2), kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class Embedding(nn.Module):
    """Classes (N,) -> vectors (N, size) of length near 1."""

    def __init__(self, n_classes: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_classes, size))
        self.scale = 1 / math.sqrt(size)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.weight) * self.scale


def of_head(layer: nn.Module) -> nn.Module:
    """A fully connected layer or an embedding of heads.Head, as one whose weights are scaled."""
    if isinstance(layer, nn.Embedding):
        return Embedding(layer.num_embeddings, layer.embedding_dim)
    assert isinstance(layer, nn.Linear)
    return Linear(layer.in_features, layer.out_features)


def activated(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the size of what passes."""
    return F.leaky_relu(x, 0.2) * GAIN


def normalised(x: Tensor) -> Tensor:
    """Each vector along dimension 1 to mean square 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
