from __future__ import annotations

import numpy as np
import pytest

from pipeline import cas
from tests.test_extractor import bars

TRAINING = {"n_classes": 3, "dim": 16, "epochs": 6, "batch_size": 32, "lr": 0.005, "seed": 0}


@pytest.fixture(scope="module")
def reals():
    return bars(200, seed=1)


def test_fakes_like_the_reals_teach_the_classes(reals):
    fakes, labels = bars(400, seed=2)
    assert cas.score(fakes, labels, *reals, training=TRAINING) > 0.95


def test_fakes_with_the_wrong_classes_teach_wrong_ones(reals):
    fakes, labels = bars(400, seed=2)
    assert cas.score(fakes, (labels + 1) % 3, *reals, training=TRAINING) < 0.05


def test_a_class_that_is_never_made_is_never_told(reals):
    fakes, labels = bars(400, seed=2)
    kept = labels != 2
    score = cas.score(fakes[kept], labels[kept], *reals, training=TRAINING)
    assert score == pytest.approx(np.mean(reals[1] != 2), abs=0.05)
