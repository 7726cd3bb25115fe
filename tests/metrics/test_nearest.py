from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import nearest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _by_hand(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    squares = np.stack([((b - x) ** 2).sum(axis=1) for x in a])
    return np.sqrt(squares.min(axis=1)), squares.argmin(axis=1)


def _smooth_images(n: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (n, 16, 16, 3) that a few axes describe but for noise, as photographs."""
    coarse = rng.normal(128, 50, (n, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return (coarse + rng.normal(0, 15, coarse.shape)).clip(0, 255).astype(np.uint8)


def test_hand_made_points():
    distances, indices = nearest.nearest(
        np.array([[0.0, 0], [9, 9]]), np.array([[3.0, 4], [9, 8], [-5, -12]])
    )
    assert distances.tolist() == [5, 1]
    assert indices.tolist() == [0, 1]


@pytest.mark.parametrize("block", [1 << 24, 1 << 10])
def test_images_have_their_exact_neighbours(rng, monkeypatch, block):
    monkeypatch.setattr(nearest, "BLOCK", block)
    monkeypatch.setattr(nearest, "PAIRS", 64)
    a, b = _smooth_images(60, rng), _smooth_images(500, rng)
    distances, indices = nearest.nearest(a, b)
    expected, expected_indices = _by_hand(a, b)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    assert np.array_equal(indices, expected_indices)


def test_noise_that_no_axis_describes_has_its_exact_neighbours_too(rng):
    a, b = (rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8) for n in (40, 700))
    distances, indices = nearest.nearest(a, b)
    expected, expected_indices = _by_hand(a, b)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    assert np.array_equal(indices, expected_indices)


@pytest.mark.parametrize(("d", "dtype"), [(8, np.float64), (300, np.float64), (300, np.float32)])
def test_features_far_from_the_origin_do_not_cancel(rng, d, dtype):
    offset = 1e6 if dtype is np.float64 else 1e3
    a, b = (rng.normal(offset, 1, (n, d)).astype(dtype) for n in (50, 400))
    distances, indices = nearest.nearest(a, b)
    expected, expected_indices = _by_hand(a, b)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    assert np.array_equal(indices, expected_indices)


def test_a_set_is_at_distance_zero_from_itself(rng):
    for rows in (_smooth_images(50, rng), rng.normal(size=(50, 5)), np.zeros((5, 400))):
        distances, _ = nearest.nearest(rows, rows)
        assert not distances.any()


def test_near_copies_are_told_from_the_rest_to_a_single_grey_level(rng):
    train = _smooth_images(300, rng)
    copies = train[:20].copy()
    copies[:, 3, 4, 1] ^= 1
    distances, indices = nearest.nearest(copies, train)
    assert (distances == 1).all()
    assert np.array_equal(indices, np.arange(20))


def test_one_row_of_base_is_everyones_neighbour(rng):
    distances, indices = nearest.nearest(rng.normal(size=(7, 300)), np.zeros((1, 300)))
    assert not indices.any()
    assert (distances > 0).all()


def test_bounds_are_below_the_distances(rng):
    a, b = _smooth_images(50, rng), _smooth_images(300, rng)
    axes = nearest.fit(b)
    points, base = nearest.place(a, axes), nearest.place(b, axes)
    bounds = nearest._as_query(points.coordinates) @ nearest._as_base(base.coordinates).T
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    squares = ((a[:, None] - b) ** 2).sum(axis=2)
    assert (bounds <= squares).all()
    assert np.median(bounds / squares) > 0.5
