from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pipeline.metrics import neighbours


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _line(*points: float) -> np.ndarray:
    return np.array(points, np.float32)[:, None]


def test_hand_made_points():
    real, fake = _line(0, 1, 2, 10), _line(0.5, 1.5, 5.5, 30)
    # Reals' balls (k = 1): [-1, 1], [0, 2], [1, 3], [2, 18];
    # fakes' balls: [-0.5, 1.5], [0.5, 2.5], [1.5, 9.5], [5.5, 54.5].
    result = neighbours.precision_recall(real, fake, k=1)
    assert result == {
        "precision": 3 / 4,  # 0.5, 1.5 and 5.5 lie in a ball of reals
        "recall": 4 / 4,
        "density": (2 + 2 + 1 + 0) / 4,
        "coverage": 4 / 4,
    }


def test_fakes_far_away_have_neither_precision_nor_recall(rng):
    real = rng.normal(size=(100, 4))
    result = neighbours.precision_recall(real, real + 1000, k=5)
    assert result == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


@pytest.mark.parametrize(("n", "m", "d", "scale"), [(400, 400, 64, 1), (300, 500, 16, 0.7)])
def test_equals_prdc_and_torch_fidelity(rng, n, m, d, scale, capsys):
    import torch
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import prc_features_to_metric

    real = rng.normal(5, 1, (n, d)).astype(np.float32)
    fake = rng.normal(5.2, scale, (m, d)).astype(np.float32)
    ours = neighbours.precision_recall(real, fake, k=5)
    theirs = compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    assert ours == pytest.approx(theirs, abs=1e-6)
    third = prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=5, verbose=False
    )
    assert ours["precision"] == pytest.approx(third["precision"], abs=1e-6)
    assert ours["recall"] == pytest.approx(third["recall"], abs=1e-6)


def test_blocks_give_what_the_whole_gives(rng, monkeypatch):
    real, fake = rng.normal(size=(150, 8)), rng.normal(size=(130, 8))
    whole = neighbours.precision_recall(real, fake, k=3), neighbours.selfnn_ratio(fake, real)
    monkeypatch.setattr(neighbours, "BLOCK", 17)
    blocks = neighbours.precision_recall(real, fake, k=3), neighbours.selfnn_ratio(fake, real)
    assert blocks == (pytest.approx(whole[0]), pytest.approx(whole[1]))


def _exact_radii(features: np.ndarray, k: int) -> np.ndarray:
    x = features.astype(np.float64) - features.mean(axis=0)
    norms = (x**2).sum(axis=1)
    squares = norms[:, None] + norms - 2 * x @ x.T
    return np.sort(squares, axis=1)[:, k]  # column 0: the row itself


@pytest.mark.parametrize("order", ["random", "nearest_last", "nearest_first"])
def test_radii_are_exact_in_whatever_order_neighbours_come(rng, monkeypatch, order):
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    features = rng.normal(size=(150, 3))
    if order != "random":
        features = features[np.argsort((features**2).sum(axis=1))]
    if order == "nearest_last":
        features = features[::-1]
    assert neighbours.radii(features, k=4) == pytest.approx(_exact_radii(features, 4), rel=1e-5)


def test_distances_of_many_features_keep_five_digits(rng):
    # Rectified and on few dimensions, as Inception's 2,048 are.
    mix = rng.normal(size=(16, 2048)) / 4
    raw = rng.normal(size=(700, 16)) @ mix + 0.05 * rng.normal(size=(700, 2048))
    features = np.maximum(raw, 0).astype(np.float32)
    assert neighbours.radii(features, k=5) == pytest.approx(_exact_radii(features, 5), rel=5e-6)


def test_memory_does_not_grow_with_the_square_of_the_numbers(rng):
    real, fake = rng.normal(size=(2, 4000, 8)).astype(np.float32)
    tracemalloc.start()
    neighbours.precision_recall(real, fake)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(real) * len(fake)  # bytes: a fourth of one matrix of distances


def test_fakes_that_are_not_numbers_lie_in_no_ball_and_have_none(rng):
    real, fake = rng.normal(size=(2, 100, 4))
    fake[:50] = np.nan
    result = neighbours.precision_recall(real, fake, k=3)
    half = neighbours.precision_recall(real, fake[50:], k=3)
    assert result["precision"] == half["precision"] / 2
    assert result["recall"] == half["recall"]
    assert result["coverage"] == half["coverage"]


def test_far_from_the_origin_distances_do_not_cancel(rng):
    points = rng.normal(size=(200, 8))
    near = neighbours.precision_recall(points[:100], points[100:], k=3)
    far = neighbours.precision_recall(points[:100] + 1e4, points[100:] + 1e4, k=3)
    assert far == pytest.approx(near)


def test_selfnn_ratio_is_the_scale_of_the_fakes(rng):
    real = rng.normal(size=(300, 6))
    assert neighbours.selfnn_ratio(real, real) == pytest.approx(1)
    assert neighbours.selfnn_ratio(real * 0.25, real) == pytest.approx(0.25, rel=1e-4)


def test_selfnn_ratio_of_repeated_samples_is_zero(rng):
    real = rng.normal(size=(300, 6))
    assert neighbours.selfnn_ratio(real[np.arange(300) % 20], real) == pytest.approx(0, abs=2e-3)


def test_selfnn_ratio_compares_equal_numbers(rng):
    many, few = rng.normal(size=(2000, 6)), rng.normal(size=(200, 6))
    assert neighbours.selfnn_ratio(many, few) == neighbours.selfnn_ratio(many[:200], few)


def test_selfnn_ratio_is_the_same_with_what_is_known_of_the_reals(rng):
    real = rng.normal(size=(200, 6))
    known = neighbours.median_nearest(real)
    for n in (100, 200, 300):  # of fewer fakes than reals it is of no use
        fake = rng.normal(size=(n, 6))
        plain = neighbours.selfnn_ratio(fake, real)
        assert neighbours.selfnn_ratio(fake, real, of_reals=known) == plain


def test_dup_rate_counts_repeats_of_whole_images(rng):
    images = rng.integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)
    assert neighbours.dup_rate(images) == 0
    assert neighbours.dup_rate(np.concatenate([images, images[:5]])) == pytest.approx(5 / 15)
    assert neighbours.dup_rate(images[[0] * 8]) == pytest.approx(7 / 8)


def _clusters(n: int, rng: np.random.Generator, first: int = 0) -> np.ndarray:
    centres = 3 * np.random.default_rng(1).normal(size=(4, 6))
    return centres[rng.integers(first, 4, n)] + rng.normal(size=(n, 6))


def _many_dimensions(n: int, rng: np.random.Generator, first: int = 0) -> np.ndarray:
    """(n, 64): where balls hold ever more points than they should, density varies most."""
    return (0.95 if first else 1.0) * rng.normal(size=(n, 64))


@pytest.mark.parametrize("draw", [_clusters, _many_dimensions])
def test_intervals_cover_the_mean_figure_at_about_their_rate(draw, rng):
    draws = 400
    ends = []
    for seed in range(draws):
        real, fake = draw(200, rng), draw(200, rng, first=1)
        ends.append(neighbours.precision_recall_intervals(real, fake, seed=seed))
    for name in neighbours.FIGURES:
        truth = np.mean([e[name] for e in ends])
        held = [e[f"{name}_ci_low"] <= truth <= e[f"{name}_ci_high"] for e in ends]
        assert 0.92 <= np.mean(held) <= 0.995, name


def test_intervals_hold_the_figures_and_stay_within_their_bounds(rng):
    for real, fake in (
        (_clusters(60, rng), _clusters(90, rng)),
        (_clusters(60, rng), _clusters(60, rng) + 1000),
        (_clusters(60, rng), 1e-3 * _clusters(60, rng)),
    ):
        found = neighbours.precision_recall_intervals(real, fake)
        assert found | neighbours.precision_recall(real, fake) == found
        for name in neighbours.FIGURES:
            low, high = found[f"{name}_ci_low"], found[f"{name}_ci_high"]
            assert 0 <= low <= found[name] <= high
            assert high <= 1 or name == "density"


def test_halves_of_large_sets_are_smaller_and_say_the_same(rng, monkeypatch):
    real, fake = _clusters(1000, rng), _clusters(1000, rng)
    whole = neighbours.precision_recall_intervals(real, fake)
    monkeypatch.setattr(neighbours, "HALF", 150)
    parts = neighbours.precision_recall_intervals(real, fake)
    for name in neighbours.FIGURES:
        widths = [x[f"{name}_ci_high"] - x[f"{name}_ci_low"] for x in (whole, parts)]
        assert 0.4 < widths[1] / widths[0] < 2.5


def test_sets_too_small_for_halves_have_no_intervals(rng):
    few, many = _clusters(20, rng), _clusters(50, rng)
    assert neighbours.precision_recall_intervals(few, many) == neighbours.precision_recall(
        few, many
    )
    assert len(neighbours.precision_recall_intervals(many[:21], many)) == 12


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_selfnn_interval_covers_the_mean_ratio_at_about_its_rate(rng, scale):
    rows = []
    for seed in range(200):
        real, fake = _clusters(120, rng), scale * _clusters(150, rng)
        interval = neighbours.selfnn_interval(fake, real, seed=seed)
        rows.append((neighbours.selfnn_ratio(fake, real), *interval))
    ratio, low, high = np.array(rows).T
    assert 0.89 <= np.mean((low <= ratio.mean()) & (ratio.mean() <= high)) <= 0.995
    assert np.all((low <= ratio) & (ratio <= high))
