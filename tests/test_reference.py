import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.reference import benchmark_of, build_reference, monitor
from tests.clumps import CLASSES, D, draw


@pytest.fixture(scope="module")
def reference():
    return build_reference(*draw(400, 0), [200] * CLASSES)


def test_a_dropped_class_is_seen(reference):
    labels = np.arange(1000) % (CLASSES - 1)
    healthy = monitor(*draw(1000, 2), reference)
    dropped = monitor(*draw(1000, 2, labels), reference)
    assert dropped["label_kl"] > healthy["label_kl"] + 0.15
    assert dropped["ndb_jsd"] > healthy["ndb_jsd"] + 0.05
    assert dropped["fd"] > healthy["fd"] + 0.5


def test_a_few_images_repeated_are_seen(reference):
    features, logits = draw(1000, 2)
    repeated = np.random.default_rng(0).integers(0, 50, 1000)
    signals = monitor(features[repeated], logits[repeated], reference)
    assert signals["selfnn_ratio"] < 0.1
    assert signals["ndb_jsd"] > 0.1


def test_a_class_without_variety_is_seen(reference):
    labels = np.arange(1000) % CLASSES
    features, logits = draw(1000, 2, labels)
    features[labels == 2] = 4 * np.eye(CLASSES, D)[2] + 0.1 * features[labels == 2]
    assert monitor(features, logits, reference)["within_var_ratio"] < 0.1


def test_monitor_of_fewer_fakes_than_features_is_finite(reference):
    assert np.isfinite(list(monitor(*draw(10, 2), reference).values())).all()


def test_a_class_without_training_images_leaves_label_kl_finite():
    reference = build_reference(*draw(400, 0), [200, 200, 200, 200, 0])
    assert 0.5 < monitor(*draw(500, 1), reference)["label_kl"] < 10


def test_too_few_reals_are_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"data\.test_fraction"):
        build_reference(*draw(10, 0), [2] * CLASSES)


def test_what_is_measured_is_told_by_the_manifest():
    points = {"kind": "points", "source": "ring", "centres": [[0, 0], [1, 0]], "sigma": 0.1}
    found = benchmark_of(points)
    assert found is not None
    assert found.centres is not None
    assert (found.centres.shape, found.sigma) == ((2, 2), 0.1)
    stacked = benchmark_of({"kind": "image", "source": "stacked_mnist"})
    assert stacked is not None
    assert stacked.centres is None
    assert benchmark_of({"kind": "image", "source": "mnist5k"}) is None
