from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import mind


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_shift_costs_three_times_its_square(rng):
    a = rng.normal(size=(500, 6))
    shift = np.array([1.0, 0, -2, 0, 0, 0.5])
    assert mind.mind(a, a + shift, projections=20_000) == pytest.approx(3 * 5.25, rel=0.03)


def test_scaling_costs_what_the_closed_form_says(rng):
    # Along any direction N(0, 1) against N(0, 4): W2² is (2 - 1)².
    a, b = rng.normal(size=(40_000, 5)), rng.normal(0, 2, size=(40_000, 5))
    assert mind.mind(a, b, projections=100) == pytest.approx(3 * 5, rel=0.03)


def test_in_one_dimension_it_equals_the_sorted_differences(rng):
    a, b = rng.normal(size=(300, 1)), rng.gamma(2, size=(300, 1))
    expected = 3 * np.mean((np.sort(a[:, 0]) - np.sort(b[:, 0])) ** 2)
    assert mind.mind(a, b, projections=3) == pytest.approx(expected, rel=1e-4)


def test_sees_what_mean_and_covariance_do_not(rng):
    from pipeline.metrics import frechet

    a = rng.normal(size=(4000, 3))
    b = np.sign(rng.normal(size=(4000, 3)))
    assert frechet.distance(a, b) < 0.02
    assert mind.mind(a, b) > 50 * mind.mind(a, rng.normal(size=(4000, 3)))


def test_a_set_is_at_distance_zero_from_itself_also_far_from_the_origin(rng):
    a = rng.normal(1e4, 1, size=(100, 8))
    assert mind.mind(a, a) == 0
    assert mind.mind(a, a + 1) == pytest.approx(mind.mind(a - 1e4, a - 1e4 + 1), rel=1e-4)


def test_the_larger_set_is_cut_to_the_smaller(rng):
    few, many = rng.normal(size=(200, 4)), rng.normal(size=(3000, 4))
    equal = mind.mind(few, rng.normal(size=(200, 4)))
    assert mind.mind(few, many) == pytest.approx(equal, rel=0.7)
    assert mind.mind(few, many) > 3 * mind.mind(many, rng.normal(size=(3000, 4)))


def test_is_a_function_of_its_seed(rng):
    a, b = rng.normal(size=(50, 4)), rng.normal(size=(80, 4))
    assert mind.mind(a, b, seed=1) == mind.mind(a, b, seed=1) != mind.mind(a, b, seed=2)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_interval_covers_the_mean_figure_at_about_its_rate(rng, shift):
    figures, ends = [], []
    for seed in range(200):
        a, b = rng.normal(shift, 1, size=(60, 4)), rng.normal(size=(80, 4))
        figures.append(mind.mind(a, b, projections=100))
        ends.append(mind.interval(a, b, projections=20, seed=seed))
    low, high = np.array(ends).T
    # Where there is no difference a resample's deviation is some times too large.
    assert np.mean((low <= np.mean(figures)) & (np.mean(figures) <= high)) >= 0.91
    assert np.all((low >= 0) & (low < high))
