"""NaN and inf traced to the module that made them, by computing once more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.training.objective import Objective


def in_batches(objective: Objective, batches: range) -> str:
    """Which module first makes NaN or inf in these batches, learnt from again, in words."""
    task, state = objective.task, objective.state

    def d_again(counter: int) -> Tensor:
        batch = task.batch_at(counter)
        fake = objective.fake(batch).detach()
        return objective.discriminator_loss(batch, fake, objective.regularizers)[0]

    def g_again(counter: int) -> Tensor:
        batch = task.batch_at(counter)
        return objective.generator_loss(batch, objective.fake(batch), objective.generator_terms)

    def attempts() -> Iterator[tuple[str, Callable[[], Tensor]]]:
        for counter in batches:
            yield "D learnt", functools.partial(d_again, counter)
            yield "G learnt", functools.partial(g_again, counter)

    networks = {"generator": state.generator, "discriminator": state.discriminator}
    with torch.compiler.set_stance("force_eager"):  # what is compiled has no modules
        return in_losses(networks, attempts())


def in_losses(
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
