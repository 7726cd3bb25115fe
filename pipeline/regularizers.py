"""Terms added to D's loss: pure functions of D and samples (N, ...) to scalars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]  # images (N, C, H, W) or points (N, D) -> logits (N,)


@dataclass(frozen=True)
class Regularizer:
    """`weight * penalty`, computed at every `every`-th D update and scaled by `every` (lazily)."""

    penalty: Callable[[Critic, Tensor, Tensor, Tensor], Tensor]
    weight: float
    every: int = 1


def r1(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Half the mean squared gradient norm on reals (Mescheder et al. 2018, arXiv:1801.04406)."""
    return 0.5 * _squared_norms(_gradient(critic, real)).mean()


def r2(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Half the mean squared gradient norm on fakes (Mescheder et al. 2018, arXiv:1801.04406)."""
    return 0.5 * _squared_norms(_gradient(critic, fake)).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Mean squared distance of the gradient norm from 1 between real and fake samples.

    `mix` (N,) in [0, 1] says where between (Gulrajani et al. 2017, arXiv:1704.00028).
    """
    between = torch.lerp(fake, real, mix.view(-1, *[1] * (real.dim() - 1)))
    norms = _squared_norms(_gradient(critic, between)).add(1e-12).sqrt()
    return (norms - 1).square().mean()


def _gradient(critic: Critic, samples: Tensor) -> Tensor:
    samples = samples.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(samples).sum(), samples, create_graph=True)
    return gradient


def _squared_norms(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).square().sum(dim=1)
