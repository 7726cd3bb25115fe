from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import modes


def test_label_kl_of_a_known_histogram():
    labels = np.array([0, 0, 0, 1])
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert modes.label_kl(labels, np.array([0.5, 0.5])) == pytest.approx(expected)


def test_label_kl_of_equal_histograms_is_zero():
    assert modes.label_kl(np.array([0, 1, 1, 2]), np.array([0.25, 0.5, 0.25])) == pytest.approx(0)


def test_a_dropped_class_costs_minus_log_of_what_is_left():
    labels = np.repeat(np.arange(9), 100)
    assert modes.label_kl(labels, np.full(10, 0.1)) == pytest.approx(-np.log(0.9))
    assert modes.modes(labels) == 9


def test_label_kl_floor_is_the_mean_of_a_perfect_sampler():
    rng = np.random.default_rng(0)
    draws = [modes.label_kl(rng.integers(0, 10, 500), np.full(10, 0.1)) for _ in range(400)]
    assert np.mean(draws) == pytest.approx(modes.label_kl_floor(10, 500), rel=0.15)


def test_confidence_is_the_mean_of_the_largest_probability():
    logits = np.log([[0.9, 0.1], [0.3, 0.7]]) + 1000
    assert modes.confidence(logits) == pytest.approx(0.8)
    assert modes.confidence(np.zeros((4, 5))) == pytest.approx(0.2)


def test_within_variance_is_that_of_each_class_around_its_own_mean():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3))
    labels = np.repeat([0, 1], 20)
    features[20:] += 100
    variances = modes.within_variances(features, labels, 3)
    assert variances[0] == pytest.approx(np.trace(np.cov(features[:20], rowvar=False)))
    assert variances[1] == pytest.approx(np.trace(np.cov(features[20:], rowvar=False)))
    assert np.isnan(variances[2])


def test_within_var_ratio_is_the_worst_class_and_skips_the_unknown():
    ratio = modes.within_var_ratio(np.array([2.0, 1.0, np.nan]), np.array([4.0, 1.0, 1.0]))
    assert ratio == 0.5
    assert modes.within_var_ratio(np.array([np.nan]), np.array([1.0])) == 0


def test_jensen_shannon_is_zero_for_equal_and_log_2_for_disjoint_histograms():
    p, q = np.array([0.5, 0.5, 0]), np.array([0, 0, 1.0])
    assert modes.jensen_shannon(p, p) == 0
    assert modes.jensen_shannon(p, q) == pytest.approx(np.log(2))


def test_jensen_shannon_equals_scipys():
    from scipy.spatial.distance import jensenshannon

    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(20)), rng.dirichlet(np.ones(20))
    assert modes.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q) ** 2)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_label_kl_interval_covers_the_truth(strength):
    rng = np.random.default_rng(0)
    p = np.exp(strength * rng.normal(size=10))
    p /= p.sum()
    real = np.full(10, 0.1)
    truth = np.sum(p * np.log(p / real))
    ends = np.array(
        [
            modes.label_kl_interval(rng.choice(10, 500, p=p), real, resamples=300, seed=seed)
            for seed in range(200)
        ]
    )
    assert np.mean((ends[:, 0] <= truth + 1e-12) & (ends[:, 1] >= truth)) >= 0.91


def test_label_kl_interval_of_a_perfect_generator_begins_at_zero():
    labels = np.random.default_rng(0).integers(0, 10, 500)
    low, high = modes.label_kl_interval(labels, np.full(10, 0.1))
    assert low == 0
    assert 0 < high < 0.03


def test_jensen_shannon_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(30, 5.0), size=2)
    truth = modes.jensen_shannon(p, q)
    held = 0
    for seed in range(200):
        a, b = rng.multinomial(600, p) / 600, rng.multinomial(400, q) / 400
        low, high = modes.jensen_shannon_interval(a, b, 600, 400, resamples=300, seed=seed)
        held += low <= truth <= high
    assert held / 200 >= 0.91


@pytest.mark.parametrize("spread", [1.0, 0.8])
def test_within_var_interval_covers_the_mean_ratio_at_about_its_rate(spread):
    rng = np.random.default_rng(0)
    centres = 5 * rng.normal(size=(4, 6))

    def draw(n: int, spreads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 4, n)
        return centres[labels] + spreads[labels, None] * rng.normal(size=(n, 6)), labels

    rows = []
    for seed in range(200):
        fakes, reals = draw(400, np.array([1, 1, spread, 1])), draw(300, np.ones(4))
        ratio = modes.within_var_ratio(
            modes.within_variances(*fakes, 4), modes.within_variances(*reals, 4)
        )
        rows.append((ratio, *modes.within_var_interval(fakes, reals, 4, resamples=60, seed=seed)))
    ratio, low, high = np.array(rows).T
    assert np.mean((low <= ratio.mean()) & (ratio.mean() <= high)) >= 0.91


def test_resampled_variances_are_those_of_the_whole_on_average():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(300, 5)), np.arange(300) % 3
    labels[:4] = 3  # too few to say anything
    boot = modes._resampled_variances(features, labels, 5, 400, rng)
    whole = modes.within_variances(features, labels, 5)
    assert np.isnan(boot[:, 3:]).all()
    assert boot[:, :3].mean(axis=0) == pytest.approx(whole[:3], rel=0.02)


def test_a_collapsed_class_has_an_interval_at_zero():
    rng = np.random.default_rng(0)
    reals = rng.normal(size=(100, 5)), np.arange(100) % 2
    fakes = np.where(reals[1][:, None] == 1, 0.0, reals[0]), reals[1]
    assert modes.within_var_interval(fakes, reals, 2) == (0, 0)
