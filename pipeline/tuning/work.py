"""What a training costs, so that trials of different settings can be given the same.

Work is the number of floating-point operations of the loop itself (PyTorch's own counter), so it
takes in all that a setting changes: images through G and D, forward and backward, updates of D per
update of G, penalties and how often they are computed, width, batch size. A trial with five
updates of D per update of G gets fewer updates, not a longer training for free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipeline.config import Params
from pipeline.training import recipe

# Keys of `train` that change no number of operations: rates, and how often somebody looks.
COSTLESS = (
    "steps",
    "lr_g",
    "lr_d",
    "lr_decay",
    "lr_decay_d",
    "lr_warmup",
    "optimizer_g",
    "optimizer_d",
    "betas_g",
    "betas_d",
    "weight_decay_g",
    "weight_decay_d",
    "clip_grad",
    "augment_p",
    "instance_noise",
    "ema_decay",
    "ema_warmup",
    "precision",
    "device",
    "compile",
    "cuda_graphs",
    "deterministic",
    "checkpoint_every",
    "eval_every",
    "eval_samples",
    "log_every",
    "on_collapse",
)

FEWEST_SAMPLES = 4  # the work is in proportion to the batch, so a small one tells
FEWEST_ROUNDS, MOST_ROUNDS = 8, 64  # few see too little of networks that grow while they train


def per_step(params: Params, *, shape: Sequence[int], n_classes: int) -> float:
    """Floating-point operations per update of G, those of D beside it included.

    `shape` is that of one stored sample, `n_classes` the number of classes of the data (0: none).
    Convolutions and matrix products are counted, a multiplication and an addition as two; all
    else is small beside them.
    """
    classes = n_classes if params.model.conditional else 0
    settings = params.train
    pack = params.model.pack
    batch = min(pack * math.ceil(FEWEST_SAMPLES / pack), settings.batch_size)
    steps = (
        _rounds([getattr(term, "every", 1) for term in recipe.terms_of(params)]) * settings.g_steps
    )
    small = params.model_copy(
        update={
            "train": settings.model_copy(
                update={
                    "compile": False,  # what is compiled cannot be counted
                    "batch_size": batch,
                    "steps": steps,
                    "log_every": steps,
                    "eval_every": steps,
                    "checkpoint_every": steps,
                }
            )
        }
    )
    device = torch.device("cpu")
    dtype = np.uint8 if len(shape) == 3 else np.float32
    samples = np.zeros((batch, *shape), dtype)
    labels = np.arange(batch) % classes if classes else None
    state = recipe.make_state(small, shape=shape, n_classes=classes, device=device)
    state.guard.checks = False
    task = recipe.make_task(small, samples, labels, device)
    with Counter() as counter:
        recipe.run(
            small,
            state,
            task,
            precision=torch.float32,
            evaluate=lambda generator: {"fd": 0.0},
            save=lambda state: None,
        )
    return counter.operations / steps * settings.batch_size / batch


class Counter(TorchDispatchMode):
    """Counts the operations of what runs in it, backward passes included.

    torch's FlopCounterMode follows modules too, which a penalty on gradients breaks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _rounds(every: list[int]) -> int:
    """Rounds in which each lazy term is computed as often as it should, be it D's or G's."""
    period = math.lcm(*every)
    return min(period * math.ceil(FEWEST_ROUNDS / period), MOST_ROUNDS)


def equal_steps(steps: int, *, work: float, other: float) -> int:
    """Updates of G that cost with `other` operations each what `steps` cost with `work` each."""
    return max(1, round(steps * work / other))
