from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import intervals


def test_wilson_equals_published_values():
    # Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29.
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert intervals.wilson(successes, n, z=1.959964) == pytest.approx((low, high), abs=5e-5)


def test_wilson_covers_a_small_share_at_about_its_rate():
    counts = np.random.default_rng(0).binomial(1000, 0.01, size=2000)
    ends = np.array([intervals.wilson(c, 1000) for c in counts])
    assert 0.93 <= np.mean((ends[:, 0] <= 0.01) & (ends[:, 1] >= 0.01)) <= 0.98


def test_wilson_stays_within_a_share():
    assert intervals.wilson(0, 5)[0] == 0
    assert intervals.wilson(5, 5)[1] == 1
    assert intervals.wilson(0, 2000)[0] == 0
    assert intervals.wilson(3000, 3000)[1] == 1


@pytest.mark.parametrize(
    ("n", "rate", "rank"), [(999, 0.01, 10), (1000, 0.01, 10), (10_000, 0.001, 10), (50, 0.01, 1)]
)
def test_a_further_draw_is_below_the_rank_at_the_rate(n, rate, rank):
    assert intervals.null_rank(n, rate) == rank


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_share_below_a_quantile_covers_the_truth(shift):
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    truth = norm.cdf(norm.ppf(0.01) + shift)
    hits = 0
    for _ in range(400):
        null, sample = rng.normal(size=1000), rng.normal(size=2000) - shift
        share, low, high = intervals.share_below_quantile(null, sample, 0.01)
        assert low <= share <= high
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_ten_blocks_make_an_interval_of_students_t():
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(2000, 10))
    errors = blocks.std(axis=1, ddof=1) / np.sqrt(10)
    low, high = intervals.of_ten_blocks(blocks.mean(axis=1), errors)
    assert 0.935 <= np.mean((low <= 0) & (high >= 0)) <= 0.965


def test_a_turned_over_bootstrap_takes_off_the_bias():
    low, high = intervals.reflected(1.0, np.linspace(1.2, 1.6, 1001))
    assert (low, high) == pytest.approx((0.41, 0.79))
    assert intervals.reflected(0.1, np.array([0.2, 0.4]))[0] == 0
