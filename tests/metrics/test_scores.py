from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import scores


def test_equals_torch_fidelity():
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = np.random.default_rng(0).normal(0, 3, (503, 10)).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, rng_seed=4)
    mean, deviation = scores.inception_score(logits, seed=4)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def test_certain_and_even_classes_score_their_number():
    logits = 100.0 * np.eye(5)[np.arange(5000) % 5]
    assert scores.inception_score(logits)[0] == pytest.approx(5, rel=0.01)


def test_a_class_that_no_sample_can_be_is_left_out():
    logits = np.tile([0.0, 0, -1e4], (50, 1))
    assert scores.inception_score(logits)[0] == pytest.approx(1)


def test_one_class_only_scores_one():
    assert scores.inception_score(np.tile([9.0, 0, 0], (50, 1)))[0] == pytest.approx(1)


def test_interval_from_the_splits_covers_the_mean_score_at_about_its_rate():
    from pipeline.metrics.intervals import of_ten_blocks

    rng = np.random.default_rng(0)
    figures, ends = [], []
    for _ in range(300):
        logits = 3 * np.eye(6)[rng.integers(0, 6, 400)] + rng.normal(size=(400, 6))
        mean, deviation = scores.inception_score(logits)
        figures.append(mean)
        ends.append(of_ten_blocks(mean, deviation / 3))
    low, high = np.array(ends).T
    assert 0.91 <= np.mean((low <= np.mean(figures)) & (high >= np.mean(figures))) <= 0.98
