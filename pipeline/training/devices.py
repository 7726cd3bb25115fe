"""Which device computes, and in which precision."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

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


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies it natively, else float32."""
    if name == "auto":
        return torch.bfloat16 if _has_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Emulated bf16 is slower than fp32: only processors with the instructions gain (those with
        # AMX have these too). By the instructions, not by a measurement at the start: other load
        # could turn that round, and a killed training would not find its checkpoint again.
        return torch.cpu._is_avx512_bf16_supported()
    return False


def agreed(precision: torch.dtype) -> torch.dtype:
    """The precision of all processes: what the first one picked, on whatever processors."""
    return getattr(torch, parallel.share(str(precision).removeprefix("torch.")))


def moved(x: Tensor, device: torch.device) -> Tensor:
    """`x`, drawn on the CPU, on the device. On its way to CUDA the host does not wait for it."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


@contextlib.contextmanager
def unsearched() -> Iterator[None]:
    """Without trying which convolution is fastest: for shapes that come a few times."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def prepare(device: torch.device, *, deterministic: bool) -> None:
    """Settings of this process by which it computes faster; call it once, before any work.

    On a CPU they change no number. On CUDA, unless `deterministic`, float32 products are in
    TensorFloat-32 and cuDNN tries which convolution is fastest.
    """
    keep_freed_memory()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # events and streams are of the current one
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch then asks for
        torch.use_deterministic_algorithms(True)
    elif device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step.

    By default it gives large blocks back to the system, which must then fill them with zeros, page
    by page, at every step: 13% of the processor's time of a default step in float32.
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
