import numpy as np
import pytest

from pipeline.controls import controls
from pipeline.metrics import frechet, modes
from pipeline.reference import build_reference
from tests.clumps import CLASSES, draw


@pytest.fixture(scope="module")
def reference():
    return build_reference(*draw(400, 0), [200] * CLASSES)


def test_controls_pass_on_any_draw_of_reals():
    for seed in range(20):
        n = 40 if seed % 2 else 300
        labels = np.random.default_rng(seed).integers(0, CLASSES, n)
        reference = build_reference(*draw(n, seed, labels), [60] * CLASSES)
        assert controls(reference) == {"real_vs_real": True, "dropped_class": True}


@pytest.mark.parametrize("n", [20, 60, 200])
def test_control_real_vs_real_passes_for_few_reals_of_many_features(n, monkeypatch):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(n, 100)).astype(np.float32)
        reference = build_reference(features, features[:, :3], [n, n, n])
        assert controls(reference, seed=seed)["real_vs_real"]
    true = frechet.distance
    monkeypatch.setattr(frechet, "distance", lambda a, b: true(a, b) + 100)
    assert not controls(reference)["real_vs_real"]


def test_control_real_vs_real_fails_where_the_distance_is_wrong(reference, monkeypatch):
    true = frechet.distance
    monkeypatch.setattr(frechet, "distance", lambda a, b: true(a, b) + 10)
    assert not controls(reference)["real_vs_real"]


def test_control_dropped_class_fails_where_label_kl_is_blind(reference, monkeypatch):
    monkeypatch.setattr(modes, "label_kl", lambda labels, frequencies: 0.0)
    assert not controls(reference)["dropped_class"]


def test_one_class_has_no_class_to_drop():
    features, _ = draw(100, 0)
    reference = build_reference(features, np.zeros((100, 1), np.float32), [100])
    assert controls(reference) == {"real_vs_real": True}
