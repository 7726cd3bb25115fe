from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import memorization


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _images(n: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (n, 10, 10, 3), of more numbers than are compared without principal axes."""
    coarse = rng.normal(128, 40, (n, 5, 5, 3)).repeat(2, axis=1).repeat(2, axis=2)
    return (coarse + rng.normal(0, 10, coarse.shape)).clip(0, 255).astype(np.uint8)


def _copies(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (images + rng.normal(0, 3, images.shape)).clip(0, 255).astype(np.uint8)


def test_without_copies_every_figure_is_at_its_null(rng):
    found = memorization.audit(_images(800, rng), _images(1000, rng), _images(500, rng))
    assert found["nearcopy_null"] == pytest.approx(0.01, rel=0.01)
    assert found["nearcopy_rate"] < 0.035
    assert found["nn_share_ci_low"] <= 0.5 <= found["nn_share_ci_high"]
    assert abs(found["ct_z"]) < 4 * found["ct_z_null_sd"]
    assert found["mia_tpr1_ci_low"] <= 0.01 <= found["mia_tpr1_ci_high"]
    assert all(type(value) is float for value in found.values())


def test_planted_copies_raise_every_figure(rng):
    train, held_out = _images(600, rng), _images(500, rng)
    fakes = _images(800, rng)
    clean = memorization.audit(fakes, train, held_out)
    fakes[:80] = _copies(train[:80], rng)
    planted = memorization.audit(fakes, train, held_out)
    assert planted["nearcopy_rate"] == pytest.approx(clean["nearcopy_rate"] + 0.1, abs=0.01)
    assert planted["nearcopy_ci_low"] > 0.07
    assert planted["nn_share"] > clean["nn_share"] + 0.02
    assert planted["ct_z"] < clean["ct_z"]
    assert planted["mia_tpr1_ci_low"] > 0.05


def test_a_generator_that_only_repeats_is_caught_by_each_detector_alone(rng):
    train, held_out = _images(400, rng), _images(400, rng)
    found = memorization.audit(_copies(train, rng), train, held_out)
    assert found["nearcopy_rate"] == 1
    assert found["nn_share_ci_low"] > 0.9
    assert found["ct_z"] < -5
    assert found["mia_tpr1_ci_low"] > 0.9


def test_held_out_images_in_train_do_not_hide_exact_copies(rng):
    train, held_out = _images(300, rng), _images(200, rng)
    held_out[:20] = train[:20]
    found = memorization.audit(train[100:200], train, held_out)
    assert found["nearcopy_rate"] == 1


def test_the_control_sees_planted_copies_and_only_them(rng):
    passed = {"held_out_is_no_copy": True, "planted_copies": True}
    for seed in range(20):
        images = _images(900, rng)
        assert memorization.control(images[:600], images[600:], seed=seed) == passed
    features = rng.normal(size=(900, 12))
    assert memorization.control(features[:600], features[600:]) == passed


@pytest.mark.parametrize("n", [20, 30, 60])
def test_the_control_passes_for_few_held_out_images(rng, n):
    for seed in range(100):
        images = _images(200 + n, rng)
        found = memorization.control(images[:200], images[200:], seed=seed)
        assert found == {"held_out_is_no_copy": True, "planted_copies": True}, seed


def test_the_control_fails_where_half_of_the_held_out_images_are_training_images(rng):
    for n in (40, 400):
        images = _images(600 + n, rng)
        train, held_out = images[:600], images[600:]
        held_out[::2] = train[: n // 2]
        assert memorization.control(train, held_out)["planted_copies"] is False, n


def test_the_control_fails_where_the_held_out_images_are_training_images(rng):
    train = _images(300, rng)
    found = memorization.control(train, np.concatenate([train[:150], train[:150]]))
    assert found["planted_copies"] is False


def test_the_control_fails_a_blind_detector(rng, monkeypatch):
    monkeypatch.setattr(memorization, "nearcopy", lambda a, b: {"nearcopy_rate": 0.0})
    images = _images(500, rng)
    assert memorization.control(images[:300], images[300:])["planted_copies"] is False


def test_nearcopy_of_equal_sets_is_at_its_null_over_many_draws(rng):
    held_out = [rng.random(999) for _ in range(300)]
    found = [memorization.nearcopy(rng.random(400), x) for x in held_out]
    rates = [x["nearcopy_rate"] for x in found]
    assert np.mean(rates) == pytest.approx(found[0]["nearcopy_null"], abs=0.002)
    # Below a threshold t lies the share t of what is even in 0..1: the interval is one for that.
    shares = [np.sort(x)[9] for x in held_out]
    held = [
        x["nearcopy_ci_low"] <= t <= x["nearcopy_ci_high"]
        for x, t in zip(found, shares, strict=True)
    ]
    assert np.mean(held) >= 0.91


def test_nearcopy_counts_fakes_within_the_held_out_quantile():
    held_out = np.arange(1, 1000.0)  # the ten nearest of 999: up to 10
    found = memorization.nearcopy(np.array([0.5, 9, 10, 10.5, 500]), held_out)
    assert found["nearcopy_rate"] == 3 / 5
    assert found["nearcopy_null"] == 0.01
    assert found["nearcopy_ci_low"] < 0.6 < found["nearcopy_ci_high"]


def test_nearcopy_uses_the_finer_quantile_from_ten_thousand_held_out_images():
    fakes = np.array([5.0, 10.5])
    assert memorization.nearcopy(fakes, np.arange(1, 10_000.0))["nearcopy_rate"] == 1
    found = memorization.nearcopy(fakes, np.arange(1, 10_001.0))
    assert found["nearcopy_rate"] == 0.5
    assert found["nearcopy_null"] == pytest.approx(0.001, rel=1e-3)


def test_nn_share_counts_ties_as_half():
    index = np.arange(4)
    found = memorization.nn_share(np.array([1.0, 1, 3, 2]), index, np.array([2.0, 2, 3, 1]), index)
    assert found["nn_share"] == 2.5 / 4


def test_fakes_around_one_image_count_as_one():
    one, many = np.zeros(1000, int), np.arange(1000)
    near, far = np.ones(1000), np.full(1000, 2.0)
    around_one = memorization.nn_share(near, one, far, many)
    around_many = memorization.nn_share(near, many, far, many)
    assert around_one["nn_share"] == around_many["nn_share"] == 1
    assert around_one["nn_share_ci_low"] < 0.5
    assert around_many["nn_share_ci_low"] > 0.99


def test_mann_whitney_equals_scipys(rng):
    from scipy.stats import mannwhitneyu, norm

    for a, b in (
        (rng.normal(size=40), rng.normal(0.3, 1, 60)),
        (rng.integers(0, 5, 50), rng.integers(0, 6, 30)),
    ):
        p = mannwhitneyu(a, b, alternative="less", method="asymptotic", use_continuity=False).pvalue
        assert norm.cdf(memorization.mann_whitney_z(a, b)) == pytest.approx(p)
    assert memorization.mann_whitney_z(np.ones(5), np.ones(7)) == 0


def test_ct_is_the_mean_of_the_cells_weighted_by_held_out_images(rng):
    fakes, held = rng.normal(size=300), rng.normal(size=300)
    fake_cells, held_cells = np.arange(300) % 3, np.repeat([0, 1, 2, 3], [100, 100, 90, 10])
    z = [
        memorization.mann_whitney_z(fakes[fake_cells == c], held[held_cells == c]) for c in range(3)
    ]
    found = memorization.ct(fakes, held, fake_cells, held_cells)
    weights = np.array([100, 100, 90]) / 290  # the last cell holds too few
    assert found["ct_z"] == pytest.approx(weights @ z)
    assert found["ct_z_null_sd"] == pytest.approx(np.sqrt(np.sum(weights**2)))


def test_ct_without_a_filled_cell_is_one_test_of_all():
    found = memorization.ct(np.arange(10.0), np.arange(5, 15.0), np.zeros(10), np.ones(10))
    assert found["ct_z_null_sd"] == 1
    assert found["ct_z"] < 0


def test_mia_is_at_one_percent_for_distances_of_one_distribution(rng):
    rates = [memorization.mia(rng.random(500), rng.random(500))["mia_tpr1"] for _ in range(300)]
    assert np.mean(rates) == pytest.approx(0.01, abs=0.0015)


def test_intervals_cover_their_nulls_at_about_their_rate(rng):
    draws, held = 200, dict.fromkeys(("nn_share", "mia_tpr1", "ct_z"), 0)
    rates = []
    for draw in range(draws):
        fakes, train, held_out = (rng.normal(size=(n, 4)) for n in (250, 300, 200))
        found = memorization.audit(fakes, train, held_out, seed=draw)
        for name, null in (("nn_share", 0.5), ("mia_tpr1", 0.01)):
            held[name] += found[f"{name}_ci_low"] <= null <= found[f"{name}_ci_high"]
        held["ct_z"] += abs(found["ct_z"]) <= 1.96 * found["ct_z_null_sd"]
        rates.append(found["nearcopy_rate"] / found["nearcopy_null"])
    # 95% of 200 has a deviation of 1.5%; nn_share's interval is wider than it need be.
    assert all(n / draws >= 0.91 for n in held.values()), held
    assert held["ct_z"] / draws <= 0.99
    assert np.mean(rates) == pytest.approx(1, abs=0.2)


def test_memory_does_not_grow_with_the_product_of_the_numbers(rng):
    import tracemalloc

    fakes, train = rng.normal(size=(8000, 16)), rng.normal(size=(16_000, 16))
    tracemalloc.start()
    memorization.audit(fakes, train, fakes[:200])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # one matrix of float32 distances would be 512 MB
