"""Everything that decides the next step, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.balance import Fixed
from pipeline.training.guard import Guard

Weights = dict[str, Tensor]


@dataclass
class State:
    """Networks, optimizers and positions. Batches and noise are functions of the positions."""

    generator: nn.Module
    discriminator: nn.Module
    ema: nn.Module  # moving average of the generator, in eval mode
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    balance: Fixed
    guard: Guard = field(default_factory=Guard)
    step: int = 0  # generator updates done
    d_updates: int = 0
    batches: int = 0  # batches drawn
    images: int = 0  # reals shown to D
    seconds: float = 0.0  # spent training, over all sessions
    history: list[dict[str, float]] = field(default_factory=list)
    # Running values of terms and controllers by name, on the networks' device.
    memory: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_score: float = float("inf")
    best_weights: Weights | None = None

    # What is told of it besides: see `guard.Event`, and `checkpoints.environment`.
    events: list[dict[str, Any]] = field(default_factory=list)
    environments: list[dict[str, str]] = field(default_factory=list)

    _MODULES = (
        "generator",
        "discriminator",
        "ema",
        "optimizer_g",
        "optimizer_d",
        "balance",
        "guard",
    )
    _VALUES = (
        "step",
        "d_updates",
        "batches",
        "images",
        "seconds",
        "history",
        "memory",
        "best_step",
        "best_score",
        "best_weights",
        "events",
        "environments",
    )

    def state_dict(self) -> dict[str, Any]:
        modules = {name: getattr(self, name).state_dict() for name in self._MODULES}
        return modules | {name: getattr(self, name) for name in self._VALUES}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, from tensors on any device.

        What the next step needs moves to the networks' device. What is kept aside (the best and the
        last healthy weights) stays where it is: saved and loaded, on the CPU.
        """
        for name in self._MODULES:
            getattr(self, name).load_state_dict(state[name])
        for name in self._VALUES:
            setattr(self, name, state[name])
        device = next(self.generator.parameters()).device
        self.memory = {name: value.to(device) for name, value in self.memory.items()}


def average_of(generator: nn.Module) -> nn.Module:
    """A copy of the generator to hold its moving average."""
    return copy.deepcopy(generator).eval().requires_grad_(False)


class Average:
    """Moves an average of a generator: its weights, and its running statistics likewise."""

    def __init__(self, ema: nn.Module, generator: nn.Module) -> None:
        pairs = zip(
            [*ema.parameters(), *ema.buffers()],
            [*generator.parameters(), *generator.buffers()],
            strict=True,
        )
        floats = [(mean, value) for mean, value in pairs if value.is_floating_point()]
        self.means, self.values = ([pair[i] for pair in floats] for i in range(2))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Each mean <- decay * mean + (1 - decay) * value."""
        torch._foreach_lerp_(self.means, self.values, 1 - decay)


def weights_of(module: nn.Module) -> Weights:
    """A copy of the module's state on the CPU, in the plain memory format that files need."""
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in module.state_dict().items()
    }
