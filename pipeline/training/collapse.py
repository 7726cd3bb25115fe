"""When the monitor's signals say that a generator has collapsed: a rule over its evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A signal beyond its bound is a sign of collapse: classes or bins of the data that are missing, or
# samples that repeat each other. Samples of an untrained generator show the same signs, which is
# why a warm-up goes before. Chosen on the calibration half of benchmarks/collapse_monitor.py: after
# the warm-up its sound ones stay below a `label_kl` of 0.19 and, but for two, an `ndb_jsd` of 0.24.
# `selfnn_ratio` is the least sure (docs/collapse.md): points of modes that were learnt well lie on
# a curve, and one sound look there is at 0.09; of images that were learnt well it stays above 1.
HIGHEST = {"label_kl": 0.3, "ndb_jsd": 0.45}
LOWEST = {"selfnn_ratio": 0.1}


@dataclass
class CollapseAlarm:
    """Sounds where the same training shows signs of collapse `patience` evaluations in a row."""

    warm_up: float = 1 / 3  # share of the training in which nothing counts
    patience: int = 2
    in_a_row: int = 0

    def hears(self, signals: Mapping[str, float], progress: float) -> str | None:
        """The reason for an alarm, or None. `progress` in [0, 1] is how far the training is.

        `signals` are the monitor's figures; call it once an evaluation.
        """
        found = signs(signals) if progress > self.warm_up else []
        self.in_a_row = self.in_a_row + 1 if found else 0
        return ", ".join(found) if self.in_a_row >= self.patience else None

    def reset(self) -> None:
        """Forget the evaluations so far: the training is another one now."""
        self.in_a_row = 0


def signs(signals: Mapping[str, float]) -> list[str]:
    """The signals beyond their bounds, in words."""
    high = [
        f"{name} {signals[name]:.3g} (at most {bound:g})"
        for name, bound in HIGHEST.items()
        if signals.get(name, bound) > bound
    ]
    low = [
        f"{name} {signals[name]:.3g} (at least {bound:g})"
        for name, bound in LOWEST.items()
        if signals.get(name, bound) < bound
    ]
    return high + low
