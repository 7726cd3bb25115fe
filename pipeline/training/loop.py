"""The adversarial training loop: one for every recipe.

It knows networks, a loss, regularizers, a balance and a task; nothing of DVC, MLflow or Optuna.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline import parallel
from pipeline.losses import Loss
from pipeline.regularizers import FeatureTerm, GeneratorTerm, LogitTerm, Regularizer, Term
from pipeline.training import balance, compiling, devices, finite, graphs, numerics
from pipeline.training.finite import NotFinite
from pipeline.training.graphs import Drawn
from pipeline.training.guard import Event
from pipeline.training.randomness import Draws
from pipeline.training.schedules import Schedule
from pipeline.training.state import Average, State, weights_of
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
    compile: bool,  # G and D by torch.compile, where the recipe allows it, see compiling.py
    cuda_graphs: bool,  # on CUDA, where the recipe allows it: replay updates, see graphs.py
    log_every: int,
    eval_every: int,
    checkpoint_every: int,
    evaluate: Callable[[nn.Module], dict[str, float]],  # EMA generator -> figures, `fd` among them
    save: Callable[[State], None],
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train `state` in place up to `steps` generator updates, or until a callback asks to stop.

    The result is a function of the arguments alone: stopping, saving, loading and going on at any
    step gives the same weights, bit for bit, on the same machine with as many threads and
    processes. Raises Diverged for a loss or a gradient that is not finite, before it touches a
    weight, unless the state's guard takes it back.
    """
    device = next(state.generator.parameters()).device
    g, d = state.generator, state.discriminator
    # To be called where nothing takes a gradient of a gradient.
    fast_g, fast_d = (
        compiling.compiled({"the generator": g, "the discriminator": d}, device)
        if compile
        else (g, d)
    )
    d_parameters: list[Tensor] = list(d.parameters())
    autocast = torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)
    meter = Meter()
    check = finite.Check(device)
    average = Average(state.ema, g)
    optimizers = (state.optimizer_d, state.optimizer_g)
    run = graphs.runner(device, (g, d), optimizers) if cuda_graphs else graphs.Eager(device)
    listens = state.balance.every is not None
    regularizers = [term for term in terms if isinstance(term, Regularizer)]
    logit_terms = [term for term in terms if isinstance(term, LogitTerm)]
    feature_terms = [term for term in terms if isinstance(term, FeatureTerm)]
    generator_terms = [term for term in terms if isinstance(term, GeneratorTerm)]

    def descend(optimizer: torch.optim.Optimizer, total: Tensor) -> None:
        optimizer.zero_grad()
        total.backward()
        mean = parallel.average_gradients(_parameters(optimizer), total.detach())
        if clip_grad is not None:
            nn.utils.clip_grad_norm_(_parameters(optimizer), clip_grad)
        if state.guard.checks:
            check.step(optimizer, mean)
        else:
            optimizer.step()

    def total_of_d(
        batch: Any, fake: Tensor, *, all_terms: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What D minimises, and its logits of reals and fakes; `all_terms`: lazy ones or not."""
        real = task.real(batch)
        with autocast, parametrize.cached():  # spectral normalisation once for both
            of_real = task.judge(fast_d, real, batch)
            of_fake = task.judge(fast_d, fake, batch)
        real_logits, fake_logits = of_real.logits.float(), of_fake.logits.float()
        total = loss.discriminator(real_logits, fake_logits)
        for term in logit_terms:
            total = total + term.weight * term.penalty(real_logits, fake_logits, state.memory)
        for regularizer in regularizers:
            if all_terms or state.d_updates % regularizer.every == 0:
                shape = None if regularizer.random is None else regularizer.random(real)
                mix = real.new_empty(0) if shape is None else task.uniform(batch, shape)
                # In float32: a gradient of a gradient loses too much in half the bits.
                penalty = regularizer.penalty(
                    lambda images: task.judge(d, images, batch).logits, real, fake.float(), mix
                )
                total = total + regularizer.weight * regularizer.every * penalty
        extra = task.discriminator_terms(of_real, of_fake, batch)
        return (total if extra is None else total + extra), real_logits, fake_logits

    def descend_d(batch: Any, fake: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Scalars for the history, and D's logits of reals and fakes."""
        total, real_logits, fake_logits = total_of_d(batch, fake)
        descend(state.optimizer_d, total)
        if weight_clip is not None:
            with torch.no_grad():
                torch._foreach_clamp_min_(d_parameters, -weight_clip)
                torch._foreach_clamp_max_(d_parameters, weight_clip)
        scalars = {
            "loss_d": total,
            "d_real": real_logits.mean(),
            "d_fake": fake_logits.mean(),
            "d_acc_real": (real_logits > loss.boundary).float().mean(),
            "d_acc_fake": (fake_logits <= loss.boundary).float().mean(),
            **task.judged(real_logits),
        }
        return scalars, real_logits, fake_logits

    def total_of_g(batch: Any, fake: Tensor, *, all_terms: bool = False) -> Tensor:
        """What G minimises."""
        with autocast:
            of_fake = task.judge(fast_d, fake, batch)
            of_real = None
            if loss.relativistic or feature_terms:
                with torch.no_grad():
                    of_real = task.judge(fast_d, task.real(batch), batch)
        real_logits = None if of_real is None else of_real.logits.float()
        total = loss.generator(of_fake.logits.float(), real_logits)
        for term in feature_terms:
            assert of_real is not None
            matched = term.penalty(of_real.features.float(), of_fake.features.float())
            total = total + term.weight * matched
        for lazy in generator_terms:
            if all_terms or state.step % lazy.every == 0:
                penalty = task.penalise(lazy, g, batch, state.memory)
                total = total + lazy.weight * lazy.every * penalty
        extra = task.generator_terms(fake, of_fake, batch)
        return total if extra is None else total + extra

    def descend_g(batch: Any, fake: Tensor) -> Tensor:
        for parameter in d_parameters:  # D's own gradients are not needed here
            parameter.requires_grad_(False)
        try:
            total = total_of_g(batch, fake)
            descend(state.optimizer_g, total)
        finally:
            for parameter in d_parameters:
                parameter.requires_grad_(True)
        return total

    def made(drawn: Drawn, draws: Draws) -> tuple[Any, Tensor]:
        batch = task.batch(drawn, draws)
        with autocast:
            return batch, task.fake(fast_g, batch)

    # What follows are functions of tensors alone, as `graphs` wants them.

    def only_d(drawn: Drawn, draws: Draws) -> Told:
        with torch.no_grad():
            batch, fake = made(drawn, draws)
        return report(*descend_d(batch, fake))

    def only_g(drawn: Drawn, draws: Draws) -> Told:
        return report({"loss_g": descend_g(*made(drawn, draws))})

    def both(drawn: Drawn, draws: Draws) -> Told:
        batch, fake = made(drawn, draws)
        scalars, *logits = descend_d(batch, fake.detach())
        return report({**scalars, "loss_g": descend_g(batch, fake)}, *logits)

    def learn(update: Callable[[Drawn, Draws], Told]) -> None:
        """One such update on the next batch, and what counts it."""
        of_d, of_g = update in (only_d, both), update in (both, only_g)
        # Lazy terms are computed in some updates only, which are then other computations.
        key = (
            update.__name__,
            *(of_d and state.d_updates % term.every == 0 for term in regularizers),
            *(of_g and state.step % term.every == 0 for term in generator_terms),
        )
        drawn, draws = task.drawn(state.batches)
        state.batches += 1
        result = run(key, update, drawn, draws)
        meter.add(result.names, result.values)
        if of_d:
            state.d_updates += 1
            state.images += task.batch_size
            if listens and result.real_logits is not None and result.fake_logits is not None:
                balance.hear(state.memory, result.real_logits, result.fake_logits)
        if of_g:
            state.step += 1
            average.update(min(ema_decay, (1 + state.step) / (ema_warmup + state.step)))

    def log_row(began: float, first_image: int, rate_g: float, rate_d: float) -> Row:
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
            "lr_g": rate_g,
            "lr_d": rate_d,
            "images_per_second": (state.images - first_image) / seconds,
            "memory_mb": devices.peak_memory_mb(device),
            **state.balance.columns(),
        }
        state.history.append(row)
        return row

    def look(row: Row) -> None:
        """Put the figures of the averaged generator into the row; keep the best weights."""
        figures = evaluate(state.ema)
        row.update({f"eval_{name}": value for name, value in figures.items()})
        if figures["fd"] < state.best_score:
            state.best_step, state.best_score = state.step, figures["fd"]
            state.best_weights = weights_of(state.ema)
        row["eval_alarm"] = float(state.guard.hears(figures, state.step, steps))

    def play() -> None:
        """One round of updates."""
        d_steps, g_steps = state.balance.ratio()
        for _ in range(d_steps - 1):
            learn(only_d)
        # The last fakes that D learns from are the first that G learns from: one pass through G
        # saved in each round, and the gradient is the same in expectation.
        learn(both)
        for _ in range(min(g_steps - 1, steps - state.step)):
            learn(only_g)

    def tell(events: list[Event]) -> None:
        for event in events:
            state.events.append(asdict(event))
            for callback in callbacks:
                callback.on_event(state, event)

    def take_back(first_batch: int) -> None:
        """After NaN or inf in the batches since `first_batch`: name its maker, and let go back."""

        def again(counter: int) -> tuple[Any, Tensor]:
            batch = task.batch_at(counter)
            with autocast:
                return batch, task.fake(g, batch)

        def d_again(counter: int) -> Tensor:
            batch, fake = again(counter)
            return total_of_d(batch, fake.detach(), all_terms=True)[0]

        def g_again(counter: int) -> Tensor:
            return total_of_g(*again(counter), all_terms=True)

        def attempts() -> Iterator[tuple[str, Callable[[], Tensor]]]:
            for counter in range(first_batch, state.batches):
                yield "D learnt", functools.partial(d_again, counter)
                yield "G learnt", functools.partial(g_again, counter)

        culprit = "a batch that several processes shared"  # who made it, not all of them see
        if parallel.size() == 1:
            with torch.compiler.set_stance("force_eager"):  # what is compiled has no modules
                culprit = finite.first_culprit({"generator": g, "discriminator": d}, attempts())
        tell([Event(state.step, "not_finite", f"NaN or inf, first made by {culprit}")])
        tell([state.guard.not_finite(state, culprit)])
        run.prepare(optimizers)
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
    run.prepare(optimizers)
    first_batch = last_batch = state.batches  # of this round, and of the one before
    began, first_image = time.perf_counter(), state.images
    logged, stop = state.step, False
    while state.step < steps and not stop:
        progress = state.step / steps
        factor_g, factor_d = state.balance.rates()
        rate_g = lr_g * schedule_g(progress) * factor_g
        rate_d = lr_d * schedule_d(progress) * factor_d
        _set_rate(state.optimizer_g, rate_g)
        _set_rate(state.optimizer_d, rate_d)
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
            row = log_row(began, first_image, rate_g, rate_d)
            with numerics.unsearched():
                if evaluated:
                    look(row)
                for callback in callbacks:
                    callback.on_step(state, row)
                    if evaluated:
                        stop = bool(callback.on_eval(state, row)) or stop
            if evaluated:
                rollbacks = state.guard.rollbacks
                tell(state.guard.acts(state))
                if state.guard.rollbacks > rollbacks:
                    run.prepare(optimizers)
                # Who listens is process 0's affair.
                stop = parallel.share(stop or state.guard.stops)
            # Only here: between two rows the meter holds sums that a checkpoint lacks. Nor where it
            # stops, which a checkpoint does not tell: continued there, it would not stop again.
            if not (ended or stop) and _passed(logged, state.step, checkpoint_every):
                save(state)
            logged, began, first_image = state.step, time.perf_counter(), state.images
    for callback in callbacks:
        callback.on_end(state)


@dataclass
class Told:
    """What an update tells: scalars (K,) for the history, and D's logits (N,) where D learnt.

    Apart from the graph of the gradients, which would live as long as it.
    """

    names: tuple[str, ...]
    values: Tensor
    real_logits: Tensor | None = None
    fake_logits: Tensor | None = None


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

    def means(self) -> Row:
        """The means by name, over all processes; starts anew."""
        if not self.sums:
            return {}
        totals = parallel.mean(torch.cat(list(self.sums.values()))).tolist()  # one host sync
        means: Row = {}
        for name, total in zip((n for names in self.sums for n in names), totals, strict=True):
            means[name] = means.get(name, 0.0) + total / self.counts[name]
        self.sums, self.counts = {}, Counter()
        return means


def _passed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]: a round may hold several updates."""
    return now // every > before // every


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)  # a graph knows its memory
        else:
            group["lr"] = lr


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Norm of the gradients of the last update."""
    gradients = [parameter.grad for parameter in _parameters(optimizer)]
    present = [gradient for gradient in gradients if gradient is not None]
    return float(torch.nn.utils.get_total_norm(present))
