"""Draws as functions of (seed, stream, counter): resuming needs no generator's state."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

# One stream a purpose: equal counters in different streams give independent draws.
NOISE, ORDER, MIX = range(3)


def _key(seed: int, stream: int, counter: int) -> int:
    state = np.random.SeedSequence((seed, stream, counter)).generate_state(1, np.uint64)
    return int(state[0] >> 1)  # torch takes a signed 64-bit seed


def generator(seed: int, stream: int, counter: int) -> torch.Generator:
    """A CPU generator for this draw: the same numbers whatever device they are then moved to."""
    return torch.Generator().manual_seed(_key(seed, stream, counter))


def normal(shape: tuple[int, ...], seed: int, counter: int) -> Tensor:
    """Standard normal noise."""
    return torch.randn(shape, generator=generator(seed, NOISE, counter))


def uniform(n: int, seed: int, counter: int) -> Tensor:
    """Uniform numbers (n,) in [0, 1)."""
    return torch.rand(n, generator=generator(seed, MIX, counter))


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
