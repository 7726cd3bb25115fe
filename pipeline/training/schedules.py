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


def late(progress: float) -> float:
    """1 for the first half, then linearly to 0 (as SAGAN's and CycleGAN's trainings)."""
    return min(1.0, 2 * (1 - progress))


def warmed(schedule: Schedule, share: float) -> Schedule:
    """`schedule`, times a rise from zero over the first `share` of the training."""
    return schedule if not share else lambda at: schedule(at) * min(1.0, at / share)


SCHEDULES: dict[str, Schedule] = {
    "none": constant,
    "linear": linear,
    "cosine": cosine,
    "late": late,
}
