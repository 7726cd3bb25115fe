from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import intervals, kernel


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_mmd_of_hand_made_points():
    # d = 1, kernel (xy + 1)^3: within a 1, within b (2*2 + 1)^3, across 1.
    a, b = np.zeros((2, 1), np.float32), np.full((2, 1), 2, np.float32)
    assert kernel.mmd2(a, b) == pytest.approx(1 + 125 - 2)


def test_float32_keeps_the_digits_of_the_definition(rng):
    a, b = rng.normal(0, 1, (150, 64)), rng.normal(0.1, 1, (130, 64))
    within_a, within_b, across = ((x @ y.T / 64 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    np.fill_diagonal(within_a, 0)
    np.fill_diagonal(within_b, 0)
    exact = within_a.sum() / (150 * 149) + within_b.sum() / (130 * 129) - 2 * across.mean()
    assert kernel.mmd2(a, b) == pytest.approx(exact, abs=1e-12)
    single = kernel.mmd2(a.astype(np.float32), b.astype(np.float32))
    assert single == pytest.approx(exact, abs=1e-7)


def test_float32_keeps_them_far_from_the_origin_too(rng):
    a, b = rng.normal(0.5, 1, (1000, 64)), rng.normal(0.55, 1, (1000, 64))
    single = kernel.mmd2(a.astype(np.float32), b.astype(np.float32))
    assert single == pytest.approx(kernel.mmd2(a, b), abs=2e-7)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_equals_torch_fidelity(rng, shift):
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    a = rng.normal(size=(300, 16)).astype(np.float32)
    b = rng.normal(shift, 1, (250, 16)).astype(np.float32)
    theirs = kid_features_to_metric(
        torch.from_numpy(a),
        torch.from_numpy(b),
        kid_subsets=20,
        kid_subset_size=100,
        rng_seed=7,
        verbose=False,
    )
    ours = kernel.kid(a, b, subsets=20, subset_size=100, seed=7)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4, abs=1e-6)


def test_a_small_set_cuts_the_subsets(rng):
    a, b = rng.normal(size=(60, 4)), rng.normal(2, 1, (50, 4))
    assert kernel.kid(a, b, subsets=5) == kernel.kid(a, b, subsets=5, subset_size=50)


def test_standard_error_is_the_spread_of_repeated_draws(rng):
    draws, errors = [], []
    for _ in range(200):
        a, b = rng.normal(size=(200, 4)), rng.normal(0.5, 1, (200, 4))
        draws.append(kernel.mmd2(a, b))
        errors.append(kernel.kid_se(a, b))
    assert np.mean(errors) == pytest.approx(np.std(draws), rel=0.25)
    ends = np.array([intervals.of_ten_blocks(*x) for x in zip(draws, errors, strict=True)])
    held = np.mean((ends[:, 0] <= np.mean(draws)) & (np.mean(draws) <= ends[:, 1]))
    assert 0.89 <= held <= 0.995


def test_standard_error_is_finite_for_the_smallest_sets(rng):
    assert np.isfinite(kernel.kid_se(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))))
