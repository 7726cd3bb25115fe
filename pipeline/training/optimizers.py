"""Optimizers by name, each from the same few settings.

`betas` are Adam's: decay of the mean and of the squared gradient. Of RMSprop and SGD the first is
the momentum, and the second RMSprop's decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Parameters = Iterable[nn.Parameter]


def adam(parameters: Parameters, lr: float, betas: list[float], weight_decay: float) -> Optimizer:
    return torch.optim.Adam(
        parameters, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay, fused=True
    )


def adamw(parameters: Parameters, lr: float, betas: list[float], weight_decay: float) -> Optimizer:
    return torch.optim.AdamW(
        parameters, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay, fused=True
    )


def rmsprop(
    parameters: Parameters, lr: float, betas: list[float], weight_decay: float
) -> Optimizer:
    return torch.optim.RMSprop(
        parameters, lr=lr, momentum=betas[0], alpha=betas[1], weight_decay=weight_decay
    )


def sgd(parameters: Parameters, lr: float, betas: list[float], weight_decay: float) -> Optimizer:
    return torch.optim.SGD(
        parameters, lr=lr, momentum=betas[0], weight_decay=weight_decay, fused=True
    )


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All that it moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def gradient_norm(optimizer: Optimizer) -> float:
    """Norm of the gradients of the last update."""
    gradients = [parameter.grad for parameter in parameters_of(optimizer)]
    present = [gradient for gradient in gradients if gradient is not None]
    return float(torch.nn.utils.get_total_norm(present))


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Of all its parameters, in place."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)  # a graph knows its memory
        else:
            group["lr"] = lr


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
