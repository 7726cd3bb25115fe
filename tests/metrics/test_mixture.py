"""The published benchmarks' figures on samplers whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.datasets.points import MIXTURES
from pipeline.metrics import mixture


def ideal(name: str, n: int, seed: int = 0, keep: int | None = None):
    """Points of the true mixture, or of its first `keep` modes only, and what they are told."""
    source = MIXTURES[name]
    centres = source.centres[:keep]
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(len(centres), size=n)] + source.sigma * rng.normal(size=(n, 2))
    return mixture.nearest(points, source.centres, source.sigma)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_perfect_sampler_has_the_share_of_high_quality_of_the_closed_form(name: str) -> None:
    assert pytest.approx(0.98889, abs=1e-5) == mixture.IDEAL_HQ
    _, near = ideal(name, 40_000)
    assert near.mean() == pytest.approx(mixture.IDEAL_HQ, abs=4 * math.sqrt(0.011 / 40_000))


@pytest.mark.parametrize(("name", "floor"), [("ring", 0.0014), ("grid", 0.0049)])
def test_a_perfect_sampler_is_on_average_at_the_floor(name: str, floor: float) -> None:
    n_modes = len(MIXTURES[name].centres)
    values = []
    for seed in range(60):
        found, near = ideal(name, 2500, seed)
        values.append(mixture.reverse_kl(found[near], n_modes))
    counted = round(2500 * mixture.IDEAL_HQ)
    expected = mixture.reverse_kl_floor(n_modes, counted)
    assert expected == pytest.approx(floor, abs=5e-5)
    assert np.mean(values) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("keep", [1, 3, 7])
def test_removed_modes_are_missed_and_cost_what_they_should(keep: int) -> None:
    found, near = ideal("ring", 100_000, keep=keep)
    assert len(np.unique(found[near])) == keep
    assert mixture.reverse_kl(found[near], 8) == pytest.approx(math.log(8 / keep), abs=2e-3)


def test_no_sample_counts_as_one_mode() -> None:
    assert mixture.reverse_kl(np.array([], int), 25) == pytest.approx(math.log(25))


def test_high_quality_ends_at_three_deviations() -> None:
    centres = np.array([[0.0, 0.0], [10.0, 0.0]])
    points = np.array([[2.99, 0.0], [3.01, 0.0], [10.0, -2.9], [5.1, 0.0]])
    found, near = mixture.nearest(points, centres, 1.0)
    assert found.tolist() == [0, 0, 1, 1]
    assert near.tolist() == [True, False, True, False]


@pytest.mark.parametrize("weights", [[1] * 8, [1, 1, 1, 1, 2, 2, 3, 3]])
def test_interval_of_reverse_kl_covers_the_truth(weights: list[float]) -> None:
    p = np.array(weights) / np.sum(weights)
    truth = float(np.sum(p * np.log(8 * p)))
    held = 0
    for seed in range(200):
        labels = np.random.default_rng(seed).choice(8, 1000, p=p)
        low, high = mixture.reverse_kl_interval(labels, 8, seed=seed)
        held += low <= truth + 1e-12 and truth <= high
    assert held / 200 >= 0.91
    assert mixture.reverse_kl_interval(np.array([], int), 8) == (0, pytest.approx(math.log(8)))
