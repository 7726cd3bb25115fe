"""Random numbers that a network owns: what it draws next is part of its state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline import parallel


class Draws(nn.Module):
    """Draws that a saved and restored network continues where it stopped.

    The seed comes from torch's global generator when the network is built, as its weights do. The
    numbers depend on the kind of device they are drawn on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed, self.taken = int(torch.randint(2**62, ())), 0

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, device=device, generator=self._next(device))

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(shape, device=device, generator=self._next(device))

    def _next(self, device: torch.device) -> torch.Generator:
        self.taken += 1
        # An odd multiplier takes each position to another seed of torch's 63 bits.
        key = (self.seed + self.taken * 0x9E3779B97F4A7C15) % 2**63
        return torch.Generator(device).manual_seed(key)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.seed, self.taken])

    def set_extra_state(self, state: Tensor) -> None:
        self.seed, self.taken = (int(number) for number in state)


class Dropout(nn.Module):
    """Zeros a share `p` of the units in training and scales the others up (Srivastava 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.draws = p, Draws()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        u = parallel.draw(lambda shape: self.draws.uniform(shape, x.device), tuple(x.shape))
        kept = u >= self.p
        return x * kept / (1 - self.p)
