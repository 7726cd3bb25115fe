"""NaN and inf, found before they reach a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.training.optimizers import parameters_of


class Diverged(UserError):
    """A figure, a loss or a gradient of the training is not a number any more."""

    everywhere = True


class NotFinite(Exception):
    """A loss or a gradient is NaN or inf. The weights are as they were before."""


class Check:
    """Lets an optimizer step only where loss and gradients are finite.

    On a CPU the step raises `NotFinite` at once. Elsewhere asking would make the host wait for the
    device in each update, so the device itself skips the update and all that follow it, and
    `settle` raises a round later. That needs a fused optimizer; others are asked at once.

    Args:
        device: of the gradients.
        deferred: None: wherever it saves a wait.
    """

    def __init__(self, device: torch.device, deferred: bool | None = None) -> None:
        self.deferred = device.type == "cuda" if deferred is None else deferred
        self.found = torch.zeros((), device=device)  # 1 once something was not finite
        self.one = torch.ones((), device=device)
        on_cuda = device.type == "cuda"
        self.copy = torch.zeros((), pin_memory=on_cuda)  # of `found`, as of the last round's end
        self.waiting = False  # for that copy
        self.event = torch.cuda.Event() if on_cuda else None

    def step(self, optimizer: torch.optim.Optimizer, total: Tensor) -> None:
        """`optimizer.step()`, unless `total` or a gradient is not finite."""
        gradients = [p.grad for p in parameters_of(optimizer) if p.grad is not None]
        # What torch's gradient scaler asks, in one kernel over all of them; times one is exact.
        torch._amp_foreach_non_finite_check_and_unscale_(
            [*gradients, total.detach()], self.found, self.one
        )
        skips = getattr(optimizer, "_step_supports_amp_scaling", False)
        if not (self.deferred and skips):
            if bool(self.found):
                raise NotFinite
        else:
            optimizer.found_inf = self.found  # type: ignore[attr-defined]
        optimizer.step()

    def settle(self, now: bool = False) -> None:
        """At the end of a round: raise NotFinite for the one before it; with `now` for this too."""
        if not self.deferred:
            return
        if now:
            if bool(self.found):
                raise NotFinite
            return
        if self.waiting:
            if self.event is not None:
                self.event.synchronize()
            if bool(self.copy):
                raise NotFinite
        self.copy.copy_(self.found, non_blocking=True)
        self.waiting = True
        if self.event is not None:
            self.event.record()

    def clear(self) -> None:
        """Begin anew, after a rollback."""
        self.found.zero_()
        self.waiting = False
