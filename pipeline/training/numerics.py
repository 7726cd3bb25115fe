"""How numbers are computed: precision, and what of a device's settings decides the last bits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from pipeline import parallel
from pipeline.training import devices

# As params.yaml says them.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies it natively, else float32."""
    if name == "auto":
        return torch.bfloat16 if _has_bf16(device) else torch.float32
    return PRECISIONS[name]


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
    return PRECISIONS[parallel.broadcast_object(name_of(precision))]


def name_of(precision: torch.dtype) -> str:
    return next(name for name, known in PRECISIONS.items() if known == precision)


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
    TensorFloat-32 (cuDNN's are by default) and cuDNN tries which convolution is fastest.
    """
    devices.keep_freed_memory()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch then asks for
    torch.use_deterministic_algorithms(deterministic)
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)  # events and streams are of the current one
        torch.backends.cuda.matmul.allow_tf32 = not deterministic
        torch.backends.cudnn.allow_tf32 = not deterministic
        torch.backends.cudnn.benchmark = not deterministic
