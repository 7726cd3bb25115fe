from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import frechet


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_two_known_gaussians_have_the_closed_form_distance():
    # Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2.
    a = (np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    b = (np.array([3.0, 1.0]), np.diag([1.0, 1.0]))
    assert frechet.of_statistics(a, b) == pytest.approx(9 + 1 + 4)


def test_statistics_are_numpys_mean_and_unbiased_covariance(rng):
    features = rng.normal(3, 2, (frechet.BLOCK + 50, 4)).astype(np.float32)
    mean, covariance = frechet.statistics(features)
    assert mean.dtype == covariance.dtype == np.float64
    np.testing.assert_allclose(mean, features.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False))


def test_samples_of_known_gaussians_come_near_the_closed_form(rng):
    a, b = rng.normal(0, 1, (40000, 3)), rng.normal([2, 0, 0], [1, 2, 1], (40000, 3))
    assert frechet.distance(a, b) == pytest.approx(4 + 1, rel=0.03)


@pytest.mark.parametrize("d", [2, 16, 64])
def test_equals_torch_fidelity(rng, d):
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    mix = rng.normal(size=(d, d))
    a = (rng.normal(size=(400, d)) @ mix).astype(np.float32)
    b = (rng.gamma(2, size=(300, d)) @ mix).astype(np.float32)
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)), False
    )
    ours = frechet.distance(a, b)
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_nuclear_norm_path_equals_covariance_path(rng):
    a, b = rng.normal(size=(60, 8)), rng.normal(1, 2, size=(50, 8))
    covariances = frechet.of_statistics(frechet.statistics(a), frechet.statistics(b))
    assert frechet._of_few(a, b) == pytest.approx(covariances, rel=1e-9)


def test_fewer_samples_than_features_equal_the_singular_covariances(rng):
    a, b = rng.normal(size=(20, 30)), rng.normal(1, 2, size=(25, 30))
    singular = frechet.of_statistics(frechet.statistics(a), frechet.statistics(b))
    assert frechet.distance(a, b) == pytest.approx(singular, rel=1e-5)


def test_a_set_is_at_distance_zero_from_itself(rng):
    for shape in ((100, 10), (10, 100)):
        features = rng.normal(size=shape)
        assert frechet.distance(features, features) == pytest.approx(0, abs=1e-9)


def test_distance_is_symmetric_also_for_samples_collapsed_to_a_point(rng):
    a, b = rng.normal(size=(200, 5)), np.ones((200, 5))
    assert frechet.distance(a, b) == pytest.approx(frechet.distance(b, a), rel=1e-6)
    mean, covariance = frechet.statistics(a)
    expected = np.sum((mean - 1) ** 2) + np.trace(covariance)
    assert frechet.distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_resampled_statistics_are_those_of_the_repeated_rows(rng):
    features = rng.normal(size=(30, 4))
    counts = rng.multinomial(30, np.full(30, 1 / 30))
    weighted = frechet._weighted(features, counts)
    repeated = frechet.statistics(features.repeat(counts, axis=0))
    for ours, theirs in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_interval_covers_the_truth_at_about_its_rate(rng):
    shift, draws, hits = 0.5, 200, 0
    truth = 3 * shift**2 + 3 * (2 - 1) ** 2
    for draw in range(draws):
        a, b = rng.normal(size=(150, 3)), rng.normal(shift, 2, (150, 3))
        low, high = frechet.interval(a, b, resamples=60, seed=draw)
        hits += low <= truth <= high
    # 95% of 200 has a deviation of 3.1; the plain percentile bootstrap does far worse.
    assert 0.89 <= hits / draws <= 0.99


def test_interval_of_classes_in_fixed_numbers_covers_the_truth_at_about_its_rate(rng):
    """Sets whose classes do not vary: without strata the bootstrap sees bias that is not there."""
    centres, labels = 4 * rng.normal(size=(5, 4)), np.repeat(np.arange(5), 60)
    covariance = np.eye(4) + np.cov(centres.T, bias=True)
    truth = 4 * 0.3**2
    assert np.linalg.eigvalsh(covariance).min() > 0  # equal on both sides: only the means differ
    held = {True: 0, False: 0}
    for draw in range(200):
        a, b = (centres[labels] + rng.normal(shift, 1, (300, 4)) for shift in (0, 0.3))
        for stratified in held:
            strata = (labels, labels) if stratified else (None, None)
            low, high = frechet.interval(a, b, strata=strata, resamples=60, seed=draw)
            held[stratified] += low <= truth <= high
    assert 0.89 <= held[True] / 200 <= 0.99
    assert held[False] / 200 > 0.99 or held[False] / 200 < 0.89


def test_interval_is_a_function_of_its_seed(rng):
    a, b = rng.normal(size=(80, 3)), rng.normal(size=(80, 3))
    assert frechet.interval(a, b, resamples=20, seed=1) == frechet.interval(
        a, b, resamples=20, seed=1
    )
    assert frechet.interval(a, b, resamples=20, seed=1) != frechet.interval(
        a, b, resamples=20, seed=2
    )


def test_interval_of_few_samples_is_finite_and_ordered(rng):
    low, high = frechet.interval(
        rng.normal(size=(20, 30)), rng.normal(1, 1, (20, 30)), resamples=20, seed=0
    )
    assert np.isfinite([low, high]).all()
    assert low < high


def test_resampled_distance_of_few_is_that_of_the_repeated_rows(rng):
    a, b = rng.normal(size=(20, 30)), rng.normal(1, 2, size=(40, 30))
    counts_a, counts_b = rng.multinomial(20, np.full(20, 0.05)), np.full(40, 2)
    ours = frechet._of_few_weighted(a, counts_a, b, counts_b, a @ b.T)
    repeated = frechet._of_few(a.repeat(counts_a, axis=0), b.repeat(counts_b, axis=0))
    assert ours == pytest.approx(repeated, rel=1e-6)


def test_a_model_does_not_differ_from_itself(rng):
    a, real = rng.normal(size=(80, 3)), rng.normal(size=(90, 3))
    assert frechet.paired_difference(a, a, real, resamples=20) == frechet.Difference(0, 0, 0, 0)


def test_paired_difference_covers_the_truth_at_about_its_rate(rng):
    # Pairs share nine tenths of their variance, as two models' samples of one latent vector may.
    draws, hits, better = 200, 0, 0
    truth = (3 * 0.3**2 + 3 * 0.1**2) - 3 * 0.4**2
    for draw in range(draws):
        latent, real = rng.normal(size=(200, 3)), rng.normal(size=(150, 3))
        a = 0.9 * (latent + 0.2 * rng.normal(size=(200, 3))) / np.hypot(1, 0.2) + 0.3
        result = frechet.paired_difference(a, latent + 0.4, real, resamples=40, seed=draw)
        hits += result.low <= truth <= result.high
        better += result.delta < 0
    assert 0.89 <= hits / draws <= 0.99
    assert better / draws > 0.8


def test_equal_models_are_seldom_called_better(rng):
    # The gate's rule, one-sided at 5%: 200 draws have a deviation of 1.5%.
    draws = 200
    results = [
        frechet.paired_difference(*rng.normal(size=(3, 150, 4)), resamples=40) for _ in range(draws)
    ]
    assert np.mean([r.delta + 1.645 * r.sd < 0 for r in results]) <= 0.11


def test_pairs_and_shared_reals_make_a_difference_more_certain(rng):
    latent, real = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    a, b = latent + 0.5, 1.02 * latent + 0.45
    paired = frechet.paired_difference(a, b, real, resamples=400)
    shuffled = frechet.paired_difference(a, rng.permutation(b), real, resamples=400)
    shorter = frechet.paired_difference(a, b[:-1], real, resamples=400)
    alone = [frechet.interval(x, real, resamples=400) for x in (a, b)]
    apart = np.hypot(*((high - low) / (2 * 1.96) for low, high in alone))
    assert 2 * paired.sd < shuffled.sd < apart
    assert shuffled.sd == pytest.approx(shorter.sd, rel=0.3)
    assert paired.low < paired.delta < paired.high


@pytest.mark.parametrize("n", [(20, 20), (60, 20), (20, 60)])
def test_paired_difference_where_few_samples_meet_many_features(rng, n):
    near, far = rng.normal(size=(n[0], 30)), rng.normal(1, 1, size=(n[1], 30))
    result = frechet.paired_difference(near, far, rng.normal(size=(45, 30)), resamples=30)
    assert result.high < 0
    assert result.delta == pytest.approx(-30, rel=0.5)


def test_infinity_takes_off_what_finite_numbers_add(rng):
    shift, d = 0.1, 12
    estimates, plain = [], []
    for seed in range(20):
        fakes, real = rng.normal(shift, 1, (900, d)), rng.normal(size=(500, d))
        estimates.append(frechet.infinity(fakes, real, seed=seed))
        plain.append(frechet.distance(fakes, real))
    truth = d * shift**2
    assert np.mean(plain) > 2 * truth
    assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.std(estimates) / np.sqrt(20))


def test_infinity_as_published_leaves_in_what_the_reals_add(rng):
    fakes, real = rng.normal(size=(2000, 12)), rng.normal(size=(200, 12))
    published = frechet.infinity(fakes, real, extrapolate_real=False)
    against_the_truth = frechet.of_statistics((np.zeros(12), np.eye(12)), frechet.statistics(real))
    assert published == pytest.approx(against_the_truth, rel=0.2)
    assert frechet.infinity(fakes, real) < 0.6 * published


def test_infinity_fits_a_line_in_one_over_n(rng, monkeypatch):
    # Where the distance is 3 + 70 / N + 20 / M, the intercept is 3 whatever the subsets.
    monkeypatch.setattr(frechet, "distance", lambda a, b: 3 + 70 / len(a) + 20 / len(b))
    a, b = np.zeros((1000, 2)), np.zeros((2000, 2))
    assert frechet.infinity(a, b) == pytest.approx(3, abs=0.01)
    assert frechet.infinity(a, b, extrapolate_real=False) == pytest.approx(3.01, abs=0.01)
