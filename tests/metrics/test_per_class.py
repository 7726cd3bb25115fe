from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import per_class

D = 4


def normal(n: int, label: int, rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    return rng.standard_normal((n, D)) + 10 * label + shift


def labelled(parts: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.concatenate([np.full(len(x), label) for label, x in parts.items()])
    return np.concatenate(list(parts.values())), labels


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_shifted_class_is_the_worst_by_the_square_of_its_shift(rng):
    n, shift = 20_000, 3.0
    reals, train = (labelled({k: normal(n, k, rng) for k in range(3)}) for _ in range(2))
    fakes = labelled({k: normal(n, k, rng, shift if k == 1 else 0) for k in range(3)})
    rows = per_class.table(fakes, reals, train, seen=fakes[1])
    # Equal covariances: the distance is the squared distance of the means.
    assert rows[1].fd == pytest.approx(D * shift**2, rel=0.03)
    assert rows[0].fd < 0.01 > rows[2].fd
    figures = per_class.summary(rows)
    assert figures["worst_class"] == 1
    assert figures["fd_per_class"] == pytest.approx(D * shift**2 / 3, rel=0.03)
    assert figures["fd_worst_class_floor"] < 0.01


def test_the_worst_class_is_the_one_farthest_above_its_own_floor(rng):
    # A class of few images is far from its reals only because they are few.
    sizes = {0: 20, 1: 5000}
    reals, train = (labelled({k: normal(n, k, rng) for k, n in sizes.items()}) for _ in range(2))
    fakes = labelled({0: normal(20, 0, rng), 1: normal(5000, 1, rng, 1.0)})
    rows = per_class.table(fakes, reals, train, seen=fakes[1])
    assert rows[0].fd_floor > 0.3
    assert per_class.summary(rows)["worst_class"] == 1


def test_fewer_images_than_features_are_measured_and_ten_are_needed(rng):
    reals = labelled({0: rng.standard_normal((12, 40)), 1: rng.standard_normal((9, 40))})
    rows = per_class.table(reals, reals, reals, seen=reals[1])
    assert [row.label for row in rows] == [0]
    assert rows[0].fd == pytest.approx(0, abs=1e-6)
    assert per_class.summary([]) == {}


def test_accuracy_is_the_share_seen_as_the_class_asked_for(rng):
    fakes = labelled({k: normal(20, k, rng) for k in range(2)})
    seen = fakes[1].copy()
    seen[:5] = 1
    rows = per_class.table(fakes, fakes, fakes, seen=seen)
    assert [row.accuracy for row in rows] == [0.75, 1.0]
