"""NaN and inf: found before they reach a weight, and traced to the module that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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


def first_culprit(
    networks: Mapping[str, nn.Module], attempts: Iterable[tuple[str, Callable[[], Tensor]]]
) -> str:
    """Which module first makes NaN or inf, in words.

    `networks` by name; `attempts` are the losses of the round, each with what it is for, computed
    one after another until one of them, or its gradient, is not finite.
    """
    for what, loss in attempts:
        found = _Trace(networks).look(loss)
        if found:
            return f"{found} while {what}"
    return "it did not come again when the round was repeated"


class _Trace:
    """Watches one forward and backward pass, module by module."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = networks
        self.seen: list[tuple[str, Tensor]] = []  # in the order of computation: words, bad?
        self.takers: dict[int, tuple[Tensor, str]] = {}  # of a tensor, by its id
        self.handles: list[RemovableHandle] = []

    def look(self, loss: Callable[[], Tensor]) -> str | None:
        handles = self.handles
        for network in self.networks.values():
            network.zero_grad()  # those of the failed update are no work of this one
        for name, network in self.networks.items():
            for path, module in network.named_modules():
                if "parametrizations" not in path:
                    kind = type(module).__name__.removeprefix("Parametrized")
                    label = f"{name}{'.' if path else ''}{path} ({kind})"
                    handles.append(module.register_forward_hook(self._forward(label)))
        try:
            with torch.enable_grad():
                total = loss()
                self._note("the loss", total)
                found = self._first()
                if found is None:
                    total.backward()
                    self._weights()
                    found = self._first()
        finally:
            # Hooks that hold their tensors are a cycle that is never collected, and with it the
            # gradients' graph, whose nodes keep the stream of this search.
            for handle in handles:
                handle.remove()
            self.takers.clear()
            for network in self.networks.values():
                network.zero_grad()
        return found

    def _forward(self, label: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            for name, weight in module.named_parameters():
                plain = name.replace("parametrizations.", "").replace(".original", "")
                self._note(f"{label}: its {plain}", weight)
            for tensor in inputs:
                if isinstance(tensor, Tensor) and tensor.requires_grad and not tensor.is_leaf:
                    # The first to take it is the innermost.
                    self.takers.setdefault(id(tensor), (tensor, label))
                    self.handles.append(tensor.register_hook(self._backward(tensor, label)))
            if isinstance(output, Tensor):
                self._note(label, output)
                if output.requires_grad:
                    self.handles.append(output.register_hook(self._backward(output, label)))

        return hook

    def _backward(self, tensor: Tensor, label: str) -> Callable[[Tensor], None]:
        """Notes the gradient that comes back to `tensor`, which `label` took or made."""

        def hook(gradient: Tensor) -> None:
            taker = self.takers.get(id(tensor))
            words = f"what follows {label}" if taker is None else taker[1]
            self._note(f"the backward pass of {words}", gradient)

        return hook

    def _weights(self) -> None:
        for name, network in self.networks.items():
            for path, weight in network.named_parameters():
                if weight.grad is not None:
                    self._note(f"the gradient of {name}.{path}", weight.grad)

    def _note(self, label: str, tensor: Tensor) -> None:
        if tensor.is_floating_point():
            self.seen.append((label, ~tensor.detach().isfinite().all()))

    def _first(self) -> str | None:
        return next((label for label, bad in self.seen if bool(bad)), None)
