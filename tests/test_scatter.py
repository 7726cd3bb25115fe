"""Scatter plots: what is drawn where."""

import numpy as np

from pipeline.scatter import scatter

REALS = np.array([[-1.0, -1.0], [1.0, 1.0]])


def test_reals_set_the_frame_and_are_faint() -> None:
    picture = scatter(np.empty((0, 2)), REALS, size=100)
    assert picture.shape == (100, 100, 3)
    assert picture.dtype == np.uint8
    rows, columns = np.nonzero((picture < 255).any(axis=2))
    assert {*rows // 50} == {0, 1}
    assert (rows + columns).min() > 90  # from the lower left to the upper right: y points upwards
    assert picture.min() > 150


def test_fakes_are_drawn_over_reals_and_left_out_beyond_the_frame() -> None:
    inside = scatter(np.array([[1.0, 1.0]]), REALS, size=100)
    beyond = scatter(np.array([[9.0, 9.0], [-9.0, 0.0]]), REALS, size=100)
    assert inside.min() < 150
    assert np.array_equal(beyond, scatter(np.empty((0, 2)), REALS, size=100))


def test_many_points_are_darker_than_one() -> None:
    one, many = (scatter(np.zeros((n, 2)), REALS, size=100) for n in (1, 20))
    assert many.min() < one.min()
