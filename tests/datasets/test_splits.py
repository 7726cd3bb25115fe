from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.splits import assign

NONE, TRAIN, VAL, TEST = -1, 0, 1, 2


def sizes(parts: dict[str, np.ndarray]) -> dict[str, int]:
    return {split: len(rows) for split, rows in parts.items()}


def draw(published: np.ndarray, labels: np.ndarray | None = None, seed: int = 0, **fractions):
    fractions = {"val_fraction": 0.1, "test_fraction": 0.2, **fractions}
    return assign(published, labels, seed=seed, **fractions)


@pytest.mark.parametrize("n", [10, 97, 1000])
@pytest.mark.parametrize("classes", [0, 3, 7])
@pytest.mark.parametrize(
    "kinds", [[NONE], [TRAIN], [TRAIN, TEST], [TRAIN, VAL], [NONE, TRAIN, VAL, TEST]]
)
def test_splits_are_disjoint_and_complete(n: int, classes: int, kinds: list[int]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n) if classes else None
    parts = draw(rng.choice(kinds, n), labels)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))


def test_sizes_are_exact_and_every_class_within_one_image_of_its_share() -> None:
    labels = np.repeat(np.arange(5), [40, 33, 27, 11, 89])
    parts = draw(np.full(200, NONE), labels)
    assert sizes(parts) == {"train": 140, "val": 20, "test": 40}
    for split, fraction in (("val", 0.1), ("test", 0.2)):
        shares = np.bincount(labels[parts[split]], minlength=5)
        assert (np.abs(shares - np.bincount(labels) * fraction) < 1).all()


def test_a_class_keeps_an_image_in_train() -> None:
    labels = np.array([0] * 50 + [1])
    parts = draw(np.full(51, NONE), labels, val_fraction=0.45, test_fraction=0.45)
    assert 50 in parts["train"]


def test_published_val_and_test_stay_as_they_are() -> None:
    published = np.array([TRAIN] * 100 + [VAL] * 20 + [TEST] * 30)
    parts = draw(published)
    assert sizes(parts) == {"train": 100, "val": 20, "test": 30}
    assert set(parts["test"]) == set(range(120, 150))


def test_val_is_a_share_of_train_where_only_test_is_published() -> None:
    parts = draw(np.array([TRAIN] * 100 + [TEST] * 40))
    assert sizes(parts) == {"train": 90, "val": 10, "test": 40}


def test_the_seed_decides_and_nothing_else() -> None:
    labels = np.arange(100) % 4
    first, same, other = (draw(np.full(100, NONE), labels, seed=seed) for seed in (1, 1, 2))
    assert all((first[split] == same[split]).all() for split in first)
    assert set(first["test"]) != set(other["test"])


def test_rows_are_shuffled_so_that_the_first_ones_are_a_fair_sample() -> None:
    labels = np.repeat(np.arange(10), 500)
    for published in (np.full(5000, NONE), np.array([TRAIN, TEST] * 2500)):
        for rows in draw(published, labels).values():
            assert len(np.unique(labels[rows[:200]])) == 10
