"""How many updates D and G get in a round, and by what factors their rates differ from the params.

`fixed` leaves both alone, `adaptive` moves them while it trains, and a rollback changes them under
either: D's handicap shifts ratio and rates from D to G, or back where it is negative.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pipeline import parallel

# In steps of half an octave: D's rate moves by all of it, at most by a factor of 64, and G's the
# other way by two thirds of it, or by one third where D is weak.
MOST_HANDICAP = 12
MOST_D_STEPS, MOST_G_STEPS = 5, 4  # of a moved ratio; one's own larger numbers stand
FAR_APART = 2.0  # octaves between the speeds of D and G from which a rollback evens them
DECAY = 0.95  # of D's running values, per update of D
# Running values by name, in the state's memory: how often D ranks a real above a fake, and its mean
# logits.
ACCURACY, REAL, FAKE, HELD_OUT = "d_accuracy", "d_on_real", "d_on_fake", "d_on_held_out"


class Fixed:
    """The same ratio and rates from the first round to the last, but for what a rollback changes.

    Args:
        d_steps, g_steps: of a round, as long as D's handicap is 0.
        d_rate: D's given learning rate, as a multiple of G's.
    """

    every: int | None = None  # generator updates between two calls of `adapt`; None: none

    def __init__(self, *, d_steps: int, g_steps: int, d_rate: float = 1.0) -> None:
        self.d_steps, self.g_steps, self.d_rate = d_steps, g_steps, d_rate
        self.handicap = 0  # of D, in half octaves; negative: of G
        self.halvings = 0  # of both rates

    def ratio(self) -> tuple[int, int]:
        """D updates and G updates of the next round."""
        if self.handicap == 0:
            return self.d_steps, self.g_steps
        # A quarter of an octave for each half that the rates move: few ratios are to be had.
        ratio = self.d_steps / self.g_steps * 2 ** (-self.handicap / 4)
        if ratio >= 1:
            return min(round(ratio), max(MOST_D_STEPS, self.d_steps)), 1
        return 1, min(round(1 / ratio), max(MOST_G_STEPS, self.g_steps))

    def rates(self) -> tuple[float, float]:
        """Factors on the rates of G and D."""
        both, octaves = 2.0**-self.halvings, self.handicap / 2
        # A weak D needs its own rate above all: G, held back as much, would hardly learn.
        share = 2 / 3 if octaves > 0 else 1 / 3
        return both * 2 ** (share * octaves), both * 2**-octaves

    def lead(self) -> float:
        """Octaves by which D is faster than G: rate times updates of a round."""
        (d_steps, g_steps), (rate_g, rate_d) = self.ratio(), self.rates()
        return math.log2(self.d_rate * rate_d * d_steps / (rate_g * g_steps))

    def temper(self, *, diverged: bool) -> str:
        """Change ratio and rates after a rollback; says to what.

        D and G get about the same speed, all at once: a training has few rollbacks, and less time
        after each. D's accuracy would not tell who was at fault, since a G that is dead from too
        high a rate makes any D look perfect. Both rates halve where that changes nothing, and where
        the training `diverged` to NaN or inf.
        """
        lead, before = self.lead(), self.handicap
        if abs(lead) >= FAR_APART:
            self._shift(round(lead))  # half an octave of handicap is about one of the lead
        if diverged or self.handicap == before:
            self.halvings += 1
        return self.describe()

    def adapt(self, accuracy: float, gap: float) -> str | None:
        """Move by the signals; says to what, None where nothing moved."""
        return None

    def describe(self) -> str:
        d_steps, g_steps = self.ratio()
        rate_g, rate_d = self.rates()
        return f"{d_steps} D to {g_steps} G updates, rates x{rate_d:.3g} (D), x{rate_g:.3g} (G)"

    def columns(self) -> dict[str, float]:
        """What the history shows of it."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"handicap": self.handicap, "halvings": self.halvings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.handicap, self.halvings = state["handicap"], state["halvings"]

    def _shift(self, by: int) -> None:
        self.handicap = max(-MOST_HANDICAP, min(MOST_HANDICAP, self.handicap + by))


class Adaptive(Fixed):
    """Holds D in the range where G learns from it, by two signals.

    `accuracy`: the share of pairs of a real and a fake that D ranks rightly, which needs no
    boundary, so serves every loss. Above `STRONG` D gets a further handicap, below `WEAK` G. At a
    half, D cannot tell them apart, which is where a good training ends; below, G has outrun it.
    `gap`: by how much lower D's mean logit is on held-out reals than on those it learns from, as a
    share of what tells reals from fakes (Karras et al. 2020, arXiv:2006.06676, their r_v). Above
    `OVERFIT` D knows its reals by heart and is held back, if its accuracy is above `FAIR`: of a D
    that hardly tells them apart the gap is noise.
    """

    STRONG, FAIR, WEAK, OVERFIT = 0.95, 0.75, 0.45, 0.5
    FAR = (0.3, 0.98)  # outside, it moves by an octave at once
    every = 10

    def __init__(self, *, d_steps: int, g_steps: int, d_rate: float = 1.0) -> None:
        super().__init__(d_steps=d_steps, g_steps=g_steps, d_rate=d_rate)
        self.accuracy = self.gap = float("nan")

    def adapt(self, accuracy: float, gap: float) -> str | None:
        self.accuracy, self.gap = accuracy, gap
        before = self.handicap
        by = 1 if self.FAR[0] < accuracy < self.FAR[1] else 2
        if accuracy > self.STRONG or (gap > self.OVERFIT and accuracy > self.FAIR):
            self._shift(by)
        elif accuracy < self.WEAK:
            self._shift(-by)
        if self.handicap == before:
            return None
        return f"{self.describe()}: D's accuracy {accuracy:.2f}, gap on held-out reals {gap:.2f}"

    def columns(self) -> dict[str, float]:
        d_steps, g_steps = self.ratio()
        return {"d_steps": d_steps, "g_steps": g_steps, "d_handicap": self.handicap / 2}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "accuracy": self.accuracy, "gap": self.gap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.accuracy, self.gap = state["accuracy"], state["gap"]


@torch.no_grad()
def hear(memory: dict[str, Tensor], real: Tensor, fake: Tensor) -> None:
    """Take D's logits of one update, each (N,), into the running values: no host sync."""
    told = torch.stack([(real > fake).float().mean(), real.mean(), fake.mean()])
    for name, value in zip((ACCURACY, REAL, FAKE), parallel.mean(told), strict=True):
        _average(memory, name, value)


@torch.no_grad()
def hear_held_out(memory: dict[str, Tensor], logits: Tensor) -> None:
    """Take D's logits (N,) on reals that it does not learn from."""
    _average(memory, HELD_OUT, parallel.mean(logits.mean()), decay=0.5)


def heard(memory: dict[str, Tensor]) -> tuple[float, float]:
    """D's accuracy in [0, 1], and its gap on held-out reals: 0 where that is not known."""
    if ACCURACY not in memory:
        return 0.5, 0.0
    names = (ACCURACY, REAL, FAKE, HELD_OUT if HELD_OUT in memory else REAL)
    accuracy, real, fake, held_out = torch.stack([memory[name] for name in names]).tolist()
    # Where D tells reals from fakes by next to nothing, a share of that says nothing.
    gap = (real - held_out) / (real - fake) if real - fake > 1e-3 else 0.0
    return accuracy, gap


def _average(memory: dict[str, Tensor], name: str, value: Tensor, decay: float = DECAY) -> None:
    memory[name] = memory[name].lerp(value, 1 - decay) if name in memory else value


BALANCES = {"fixed": Fixed, "adaptive": Adaptive}
