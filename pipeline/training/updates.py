"""One update of D, of G, or of both on the same fakes: what it computes, and what counts it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import parallel
from pipeline.regularizers import GeneratorTerm, Regularizer
from pipeline.training import balance
from pipeline.training.finite import Check
from pipeline.training.graphs import Drawn, Eager
from pipeline.training.objective import Objective
from pipeline.training.optimizers import parameters_of
from pipeline.training.randomness import Draws
from pipeline.training.state import Average, State


@dataclass(frozen=True)
class Kind:
    """Who learns, and by which of the lazy terms: updates of one kind are the same computation."""

    of_d: bool
    of_g: bool
    due_d: tuple[Regularizer, ...] = ()
    due_g: tuple[GeneratorTerm, ...] = ()


@dataclass
class Told:
    """What an update tells: scalars (K,) for the history, and D's logits (N,) where D learnt.

    Apart from the graph of the gradients, which would live as long as it.
    """

    names: tuple[str, ...]
    values: Tensor
    real_logits: Tensor | None = None
    fake_logits: Tensor | None = None


class Updates:
    """The updates of one training, on one batch after another."""

    def __init__(
        self,
        state: State,
        objective: Objective,
        *,
        run: Eager,
        check: Check,
        weight_clip: float | None,
        clip_grad: float | None,
        ema_decay: float,
        ema_warmup: float,
    ) -> None:
        self.state, self.objective, self.run, self.check = state, objective, run, check
        self.weight_clip, self.clip_grad = weight_clip, clip_grad
        self.ema_decay, self.ema_warmup = ema_decay, ema_warmup
        self.average = Average(state.ema, state.generator)
        self.meter = Meter()
        self.d_parameters: list[Tensor] = list(state.discriminator.parameters())

    def round(self, steps: int) -> None:
        """D's and G's updates by the ratio of the balance, up to `steps` of G in all."""
        d_steps, g_steps = self.state.balance.ratio()
        for _ in range(d_steps - 1):
            self.learn(of_d=True, of_g=False)
        # The last fakes that D learns from are the first that G learns from: one pass through G
        # saved in each round, and the gradient is the same in expectation.
        self.learn(of_d=True, of_g=True)
        for _ in range(min(g_steps - 1, steps - self.state.step)):
            self.learn(of_d=False, of_g=True)

    def learn(self, *, of_d: bool, of_g: bool) -> None:
        """One update on the next batch; raises NotFinite where the check does at once."""
        state, task = self.state, self.objective.task
        kind = self._kind(of_d, of_g)
        drawn, draws = task.drawn(state.batches)
        state.batches += 1
        told = self.run(kind, functools.partial(self._compute, kind), drawn, draws)
        self.meter.add(told.names, told.values)
        if of_d:
            state.d_updates += 1
            state.images += task.batch_size
            if state.balance.every is not None and told.real_logits is not None:
                assert told.fake_logits is not None
                balance.hear(state.memory, told.real_logits, told.fake_logits)
        if of_g:
            state.step += 1
            warm = (1 + state.step) / (self.ema_warmup + state.step)
            self.average.update(min(self.ema_decay, warm))

    def _kind(self, of_d: bool, of_g: bool) -> Kind:
        state, objective = self.state, self.objective
        due_d = [term for term in objective.regularizers if state.d_updates % term.every == 0]
        due_g = [term for term in objective.generator_terms if state.step % term.every == 0]
        return Kind(of_d, of_g, tuple(due_d) if of_d else (), tuple(due_g) if of_g else ())

    def _compute(self, kind: Kind, drawn: Drawn, draws: Draws) -> Told:
        """A function of tensors alone, as `graphs` wants it."""
        with torch.set_grad_enabled(kind.of_g):
            batch = self.objective.task.batch(drawn, draws)
            fake = self.objective.fake(batch)
        scalars: dict[str, Tensor] = {}
        logits: tuple[Tensor, ...] = ()
        if kind.of_d:
            scalars, *logits = self._descend_d(batch, fake.detach(), kind)  # type: ignore[assignment]
        if kind.of_g:
            scalars["loss_g"] = self._descend_g(batch, fake, kind)
        return report(scalars, *logits)

    def _descend_d(
        self, batch: Any, fake: Tensor, kind: Kind
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Scalars for the history, and D's logits of reals and fakes."""
        objective = self.objective
        total, real_logits, fake_logits = objective.discriminator_loss(batch, fake, kind.due_d)
        self._descend(self.state.optimizer_d, total)
        if self.weight_clip is not None:
            with torch.no_grad():
                torch._foreach_clamp_min_(self.d_parameters, -self.weight_clip)
                torch._foreach_clamp_max_(self.d_parameters, self.weight_clip)
        boundary = objective.loss.boundary
        scalars = {
            "loss_d": total,
            "d_real": real_logits.mean(),
            "d_fake": fake_logits.mean(),
            "d_acc_real": (real_logits > boundary).float().mean(),
            "d_acc_fake": (fake_logits <= boundary).float().mean(),
            **objective.task.judged(real_logits),
        }
        return scalars, real_logits, fake_logits

    def _descend_g(self, batch: Any, fake: Tensor, kind: Kind) -> Tensor:
        with _frozen(self.d_parameters):  # D's own gradients are not needed here
            total = self.objective.generator_loss(batch, fake, kind.due_g)
            self._descend(self.state.optimizer_g, total)
        return total

    def _descend(self, optimizer: torch.optim.Optimizer, total: Tensor) -> None:
        parameters = parameters_of(optimizer)
        optimizer.zero_grad()
        total.backward()
        mean = parallel.average_gradients(parameters, total.detach())
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_grad)
        if self.state.guard.checks:
            self.check.step(optimizer, mean)
        else:
            optimizer.step()


def report(scalars: dict[str, Tensor], *logits: Tensor) -> Told:
    """The scalars as one tensor: one sum in place of many."""
    values = torch.stack([value.detach().float() for value in scalars.values()])
    return Told(tuple(scalars), values, *(one.detach() for one in logits))


class Meter:
    """Means of scalars since the last look, summed on the device: no host sync in a step."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], Tensor] = {}
        self.counts: Counter[str] = Counter()

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        # A replayed update tells in the same memory again: the first is copied.
        known = self.sums.get(names)
        self.sums[names] = values.clone() if known is None else known.add_(values)
        self.counts.update(names)

    def means(self) -> dict[str, float]:
        """The means by name, over all processes; starts anew."""
        if not self.sums:
            return {}
        totals = parallel.mean(torch.cat(list(self.sums.values()))).tolist()  # one host sync
        means: dict[str, float] = {}
        for name, total in zip((n for names in self.sums for n in names), totals, strict=True):
            means[name] = means.get(name, 0.0) + total / self.counts[name]
        self.sums, self.counts = {}, Counter()
        return means


@contextmanager
def _frozen(parameters: list[Tensor]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
