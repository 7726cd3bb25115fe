"""The adversarial training loop: one for every recipe.

It knows networks, a loss, regularizers, a balance and a task; nothing of DVC, MLflow or Optuna.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from pipeline import parallel
from pipeline.losses import Loss
from pipeline.regularizers import Term
from pipeline.training import balance, compiling, devices, finite, graphs, numerics
from pipeline.training.finite import NotFinite
from pipeline.training.guard import Event
from pipeline.training.objective import Objective
from pipeline.training.optimizers import gradient_norm, set_rate
from pipeline.training.schedules import Schedule
from pipeline.training.state import State, weights_of
from pipeline.training.tasks import Task
from pipeline.training.updates import Updates

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

    def log_row(began: float, first_image: int, rate_g: float, rate_d: float) -> Row:
        seconds = time.perf_counter() - began
        state.seconds += seconds
        row = {
            "step": state.step,
            "images": state.images,
            "kimg": state.images / 1000,
            "seconds": state.seconds,
            **updates.meter.means(),
            "grad_norm_g": gradient_norm(state.optimizer_g),
            "grad_norm_d": gradient_norm(state.optimizer_d),
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
            updates.learn(of_d=True, of_g=False)
        # The last fakes that D learns from are the first that G learns from: one pass through G
        # saved in each round, and the gradient is the same in expectation.
        updates.learn(of_d=True, of_g=True)
        for _ in range(min(g_steps - 1, steps - state.step)):
            updates.learn(of_d=False, of_g=True)

    def tell(events: list[Event]) -> None:
        for event in events:
            state.events.append(asdict(event))
            for callback in callbacks:
                callback.on_event(state, event)

    def take_back(first_batch: int) -> None:
        """After NaN or inf in the batches since `first_batch`: name its maker, and let go back."""

        def d_again(counter: int) -> Tensor:
            batch = task.batch_at(counter)
            fake = objective.fake(batch).detach()
            return objective.of_d(batch, fake, objective.regularizers)[0]

        def g_again(counter: int) -> Tensor:
            batch = task.batch_at(counter)
            return objective.of_g(batch, objective.fake(batch), objective.generator_terms)

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
        updates.meter.means()

    def adapt() -> None:
        """Let the balance move by what was heard of D."""
        held_out = task.held_out(state.batches)
        if held_out is not None:
            with torch.no_grad(), objective.autocast:
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
        set_rate(state.optimizer_g, rate_g)
        set_rate(state.optimizer_d, rate_d)
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


def _passed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]: a round may hold several updates."""
    return now // every > before // every
