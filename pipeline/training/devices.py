"""Which device computes, and in which precision."""

from __future__ import annotations

import sys

import torch

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


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies it natively, else float32."""
    if name == "auto":
        return torch.bfloat16 if _has_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Emulated bf16 is slower than fp32: only processors with the instructions gain.
        return torch.cpu._is_avx512_bf16_supported()
    return False


def agreed(precision: torch.dtype) -> torch.dtype:
    """The precision of all processes: what the first one picked, on whatever processors."""
    return getattr(torch, parallel.share(str(precision).removeprefix("torch.")))


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
