"""In which precision figures are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Without TensorFloat-32, by which a GPU's features differ from a CPU's in the fourth digit."""
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(
            enabled=True, deterministic=torch.backends.cudnn.deterministic, allow_tf32=False
        ):
            yield
    finally:
        products.allow_tf32 = before
