"""Learning-rate schedules: progress in [0, 1] -> factor on the rate."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    return 1.0


def linear(progress: float) -> float:
    """From 1 to 0."""
    return 1 - progress


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


SCHEDULES: dict[str, Schedule] = {"none": constant, "linear": linear, "cosine": cosine}
