"""Which device computes: how it is picked, reached and described. Nothing here changes a number."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from pipeline import parallel
from pipeline.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA, else MPS, else the CPU. Raises ConfigError where the named one is absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"train.device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices; "
            "set it to auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("train.device is 'mps', but torch sees no MPS; set it to auto or cpu")
    return device


def moved(x: Tensor, device: torch.device) -> Tensor:
    """`x`, drawn on the CPU, on the device. On its way to CUDA the host does not wait for it."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step.

    By default it gives blocks above 32 MB (large batches, wide networks) back to the system, which
    must then fill them with zeros, page by page, at every step.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return
    trim_threshold, mmap_threshold = -1, -3
    if not mallopt(mmap_threshold, 2**30):
        mallopt(mmap_threshold, 2**25)  # the most that older versions take
    mallopt(trim_threshold, 2**31 - 1)


def describe(device: torch.device) -> str:
    """The device in words, as a run's tag."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type}, {torch.get_num_threads()} threads"
    return name if parallel.size() == 1 else f"{parallel.size()} x {name}"


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far: the GPU allocator's, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB here
