from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import bins


def _inertia(features: np.ndarray, centres: np.ndarray) -> float:
    return float(((features - centres[bins.assign(features, centres)]) ** 2).sum())


def test_separate_clumps_are_found():
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [10, 0], [0, 10]])
    features = np.concatenate([m + 0.1 * rng.normal(size=(50, 2)) for m in middles])
    centres = bins.fit(features, 3)
    assert sorted(centres.round().astype(int).tolist()) == sorted(middles.tolist())
    assert np.bincount(bins.assign(features, centres)).tolist() == [50, 50, 50]


def test_as_tight_as_scikit_learns():
    from sklearn.cluster import KMeans

    features = np.random.default_rng(0).normal(size=(600, 10)).astype(np.float32)
    theirs = KMeans(30, n_init=1, random_state=0).fit(features).inertia_
    assert _inertia(features, bins.fit(features, 30)) == pytest.approx(theirs, rel=0.03)


def test_fewer_distinct_rows_than_bins():
    features = np.repeat(np.eye(3), 10, axis=0)
    assert _inertia(features, bins.fit(features, 8)) == 0


def test_a_seed_gives_the_same_bins():
    features = np.random.default_rng(0).normal(size=(200, 4))
    assert np.array_equal(bins.fit(features, 10, seed=3), bins.fit(features, 10, seed=3))
