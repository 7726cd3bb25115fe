"""One trial: a short training of settings that the sampler chose, watched and judged on `val`."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from optuna import Trial, TrialPruned
from torch import nn

from pipeline import errors, paths
from pipeline.config import Params
from pipeline.datasets import prepared
from pipeline.tracking.trials import TRIAL, TrialRun
from pipeline.training import callbacks, devices, numerics, recipe
from pipeline.training.collapse import CollapseAlarm
from pipeline.training.finite import Diverged
from pipeline.training.loop import Callback, Row
from pipeline.training.monitor import Monitor
from pipeline.training.state import State
from pipeline.tuning import ledger, space, work
from pipeline.tuning.studies import REPEATS, SEED, Definition

SECONDS = "seconds"  # user attribute: where a trial's time went
LOOK = "eval_"  # what the loop puts before the monitor's figures
# Follow from a trial's steps: beside what was searched they would be noise in a comparison.
LOOKS = ("eval_every", "log_every", "checkpoint_every")


class Withdrawn(Exception):
    """The trial has nothing to do; it counts for nothing."""


class Failed(Exception):
    """The training ended without a figure."""


@dataclass
class Bench:
    """What the trials of one process share: data, reference features, device, known costs."""

    definition: Definition
    params: Params
    data: prepared.Prepared
    device: torch.device
    monitors: dict[bool, Monitor] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)

    def monitor(self, conditional: bool) -> Monitor:
        if conditional not in self.monitors:
            self.monitors[conditional] = Monitor(
                self.data,
                n=self.params.train.eval_samples,
                seed=self.params.evaluate.seed,
                conditional=conditional,
                device=self.device,
            )
        return self.monitors[conditional]

    def cost(self, params: Params) -> float:
        """Operations per update of G: counted once for all settings that cost the same."""
        settings = params.model_dump(mode="json", include={"model", "loss", "train"})
        for name in work.COSTLESS:
            del settings["train"][name]
        key = json.dumps(settings)
        if key not in self.costs:
            shape, n_classes = self.data.shape, self.data.n_classes
            self.costs[key] = work.per_step(params, shape=shape, n_classes=n_classes)
        return self.costs[key]


def open_bench(definition: Definition) -> Bench:
    """Read what is prepared in the working directory."""
    params = definition.checked
    device = devices.pick_device(params.train.device)
    numerics.prepare(device, deterministic=params.train.deterministic)
    return Bench(definition, params, prepared.load(), device)


def settings(trial: Trial, bench: Bench) -> Params:
    """All params of the trial, with as many steps as a full trial's work buys.

    Raises Withdrawn where the sampled values cannot go together.
    """
    tune = bench.params.tune
    values = {
        key: trial._suggest(key, distribution)
        for key, distribution in space.distributions(tune.space).items()
    }
    base = {**bench.definition.params, "seed": trial.user_attrs.get(SEED, bench.params.seed)}
    params = space.possible(base, values)
    if isinstance(params, str):
        raise Withdrawn(params)
    steps = work.equal_steps(tune.steps, work=bench.cost(bench.params), other=bench.cost(params))
    if steps < tune.reports:
        raise Withdrawn(
            f"its work buys {steps} steps, fewer than the {tune.reports} of tune.reports"
        )
    every = math.ceil(steps / tune.reports)
    lengths = {
        "steps": steps,
        "eval_every": every,
        "log_every": math.ceil(every / 5),
        "checkpoint_every": steps,
        "on_collapse": "log",  # the alarm and the pruner end a trial here
    }
    return params.model_copy(update={"train": params.train.model_copy(update=lengths)})


def run(
    trial: Trial, bench: Bench, *, pruned: bool, advance: Callable[[], None] = lambda: None
) -> float:
    """Train the trial's settings for its work, and return its figure on `val`.

    `pruned`: the pruner and the collapse alarm may end it early. `advance` is called after every
    look at the samples. Raises Withdrawn, TrialPruned, and Failed for a training that diverged or
    ran out of memory; the trial's user attributes say why.
    """
    began = time.perf_counter()
    params = settings(trial, bench)
    data, device = bench.data, bench.device
    n_classes = data.n_classes if params.model.conditional else 0
    split, held_out = data.split("train"), data.split("val")
    state = recipe.make_state(params, shape=data.shape, n_classes=n_classes, device=device)
    live = _open_run(trial, bench, params)
    grids = callbacks.grids_of(
        split,
        live.folder,
        latent_dim=params.model.latent_dim,
        n_classes=n_classes,
        seed=params.seed,
        on_file=live.image,
    )
    monitor = Timed(bench.monitor(params.model.conditional))
    watch = Watch(trial, bench.params, params.train.steps, pruned=pruned, advance=advance)

    def spent() -> dict[str, float]:
        total = time.perf_counter() - began
        return {"total": total, "training": state.seconds, "looks": monitor.seconds}

    with _accounted(trial, live, watch, grids, state, params.train.steps, spent):
        recipe.run(
            params,
            state,
            recipe.make_task(
                params, split.images, split.labels, device, (held_out.images, held_out.labels)
            ),
            precision=numerics.pick_precision(params.train.precision, device),
            evaluate=monitor,
            save=lambda state: None,
            callbacks=[callbacks.StopOnDivergence(), Curves(live), watch],
        )
    return watch.figures[bench.params.tune.metric]


@contextlib.contextmanager
def _accounted(
    trial: Trial,
    live: TrialRun,
    watch: Watch,
    grids: callbacks.Grids,
    state: State,
    steps: int,
    spent: Callable[[], dict[str, float]],
) -> Iterator[None]:
    """Write down how a trial ended and what it took, in the study and in MLflow."""
    ended, reason = "INTERRUPTED", ""
    try:
        yield
        ended = "COMPLETE"
    except TrialPruned as pruned:
        ended, reason = "PRUNED", str(pruned)
        raise
    except Diverged as error:
        ended, reason = "FAIL", str(error)
        raise Failed(reason) from None
    except (RuntimeError, MemoryError) as error:
        if not errors.out_of_memory(error):
            raise
        ended, reason = "FAIL", "out of memory"
        raise Failed(reason) from None
    finally:
        seconds = {name: round(value, 3) for name, value in spent().items()}
        facts: dict[str, Any] = {"steps": state.step, SECONDS: seconds}
        if ended != "INTERRUPTED":
            facts[ledger.SHARE] = round(min(1.0, state.step / steps), 4)
        if reason:
            facts[ledger.REASON] = reason
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        for name, value in watch.constraints.items():
            trial.set_constraint(name, value)
        if ended != "FAIL":
            grids.write(state)
        told = {f"constraint_{name}": f"{value:.4g}" for name, value in watch.constraints.items()}
        figures = {} if ended == "FAIL" else dict(watch.figures)  # it came to nothing
        if ended == "COMPLETE":
            figures["value"] = figures[watch.metric]
        live.close(ended, figures, {**facts, **told})


class Watch(Callback):
    """Reports each look to the study, and ends a trial that its pruner or the alarm gives up."""

    def __init__(
        self, trial: Trial, params: Params, steps: int, *, pruned: bool, advance: Callable[[], None]
    ) -> None:
        self.trial, self.steps, self.pruned, self.advance = trial, steps, pruned, advance
        self.metric, self.bounds = params.tune.metric, params.tune.constraints
        self.figures: dict[str, float] = {}
        self.alarm = CollapseAlarm()
        self.looks = 0

    @property
    def constraints(self) -> dict[str, float]:
        """How far the last figures lie beyond their bounds: above 0 is a breach."""
        if not self.figures:
            return {}
        return {
            name: self.figures[name] - bound.max
            if bound.max is not None
            else float(bound.min or 0) - self.figures[name]
            for name, bound in self.bounds.items()
        }

    def on_eval(self, state: State, row: Row) -> None:
        self.looks += 1
        self.figures = {
            name.removeprefix(LOOK): value for name, value in row.items() if name.startswith(LOOK)
        }
        self.trial.report(self.figures[self.metric], self.looks)
        self.advance()
        if not self.pruned or state.step >= self.steps:
            return
        collapse = self.alarm.hears(self.figures, state.step / self.steps)
        if collapse is not None:
            raise TrialPruned(f"collapsed: {collapse}")
        if self.trial.should_prune():
            shown = f"{self.metric} {self.figures[self.metric]:.3g}"
            raise TrialPruned(f"behind others: {shown} at look {self.looks}")


class Curves(Callback):
    """Hands the history to the trial's run as it grows."""

    def __init__(self, live: TrialRun) -> None:
        self.live = live

    def on_step(self, state: State, row: Row) -> None:
        self.live.log([row])


class Timed:
    """A monitor that knows how long it took."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.seconds = monitor, 0.0

    def __call__(self, generator: nn.Module) -> dict[str, float]:
        began = time.perf_counter()
        figures = self.monitor(generator)
        self.seconds += time.perf_counter() - began
        return figures


def _open_run(trial: Trial, bench: Bench, params: Params) -> TrialRun:
    name = f"trial {trial.number}"
    tags = {TRIAL: str(trial.number)}
    if REPEATS in trial.user_attrs:
        name = f"finals: trial {trial.user_attrs[REPEATS]}, seed {params.seed}"
        tags = {TRIAL: f"finals {trial.number}", REPEATS: str(trial.user_attrs[REPEATS])}
    study = bench.definition.name
    return TrialRun(
        params.tracking.experiment,
        study,
        name,
        folder=paths.tuning() / study / name.replace(" ", "_").replace(":", "").replace(",", ""),
        params=params.model_dump(
            mode="json", include={"seed", "model", "loss", "train"}, exclude={"train": set(LOOKS)}
        ),
        tags=tags,
        upload_every=params.tracking.upload_every,
    )
