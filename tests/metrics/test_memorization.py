from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import intervals, memorization, mind, nearest

SIDE = 18  # 324 numbers an image: more than are compared without principal axes


def images(n: int, seed: int) -> np.ndarray:
    """Smooth random pictures, uint8 (n, SIDE, SIDE, 1), of some ten degrees of freedom."""
    rng = np.random.default_rng(seed)
    x = np.arange(SIDE) / SIDE
    waves = np.stack([np.cos(np.pi * k * x) for k in range(4)])
    parts = np.einsum("nij,ih,jw->nhw", rng.normal(size=(n, 4, 4)), waves, waves)
    return (128 + 25 * parts).clip(0, 255).astype(np.uint8)[..., None]


@pytest.fixture(scope="module")
def sets():
    return images(600, 0), images(600, 1), images(500, 2)  # train, held-out, fakes


@pytest.mark.parametrize("shape", [(300, 4), (300, SIDE, SIDE, 1)])
def test_nearest_is_what_all_pairs_give(shape):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, shape, dtype=np.uint8)
    b = rng.integers(0, 256, (200, *shape[1:]), dtype=np.uint8)
    flat_a, flat_b = (x.reshape(len(x), -1).astype(float) for x in (a, b))
    all_pairs = np.linalg.norm(flat_a[:, None] - flat_b, axis=2)
    distances, indices = nearest.nearest(a, b)
    np.testing.assert_allclose(distances, all_pairs.min(axis=1), rtol=1e-5)
    np.testing.assert_allclose(all_pairs[np.arange(len(a)), indices], distances, rtol=1e-5)


def test_copies_are_found_by_every_detector(sets):
    train, held_out, fakes = sets
    planted = fakes.copy()
    planted[:200] = train[:200]
    clean, found = (memorization.audit(x, train, held_out) for x in (fakes, planted))
    assert found["nearcopy_rate"] >= 0.4
    assert clean["nearcopy_ci_low"] <= clean["nearcopy_null"] < found["nearcopy_ci_low"]
    assert clean["nn_share_ci_low"] < 0.5 < clean["nn_share_ci_high"]
    assert found["nn_share"] > clean["nn_share"] + 0.05
    assert abs(clean["ct_z"]) < 3 < clean["ct_z"] - found["ct_z"]
    assert clean["mia_tpr1_ci_low"] <= 0.01 <= clean["mia_tpr1_ci_high"]
    assert found["mia_tpr1"] >= 200 / 600


def test_the_control_passes_and_a_blind_detector_fails_it(sets, monkeypatch):
    train, held_out, _ = sets
    assert memorization.control(train, held_out) == {
        "held_out_is_no_copy": True,
        "planted_copies": True,
    }
    monkeypatch.setattr(memorization, "nearcopy", lambda a, b: {"nearcopy_rate": 0.0})
    assert not memorization.control(train, held_out)["planted_copies"]


def test_held_out_images_that_are_training_images_are_noticed(sets):
    train, held_out, _ = sets
    leaked = held_out.copy()
    leaked[::2] = train[:300]
    # Half of the "fakes" are copies, and half of those they are held to: the threshold is 0.
    audit = memorization.audit(leaked[:300], train, leaked[300:])
    assert audit["nearcopy_rate"] == pytest.approx(0.5, abs=0.01)


def test_nearcopy_of_equal_sets_is_at_its_null_over_many_draws():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        figures = memorization.nearcopy(rng.random(400), rng.random(999))
        rates.append(figures["nearcopy_rate"])
    assert np.mean(rates) == pytest.approx(figures["nearcopy_null"], abs=0.002)


def test_mann_whitney_z_is_scipys():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 80), rng.integers(1, 10, 60)
    z = memorization.mann_whitney_z(a, b)
    p = mannwhitneyu(a, b, method="asymptotic", use_continuity=False).pvalue
    from scipy.stats import norm

    assert z < 0
    assert 2 * norm.cdf(z) == pytest.approx(p, rel=1e-6)


def test_mia_intervals_cover_one_percent_where_nothing_is_remembered():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        figures = memorization.mia(rng.random(2000), rng.random(1000))
        covered += figures["mia_tpr1_ci_low"] <= 0.01 <= figures["mia_tpr1_ci_high"]
    assert covered / 300 > 0.93


def test_wilson_covers_at_about_its_rate():
    rng = np.random.default_rng(0)
    for share in (0.01, 0.3):
        drawn = rng.binomial(500, share, size=1000)
        ends = [intervals.wilson(k, 500) for k in drawn]
        assert np.mean([low <= share <= high for low, high in ends]) == pytest.approx(
            0.95, abs=0.03
        )


def test_mind_of_a_shift_is_three_times_its_square():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3000, 8))
    shift = np.full(8, 0.5)
    assert mind.mind(a, a + shift) == pytest.approx(3 * np.sum(shift**2), rel=0.1)
    assert mind.mind(a, a) == 0
