"""The adversarial training loop: one for every recipe.

It knows networks, a loss, regularizers, a balance and a task; nothing of DVC, MLflow or Optuna.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline import parallel
from pipeline.losses import Loss
from pipeline.regularizers import FeatureTerm, GeneratorTerm, LogitTerm, Regularizer, Term
from pipeline.training import balance, devices, finite, randomness
from pipeline.training.finite import NotFinite
from pipeline.training.guard import Event
from pipeline.training.schedules import Schedule
from pipeline.training.state import State, update_average, weights_of
from pipeline.training.tasks import Task

Row = dict[str, float]


class Callback:
    """What listens to a training: override what is of interest. Rows are those of the history."""

    def on_step(self, state: State, row: Row) -> None:
        """After every `log_every` generator updates."""

    def on_eval(self, state: State, row: Row) -> bool | None:
        """After every `eval_every` generator updates; True asks the training to stop."""

    def on_event(self, state: State, event: Event) -> None:
        """At once where the balance moved, the collapse alarm sounded, or a rollback happened."""

    def on_end(self, state: State) -> None:
        """After the last step, or where the training was asked to stop."""


def train(
    state: State,
    task: Task,
    *,
    loss: Loss,
    terms: Sequence[Term],  # added to the losses of D or G
    weight_clip: float | None,  # D's weights stay in [-weight_clip, weight_clip]
    steps: int,  # generator updates in all, those of a resumed state included
    lr_g: float,
    lr_d: float,
    schedule_g: Schedule,  # progress in [0, 1] -> factor on the rate
    schedule_d: Schedule,
    clip_grad: float | None,  # largest norm of the gradients of D, and of G
    ema_decay: float,
    ema_warmup: float,  # early averages forget sooner: decay at step t is at most (1+t)/(this+t)
    precision: torch.dtype,  # of autocast; float32: none
    seed: int,  # of the penalties' random mixes
    log_every: int,
    eval_every: int,
    checkpoint_every: int,
    evaluate: Callable[[nn.Module], dict[str, float]],  # EMA generator -> figures, `fd` among them
    save: Callable[[State], None],
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train `state` in place up to `steps` generator updates, or until a callback asks to stop.

    The result is a function of the arguments alone: stopping, saving, loading and going on at any
    step gives the same weights, bit for bit, on the same machine. Raises Diverged for a loss or a
    gradient that is not finite, before it touches a weight, unless the state's guard takes it back.
    """
    device = next(state.generator.parameters()).device
    g, d = state.generator, state.discriminator
    d_parameters: list[Tensor] = list(d.parameters())
    autocast = torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)
    meter = Meter()
    check = finite.Check(device)
    listens = state.balance.every is not None
    regularizers = [term for term in terms if isinstance(term, Regularizer)]
    logit_terms = [term for term in terms if isinstance(term, LogitTerm)]
    feature_terms = [term for term in terms if isinstance(term, FeatureTerm)]
    generator_terms = [term for term in terms if isinstance(term, GeneratorTerm)]

    def descend(optimizer: torch.optim.Optimizer, total: Tensor) -> None:
        optimizer.zero_grad()
        total.backward()
        told = parallel.average_gradients(_parameters(optimizer), total.detach())
        if clip_grad is not None:
            nn.utils.clip_grad_norm_(_parameters(optimizer), clip_grad)
        if state.guard.checks:
            check.step(optimizer, told)
        else:
            optimizer.step()

    def total_of_d(batch: Any, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What D minimises, and its logits of reals and fakes."""
        real = task.real(batch)
        with autocast, parametrize.cached():  # spectral normalisation once for both
            of_real = task.judge(d, real, batch)
            of_fake = task.judge(d, fake, batch)
        real_logits, fake_logits = of_real.logits.float(), of_fake.logits.float()
        total = loss.discriminator(real_logits, fake_logits)
        for term in logit_terms:
            total = total + term.weight * term.penalty(real_logits, fake_logits, state.memory)
        for regularizer in regularizers:
            if state.d_updates % regularizer.every == 0:
                mix = parallel.draw(
                    lambda shape: randomness.uniform(shape, seed, state.d_updates),
                    regularizer.random(real),
                )
                mix = devices.moved(mix, device)
                # In float32: a gradient of a gradient loses too much in half the bits.
                penalty = regularizer.penalty(
                    lambda images: task.judge(d, images, batch).logits, real, fake.float(), mix
                )
                total = total + regularizer.weight * regularizer.every * penalty
        extra = task.discriminator_terms(of_real, of_fake, batch)
        return (total if extra is None else total + extra), real_logits, fake_logits

    def update_d(batch: Any, fake: Tensor) -> None:
        total, real_logits, fake_logits = total_of_d(batch, fake)
        descend(state.optimizer_d, total)
        if weight_clip is not None:
            with torch.no_grad():
                torch._foreach_clamp_min_(d_parameters, -weight_clip)
                torch._foreach_clamp_max_(d_parameters, weight_clip)
        state.d_updates += 1
        state.images += len(task.real(batch)) * parallel.size()
        if listens:
            balance.hear(state.memory, real_logits, fake_logits)
        meter.add(
            loss_d=total,
            d_real=real_logits.mean(),
            d_fake=fake_logits.mean(),
            d_acc_real=(real_logits > loss.boundary).float().mean(),
            d_acc_fake=(fake_logits <= loss.boundary).float().mean(),
            **task.judged(real_logits),
        )

    def total_of_g(batch: Any, fake: Tensor) -> Tensor:
        """What G minimises."""
        with autocast:
            of_fake = task.judge(d, fake, batch)
            of_real = None
            if loss.relativistic or feature_terms:
                with torch.no_grad():
                    of_real = task.judge(d, task.real(batch), batch)
        real_logits = None if of_real is None else of_real.logits.float()
        total = loss.generator(of_fake.logits.float(), real_logits)
        for term in feature_terms:
            assert of_real is not None
            matched = term.penalty(of_real.features.float(), of_fake.features.float())
            total = total + term.weight * matched
        for lazy in generator_terms:
            if state.step % lazy.every == 0:
                penalty = task.penalise(lazy, g, batch, state.memory)
                total = total + lazy.weight * lazy.every * penalty
        extra = task.generator_terms(fake, of_fake, batch)
        return total if extra is None else total + extra

    def update_g(batch: Any, fake: Tensor) -> None:
        for parameter in d_parameters:  # D's own gradients are not needed here
            parameter.requires_grad_(False)
        total = total_of_g(batch, fake)
        descend(state.optimizer_g, total)
        for parameter in d_parameters:
            parameter.requires_grad_(True)
        state.step += 1
        decay = min(ema_decay, (1 + state.step) / (ema_warmup + state.step))
        update_average(state.ema, g, decay)
        meter.add(loss_g=total)

    def draw() -> tuple[Any, Tensor]:
        batch = task.batch(state.batches)
        state.batches += 1
        with autocast:
            return batch, task.fake(g, batch)

    def log_row(began: float, first_image: int) -> Row:
        seconds = time.perf_counter() - began
        state.seconds += seconds
        row = {
            "step": state.step,
            "images": state.images,
            "kimg": state.images / 1000,
            "seconds": state.seconds,
            **meter.means(),
            "grad_norm_g": _gradient_norm(state.optimizer_g),
            "grad_norm_d": _gradient_norm(state.optimizer_d),
            "lr_g": state.optimizer_g.param_groups[0]["lr"],
            "lr_d": state.optimizer_d.param_groups[0]["lr"],
            "images_per_second": (state.images - first_image) / seconds,
            "memory_mb": devices.peak_memory_mb(device),
            **state.balance.columns(),
        }
        state.history.append(row)
        return row

    def play() -> None:
        """One round of updates."""
        d_steps, g_steps = state.balance.ratio()
        for _ in range(d_steps - 1):
            with torch.no_grad():
                batch, fake = draw()
            update_d(batch, fake)
        # The last fakes that D learns from are the first that G learns from: one pass through G
        # saved in each round, and the gradient is the same in expectation.
        batch, fake = draw()
        update_d(batch, fake.detach())
        update_g(batch, fake)
        for _ in range(min(g_steps - 1, steps - state.step)):
            update_g(*draw())

    def tell(events: list[Event]) -> None:
        for event in events:
            state.events.append(asdict(event))
            for callback in callbacks:
                callback.on_event(state, event)

    def take_back(first_batch: int) -> None:
        """After NaN or inf in the batches since `first_batch`: name its maker, and let go back."""
        for parameter in d_parameters:
            parameter.requires_grad_(True)

        def d_again(counter: int) -> Tensor:
            batch = task.batch(counter)
            with autocast:
                fake = task.fake(g, batch)
            return total_of_d(batch, fake.detach())[0]

        def g_again(counter: int) -> Tensor:
            batch = task.batch(counter)
            with autocast:
                fake = task.fake(g, batch)
            return total_of_g(batch, fake)

        def attempts() -> Iterator[tuple[str, Callable[[], Tensor]]]:
            for counter in range(first_batch, state.batches):
                yield "D learnt", functools.partial(d_again, counter)
                yield "G learnt", functools.partial(g_again, counter)

        culprit = "a batch that several processes shared"  # who made it, not all of them see
        if parallel.size() == 1:
            culprit = finite.first_culprit({"generator": g, "discriminator": d}, attempts())
        tell([Event(state.step, "not_finite", f"NaN or inf, first made by {culprit}")])
        tell([state.guard.not_finite(state, culprit)])
        # A deferred check has counted updates that were none, and the last step must be one.
        state.step = min(state.step, steps - 1)
        check.clear()
        meter.means()

    def adapt() -> None:
        """Let the balance move by what was heard of D."""
        held_out = task.held_out(state.batches)
        if held_out is not None:
            with torch.no_grad(), autocast:
                logits = task.judge(d, task.real(held_out), held_out).logits
            balance.hear_held_out(state.memory, logits.float())
        moved = state.balance.adapt(*balance.heard(state.memory))
        if moved is not None:
            tell([Event(state.step, "balance", moved)])

    g.train()
    d.train()
    state.guard.begin(state)
    first_batch = last_batch = state.batches  # of this round, and of the one before
    began, first_image = time.perf_counter(), state.images
    logged, stop = state.step, False
    while state.step < steps and not stop:
        progress = state.step / steps
        rate_g, rate_d = state.balance.rates()
        _set_rate(state.optimizer_g, lr_g * schedule_g(progress) * rate_g)
        _set_rate(state.optimizer_d, lr_d * schedule_d(progress) * rate_d)
        task.begin(state, progress)
        before, last_batch, first_batch = state.step, first_batch, state.batches
        try:
            play()
            ended = state.step >= steps
            evaluated = ended or _passed(logged, state.step, eval_every)
            due = evaluated or _passed(logged, state.step, log_every)
            check.settle(now=due)
        except NotFinite:
            take_back(last_batch)
            continue
        every = state.balance.every
        if every is not None and _passed(before, state.step, every):
            adapt()
        if due:
            row = log_row(began, first_image)
            if evaluated:
                figures = evaluate(state.ema)
                row.update({f"eval_{name}": value for name, value in figures.items()})
                if figures["fd"] < state.best_score:
                    state.best_step, state.best_score = state.step, figures["fd"]
                    state.best_weights = weights_of(state.ema)
                row["eval_alarm"] = float(state.guard.hears(figures, state.step, steps))
            for callback in callbacks:
                callback.on_step(state, row)
                if evaluated:
                    stop = bool(callback.on_eval(state, row)) or stop
            if evaluated:
                tell(state.guard.acts(state))
                # Who listens is process 0's affair.
                stop = parallel.share(stop or state.guard.stops)
            # Only here: between two rows the meter holds sums that a checkpoint lacks.
            if not ended and _passed(logged, state.step, checkpoint_every):
                save(state)
            logged, began, first_image = state.step, time.perf_counter(), state.images
    for callback in callbacks:
        callback.on_end(state)


class Meter:
    """Means of scalars since the last look, summed on the device: no host sync in a step."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, **scalars: Tensor) -> None:
        for name, scalar in scalars.items():
            value = scalar.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> Row:
        """The means by name, over all processes; starts anew."""
        if not self.sums:
            return {}
        totals = parallel.mean(torch.stack(list(self.sums.values()))).tolist()  # one host sync
        means = {
            name: total / self.counts[name] for name, total in zip(self.sums, totals, strict=True)
        }
        self.sums, self.counts = {}, {}
        return means


def _passed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]: a round may hold several updates."""
    return now // every > before // every


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Norm of the gradients of the last update."""
    gradients = [parameter.grad for parameter in _parameters(optimizer)]
    present = [gradient for gradient in gradients if gradient is not None]
    return float(torch.nn.utils.get_total_norm(present))
