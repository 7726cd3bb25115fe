"""Intervals of shares, 95% unless said otherwise.

docs/metrics_intervals.md says how often each of the metrics' intervals holds.
"""

from __future__ import annotations

import numpy as np

Z = 1.96


def wilson(successes: float, n: float, *, z: float = Z) -> tuple[float, float]:
    """Low and high end of the share behind `successes` of `n` independent trials (Wilson 1927).

    `n` may be an effective number, not whole. The interval lies within 0..1 and is never empty.
    """
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Of none and of all one end is exact, which rounding would miss.
    low = 0.0 if successes <= 0 else max(float(centre - half), 0.0)
    high = 1.0 if successes >= n else min(float(centre + half), 1.0)
    return low, high


def of_ten_blocks(figure: float, standard_error: float) -> tuple[float, float]:
    """Low and high end around a figure whose standard error was seen in ten independent blocks.

    For the kernel distance with `kid_se`, and the Inception score with a third of its deviation.
    """
    half = 2.262 * standard_error  # Student's t with nine degrees of freedom
    return figure - half, figure + half


def reflected(figure: float, boot: np.ndarray) -> tuple[float, float]:
    """Low and high end from a bootstrap (B,) of a figure >= 0, turned over: a resample exceeds the
    figure by what the figure exceeds the truth by."""
    ends = 2 * figure - np.quantile(boot, (0.975, 0.025))
    low, high = ends.clip(min=0)
    return float(low), float(high)


def share_below_quantile(
    null: np.ndarray, sample: np.ndarray, rate: float, *, z: float = Z
) -> tuple[float, float, float]:
    """Share of `sample` (M,) at or below the `rate` quantile of what `null` (N,) is drawn from.

    Also its low and high end. The quantile is the m-th smallest of `null`, m = `null_rank`; both
    it and the share are uncertain, so each end takes a shifted order statistic and Wilson's bound
    there, at z / sqrt 2 each. Where both are drawn from one distribution the share is `rate`.
    """
    null, sample = np.sort(null), np.sort(sample)
    part = z / np.sqrt(2)
    middle = null_rank(len(null), rate)
    shift = part * np.sqrt(middle * (1 - rate))

    def below(rank: float) -> int:
        threshold = null[int(np.clip(rank, 1, len(null))) - 1]
        return int(np.searchsorted(sample, threshold, side="right"))

    low, _ = wilson(below(np.floor(middle - shift)), len(sample), z=part)
    _, high = wilson(below(np.ceil(middle + shift)), len(sample), z=part)
    return below(middle) / len(sample), low, high


def null_rank(n: int, rate: float) -> int:
    """Which of n sorted numbers a further one of the same distribution falls below with
    probability `rate`: m of m / (n + 1) <= rate, at least 1."""
    return max(int((n + 1) * rate * (1 + 1e-9)), 1)
