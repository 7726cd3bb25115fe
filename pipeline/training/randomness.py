"""Draws as functions of (seed, stream, counter): resuming needs no generator's state."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from pipeline import parallel

# One stream a purpose: equal counters in different streams give independent draws.
NOISE, ORDER, USE = 0, 1, 3


def _key(*numbers: int) -> int:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0] >> 1)  # torch takes a signed 64-bit seed


def generator(seed: int, stream: int, counter: int) -> torch.Generator:
    """A CPU generator for this draw: the same numbers whatever device they are then moved to."""
    return torch.Generator().manual_seed(_key(seed, stream, counter))


def normal(shape: tuple[int, ...], seed: int, counter: int) -> Tensor:
    """Standard normal noise."""
    return torch.randn(shape, generator=generator(seed, NOISE, counter))


class Draws:
    """What is drawn while one batch is used: the i-th draw is a function of (seed, counter, i).

    A batch is used within one round, which no checkpoint cuts in two. Shapes are those of this
    process's rows of the batch.
    """

    def __init__(self, seed: int, counter: int) -> None:
        self.seed, self.counter, self.taken = seed, counter, 0

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return parallel.draw(lambda all_: torch.rand(all_, generator=self._next()), shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers."""
        return parallel.draw(lambda all_: torch.randn(all_, generator=self._next()), shape)

    def _next(self) -> torch.Generator:
        self.taken += 1
        key = _key(self.seed, USE, self.counter, self.taken)
        return torch.Generator().manual_seed(key)


@functools.lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, ORDER, epoch))


def batch_indices(n: int, batch_size: int, seed: int, counter: int) -> Tensor:
    """Indices of the `counter`-th batch when all `n` items are passed in a new order each epoch.

    A batch may span epochs, so that none is short and no item is left out.
    """
    parts = []
    position, left = counter * batch_size, batch_size
    while left:
        epoch, offset = divmod(position, n)
        part = _permutation(n, seed, epoch)[offset : offset + left]
        parts.append(part)
        position, left = position + len(part), left - len(part)
    return torch.cat(parts)
