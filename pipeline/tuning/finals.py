"""The best trials and today's settings once more, with other seeds: who wins, and by how much.

The best of many trials is partly the luckiest. Its figure from new seeds is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.tuning import ledger, space
from pipeline.tuning.studies import REPEATS, SEED

# Distances and divergences: their spread grows with them, so they are compared as ratios.
RATIOS = ("fd", "label_kl", "ndb_jsd")
FEWEST = 2  # values of each side that an interval needs


@dataclass(frozen=True)
class Finalist:
    """A trial's settings, and what they came to with each seed: None where that diverged."""

    trial: int
    settings: dict[str, Any]
    values: list[float | None]
    collapsed: int  # of the seeds, how many broke a constraint

    @property
    def diverged(self) -> int:
        return sum(value is None for value in self.values)

    @property
    def known(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float:
        return float(np.mean(self.known)) if self.known else math.nan

    @property
    def sd(self) -> float:
        return float(np.std(self.known, ddof=1)) if len(self.known) > 1 else math.nan


@dataclass(frozen=True)
class Outcome:
    """What the finals came to. `ranked` has the best first, today's settings not among them.

    It is empty where there were no finals, as no other trial was sound; then `today` has no values.

    `gain` is how much better than `today` the winner is, with a 95% interval that holds for all
    finalists at once: of a distance the share by which it is smaller, else the difference. None
    where too few seeds ended with a figure.
    """

    metric: str
    ranked: list[Finalist]
    today: Finalist
    gain: tuple[float, float, float] | None

    @property
    def winner(self) -> Finalist:
        """The best finalist, or today's settings where none is better."""
        if not self.ranked:
            return self.today
        first = self.ranked[0]
        worse = self.gain is not None and self.gain[0] <= 0
        return self.today if worse and not self.rescued else first

    @property
    def rescued(self) -> bool:
        """Whether today's settings fail with some seed and the best finalist with none."""
        if not self.ranked:
            return False
        first = self.ranked[0]
        fails = self.today.diverged + self.today.collapsed
        return fails > 0 and first.diverged + first.collapsed == 0

    @property
    def verdict(self) -> str:
        """In one sentence."""
        if not self.ranked:
            return "no finals, and no gain shown: no other trial was sound"
        first, seeds = self.ranked[0], len(self.today.values)
        told = f"trial {first.trial}: {self.metric} {_mean_sd(first)} on {seeds} new seeds"
        against = f"today's settings {_mean_sd(self.today)}"
        fails = self.today.diverged + self.today.collapsed
        if fails:
            against += (
                f" ({self.today.diverged} of {seeds} diverged, {self.today.collapsed} collapsed)"
            )
        if self.gain is None:
            shown = "today's settings give no figure to compare with"
        else:
            value, low, high = self.gain
            form = "{:+.0%}" if self.metric in RATIOS else "{:+.3f}"
            shown = (
                f"gain {form.format(value)} (95% interval {form.format(low)} to "
                f"{form.format(high)})"
            )
            if low <= 0:
                shown = f"no gain shown: {shown}"
        return f"{told}; {against}; {shown}" + ("; rescued from collapse" if self.rescued else "")


def queue(search: optuna.Study, finals: optuna.Study, *, count: int, seeds: int, seed: int) -> int:
    """Queue the `count` best trials and the first, each with `seeds` new seeds, once.

    Returns the number of finalists: fewer where fewer trials are sound.
    """
    trials = search.get_trials(deepcopy=False)
    first = origin(trials)
    others = [t for t in ledger.best(trials, _direction(search)) if t.params != settings(first)]
    chosen = others[:count]
    known = {(t.user_attrs[REPEATS], t.user_attrs[SEED]) for t in finals.get_trials(deepcopy=False)}
    for trial in [first, *chosen] if chosen else []:
        for own in range(seed + 1, seed + 1 + seeds):
            if (trial.number, own) not in known:
                facts = {REPEATS: trial.number, SEED: own}
                finals.enqueue_trial(settings(trial), user_attrs=facts)
    return len(chosen)


def origin(trials: list[FrozenTrial]) -> FrozenTrial:
    """The trial of today's settings: number 0, or what ran it again where its worker died."""
    own = [t for t in ledger.counted(trials) if ledger.root(t) == 0]
    return own[0] if own else trials[0]


def settings(trial: FrozenTrial) -> dict[str, Any]:
    """The trial's values; one that was queued has them before it has begun."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def over(finals: optuna.Study) -> bool:
    """Whether every repetition has ended, and none is to be run again."""
    trials = finals.get_trials(deepcopy=False)
    return all(t.state.is_finished() for t in trials) and not ledger.lost(trials)


def outcome(search: optuna.Study, finals: optuna.Study, metric: str) -> Outcome:
    """Rank the finalists by their means and hold the best against today's settings."""
    trials = {t.number: t for t in search.get_trials(deepcopy=False)}
    runs: dict[int, list[FrozenTrial]] = {}
    for trial in ledger.counted(finals.get_trials(deepcopy=False)):
        runs.setdefault(trial.user_attrs[REPEATS], []).append(trial)
    finalists = {number: _finalist(trials[number], found) for number, found in runs.items()}
    first = origin(list(trials.values()))
    today = finalists.pop(first.number, Finalist(first.number, settings(first), [], 0))
    sign = 1 if _direction(search) == "minimize" else -1
    ranked = sorted(finalists.values(), key=lambda f: (f.diverged + f.collapsed, sign * f.mean))
    return Outcome(metric, ranked, today, _gain(ranked, today, metric, sign))


def _finalist(trial: FrozenTrial, found: list[FrozenTrial]) -> Finalist:
    found = sorted(found, key=lambda t: t.user_attrs[SEED])
    values = [t.value if t.state == TrialState.COMPLETE else None for t in found]
    broken = sum(any(v > 0 for v in t.constraints.values()) for t in found if t.value is not None)
    return Finalist(trial.number, settings(trial), values, broken)


def _gain(
    ranked: list[Finalist], today: Finalist, metric: str, sign: int
) -> tuple[float, float, float] | None:
    """Of the first finalist over today's settings, with Dunnett's interval for all at once."""
    from scipy.stats import dunnett

    arms = [f for f in ranked if len(f.known) >= FEWEST]
    if not arms or arms[0] is not ranked[0] or len(today.known) < FEWEST:
        return None
    ratio = metric in RATIOS and min(min(f.known) for f in [*arms, today]) > 0
    scale = np.log if ratio else np.asarray
    compared = dunnett(
        *(scale(f.known) for f in arms), control=scale(today.known), rng=np.random.default_rng(0)
    )
    interval = compared.confidence_interval(0.95)
    difference = np.mean(scale(arms[0].known)) - np.mean(scale(today.known))
    low, high = interval.low[0], interval.high[0]
    if ratio:
        gains = 1 - np.exp([difference, high, low])
    elif sign > 0:
        gains = -np.array([difference, high, low])
    else:
        gains = np.array([difference, low, high])
    return float(gains[0]), float(gains[1]), float(gains[2])


def _mean_sd(finalist: Finalist) -> str:
    return f"{finalist.mean:.3g} ± {finalist.sd:.2g}"


def _direction(study: optuna.Study) -> str:
    return study.direction.name.lower()


def show(outcome: Outcome) -> None:
    """Print the finalists, where there were any, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not outcome.ranked:
        console.print(outcome.verdict)
        return
    table = Table(title=f"{outcome.metric} on val, with new seeds", title_justify="left")
    for column in ("trial", "mean", "sd", "each seed", "collapsed", "settings"):
        table.add_column(column, justify="left" if column == "settings" else "right")
    for finalist in [*outcome.ranked, outcome.today]:
        table.add_row(
            str(finalist.trial) + (" (today)" if finalist is outcome.today else ""),
            f"{finalist.mean:.3g}",
            f"{finalist.sd:.2g}",
            " ".join("diverged" if x is None else f"{x:.3g}" for x in finalist.values),
            f"{finalist.collapsed} of {len(finalist.values)}",
            space.told(finalist.settings),
        )
    console.print(table)
    console.print(outcome.verdict)
