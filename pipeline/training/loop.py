"""The adversarial training loop: one for every recipe.

It knows networks, a loss, regularizers, a balance and a task; nothing of DVC, MLflow or Optuna.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import nn

from pipeline import parallel
from pipeline.losses import Loss
from pipeline.regularizers import Term
from pipeline.training import balance, compiling, culprits, devices, finite, graphs, numerics
from pipeline.training.finite import NotFinite
from pipeline.training.guard import Event
from pipeline.training.objective import Objective
from pipeline.training.optimizers import gradient_norm, set_rate
from pipeline.training.schedules import Schedule
from pipeline.training.state import State, weights_of
from pipeline.training.tasks import Task
from pipeline.training.updates import Updates

Row = dict[str, float]

# A slow training is saved at the first row of its history after so many seconds, however few
# updates that are: a kill costs no more than these and a row.
CHECKPOINT_S = 300.0


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
    asked: Callable[[], bool] = lambda: False,  # to end; of several processes one will do
) -> None:
    """Train `state` in place up to `steps` generator updates, or until a callback asks to stop.

    The result is a function of the arguments alone: stopping, saving, loading and going on at any
    step gives the same weights, bit for bit, on the same machine with as many threads and
    processes. Raises Diverged for a loss or a gradient that is not finite, before it touches a
    weight, unless the state's guard takes it back; and KeyboardInterrupt where it is `asked` to
    end, after a save at the next row of the history.
    """
    device = next(state.generator.parameters()).device
    g, d = state.generator, state.discriminator
    fast_g, fast_d = (
        compiling.compiled({"the generator": g, "the discriminator": d}, device)
        if compile
        else (g, d)
    )
    objective = Objective(
        state, task, loss, terms, fast_g=fast_g, fast_d=fast_d, device=device, precision=precision
    )
    optimizers = (state.optimizer_d, state.optimizer_g)
    run = graphs.runner(device, (g, d), optimizers) if cuda_graphs else graphs.Eager(device)
    check = finite.Check(device)
    updates = Updates(
        state,
        objective,
        run=run,
        check=check,
        weight_clip=weight_clip,
        clip_grad=clip_grad,
        ema_decay=ema_decay,
        ema_warmup=ema_warmup,
    )

    def tell(events: list[Event]) -> None:
        for event in events:
            state.events.append(asdict(event))
            for callback in callbacks:
                callback.on_event(state, event)

    def take_back(first_batch: int) -> None:
        """After NaN or inf in the batches since `first_batch`: name its maker, and let go back."""
        culprit = "a batch that several processes shared"  # who made it, not all of them see
        if parallel.size() == 1:
            culprit = culprits.in_batches(objective, range(first_batch, state.batches))
        tell([Event(state.step, "not_finite", f"NaN or inf, first made by {culprit}")])
        tell([state.guard.not_finite(state, culprit)])
        run.prepare(optimizers)
        # A deferred check has counted updates that were none, and the last step must be one.
        state.step = min(state.step, steps - 1)
        check.clear()
        updates.meter.means()

    g.train()
    d.train()
    state.guard.begin(state)
    run.prepare(optimizers)
    first_batch = last_batch = state.batches  # of this round, and of the one before
    began = saved = time.perf_counter()
    first_image, logged, stop = state.images, state.step, False
    while state.step < steps and not stop:
        progress = state.step / steps
        factor_g, factor_d = state.balance.rates()
        rate_g = lr_g * schedule_g(progress) * factor_g
        rate_d = lr_d * schedule_d(progress) * factor_d
        set_rate(state.optimizer_g, rate_g)
        set_rate(state.optimizer_d, rate_d)
        task.begin(state, progress)
        before, last_batch, first_batch = state.step, first_batch, state.batches
        try:
            updates.round(steps)
            ended = state.step >= steps
            evaluated = ended or _passed(logged, state.step, eval_every)
            due = evaluated or _passed(logged, state.step, log_every)
            check.settle(now=due)
        except NotFinite:
            take_back(last_batch)
            continue
        every = state.balance.every
        if every is not None and _passed(before, state.step, every):
            tell(_adapted(state, objective))
        if due:
            seconds, images = time.perf_counter() - began, state.images - first_image
            state.seconds += seconds
            row = _row(state, updates.meter.means(), seconds, images, (rate_g, rate_d), device)
            state.history.append(row)
            with numerics.unsearched():
                if evaluated:
                    _look(state, row, evaluate(state.ema), steps)
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
                stop = parallel.broadcast_object(stop or state.guard.stops)
            # Only here: between two rows the meter holds sums that a checkpoint lacks. Nor where it
            # stops, which a checkpoint does not tell: continued there, it would not stop again.
            if not (ended or stop):
                leaves = parallel.anywhere(asked())
                late = time.perf_counter() - saved >= CHECKPOINT_S
                if leaves or late or _passed(logged, state.step, checkpoint_every):
                    save(state)
                    saved = time.perf_counter()
                if leaves:
                    raise KeyboardInterrupt
            logged, began, first_image = state.step, time.perf_counter(), state.images
    for callback in callbacks:
        callback.on_end(state)


def _row(
    state: State,
    means: Row,
    seconds: float,
    images: int,
    rates: tuple[float, float],
    device: torch.device,
) -> Row:
    """A row of the history. `seconds` and `images`: since the row before."""
    return {
        "step": state.step,
        "images": state.images,
        "kimg": state.images / 1000,
        "seconds": state.seconds,
        **means,
        "grad_norm_g": gradient_norm(state.optimizer_g),
        "grad_norm_d": gradient_norm(state.optimizer_d),
        "lr_g": rates[0],
        "lr_d": rates[1],
        "images_per_second": images / seconds,
        "memory_mb": devices.peak_memory_mb(device),
        **state.balance.columns(),
    }


def _look(state: State, row: Row, figures: dict[str, float], steps: int) -> None:
    """Put the averaged generator's figures into the row, keep the best weights, hear an alarm."""
    row.update({f"eval_{name}": value for name, value in figures.items()})
    if figures["fd"] < state.best_score:
        state.best_step, state.best_score = state.step, figures["fd"]
        state.best_weights = weights_of(state.ema)
    row["eval_alarm"] = float(state.guard.hears(figures, state.step, steps))


def _adapted(state: State, objective: Objective) -> list[Event]:
    """Let the balance move by what was heard of D."""
    task = objective.task
    held_out = task.held_out(state.batches)
    if held_out is not None:
        with torch.no_grad(), objective.autocast:
            logits = task.judge(state.discriminator, task.real(held_out), held_out).logits
        balance.hear_held_out(state.memory, logits.float())
    moved = state.balance.adapt(*balance.heard(state.memory))
    return [] if moved is None else [Event(state.step, "balance", moved)]


def _passed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]: a round may hold several updates."""
    return now // every > before // every
