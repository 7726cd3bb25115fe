from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline import evaluation, extractor
from pipeline.datasets.points import MIXTURES
from pipeline.evaluation import Fakes, Settings, Space
from pipeline.metrics import frechet, mind
from pipeline.reference import UNLABELLED_GROUPS, Benchmark, build_reference, monitor
from tests.clumps import CLASSES, draw


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def reference():
    return build_reference(*draw(400, 0), [200] * CLASSES)


@pytest.fixture(scope="module")
def unlabelled():
    return build_reference(*draw(400, 0), None)


@pytest.fixture(scope="module")
def settings():
    return Settings(bootstraps=50)


def evaluate(features, logits, reference, settings, *, requested=None):
    """All figures of fakes in the space of the data set's own extractor."""
    fakes = Fakes(features, logits, pictures(len(features)), requested)
    space = Space(
        features, reference.features, draw(1000, 1)[0], logits if reference.labelled else None
    )
    return evaluation.evaluate(fakes, reference, space, settings)


@pytest.fixture(scope="module")
def of_reals(reference, settings):
    return evaluate(*draw(1000, 2), reference, settings)


def test_every_figure_of_the_contract_is_there_and_is_json(of_reals):
    assert set(of_reals) == {
        *("fd", "fd_floor", "fd_ci_low", "fd_ci_high", "kid", "kid_se", "is_mean", "is_std"),
        *("precision", "recall", "density", "coverage", "label_kl", "label_kl_floor", "modes"),
        *(
            "confidence",
            "confidence_real",
            "selfnn_ratio",
            "within_var_ratio",
            "ndb_jsd",
            "n_groups",
        ),
        *("dup_rate", "n_real", "n_fake", "fd_inf", "mind", "mind_floor"),
        *(
            f"{name}_ci_{end}"
            for name in (
                *("precision", "recall", "density", "coverage", "label_kl", "mind"),
                *("ndb_jsd", "selfnn_ratio", "within_var_ratio"),
            )
            for end in ("low", "high")
        ),
        *("control_real_vs_real", "control_dropped_class", "controls"),
    }
    assert json.loads(json.dumps(of_reals, allow_nan=False)) == of_reals


def test_real_against_real_sits_at_the_floor(of_reals):
    assert of_reals["fd"] == pytest.approx(of_reals["fd_floor"], rel=0.3)
    assert of_reals["mind"] == pytest.approx(of_reals["mind_floor"], rel=0.3)
    assert of_reals["fd_ci_low"] <= 0.05
    assert of_reals["ndb_jsd_ci_low"] < 0.01
    for key in ("mind", "selfnn_ratio", "within_var_ratio"):
        assert of_reals[f"{key}_ci_low"] < of_reals[key] < of_reals[f"{key}_ci_high"]
    assert abs(of_reals["kid"]) < 4 * of_reals["kid_se"]
    assert of_reals["label_kl"] < 10 * of_reals["label_kl_floor"]
    assert of_reals["selfnn_ratio"] == pytest.approx(1, abs=0.1)
    assert of_reals["within_var_ratio"] == pytest.approx(1, abs=0.2)
    assert of_reals["density"] == pytest.approx(1, abs=0.15)
    assert of_reals["coverage"] > 0.9
    assert of_reals["modes"] == CLASSES
    assert of_reals["controls"] == 1


def test_noise_in_the_features_raises_every_distance(reference, settings):
    features, logits = draw(1000, 2)
    rows = []
    for noise in (0, 0.5, 1, 2):
        noisy = features + noise * np.random.default_rng(3).normal(size=features.shape)
        rows.append(evaluate(noisy, logits, reference, settings))
    for key, sign in (("fd", 1), ("kid", 1), ("ndb_jsd", 1), ("precision", -1), ("density", -1)):
        assert np.all(sign * np.diff([row[key] for row in rows]) > 0), key


def test_monitor_and_evaluation_give_the_same_figures(reference, settings, of_reals):
    signals = monitor(*draw(1000, 2), reference)
    collapse = {"fd", "label_kl", "ndb_jsd", "selfnn_ratio", "within_var_ratio"}
    assert set(signals) == collapse | {"precision", "recall", "density", "coverage"}
    assert signals == {key: of_reals[key] for key in signals}


def test_distances_are_of_the_space_and_classes_of_the_extractor(reference, settings, of_reals):
    features, logits = draw(1000, 2)
    wide = np.random.default_rng(5).normal(size=(2400, 30)).astype("f")
    space = Space(wide[:1000], wide[1000:1400], wide[1400:], wide[:1000], key="fid")
    result = evaluation.evaluate(
        Fakes(features, logits, pictures(1000)), reference, space, settings
    )
    assert {"fid", "fid_floor", "fid_ci_low", "fid_ci_high"} <= set(result)
    assert not [key for key in result if key.startswith("fd")]
    assert result["fid"] == pytest.approx(frechet.distance(wide[:1000], wide[1000:1400]))
    for key in ("label_kl", "modes", "ndb_jsd", "selfnn_ratio", "within_var_ratio", "confidence"):
        assert result[key] == of_reals[key]
    for key in ("kid", "precision", "coverage", "is_mean"):
        assert result[key] != of_reals[key]


def test_the_inception_score_needs_no_labels_where_the_space_has_logits(unlabelled, settings):
    features, logits = draw(500, 2)
    space = Space(features, unlabelled.features, features, logits)
    fakes = Fakes(features, logits, pictures(500))
    result = evaluation.evaluate(fakes, unlabelled, space, settings)
    assert result["is_mean"] > 1
    assert "confidence" not in result


@pytest.mark.parametrize("key", ["fid", "fd"])
def test_the_interval_of_few_images_covers_the_mean_at_these_numbers_of_images(key, monkeypatch):
    """Of 200 draws with fewer images than features, where no bootstrap knows the bias."""
    monkeypatch.setattr(mind, "interval", lambda *args, **how: (0, 0))  # of no concern here
    rows = []
    deviations = np.sqrt(1 / np.arange(1, 33))
    shift = np.repeat([0.5, 0.0], [3, 29])
    for seed in range(200):
        rng = np.random.default_rng(seed)
        fakes = rng.normal(size=(24, 32)) * deviations * 1.1 + shift
        reals = rng.normal(size=(20, 32)) * deviations
        space = Space(fakes, reals, reals, key=key)
        result = evaluation.FAMILIES["frechet"](
            Fakes(fakes, fakes, fakes), None, space, Settings(bootstraps=50)
        )
        rows.append([result[name] for name in (key, f"{key}_ci_low", f"{key}_ci_high")])
    values, low, high = np.array(rows).T
    mean = values.mean()
    assert ((low <= mean) & (mean <= high)).mean() >= 0.93
    assert (high - low).mean() / 3.92 < 1.3 * values.std()


def test_a_conditional_model_has_a_label_accuracy(reference, settings):
    labels = np.arange(500) % CLASSES
    features, logits = draw(500, 2, labels)
    wrong = labels.copy()
    wrong[:250] = (wrong[:250] + 1) % CLASSES
    figures = evaluate(features, logits, reference, settings, requested=wrong)
    assert figures["label_accuracy"] == pytest.approx(0.5, abs=0.05)
    assert figures["label_accuracy_ci_low"] < 0.5 < figures["label_accuracy_ci_high"]


def test_without_labels_groups_are_bins_of_the_reals(unlabelled, settings):
    result = evaluate(*draw(1000, 2), unlabelled, settings)
    assert "is_mean" not in result
    assert "confidence" not in result
    assert result["modes"] == UNLABELLED_GROUPS
    dropped = monitor(*draw(1000, 2, np.arange(1000) % 4), unlabelled)
    assert dropped["label_kl"] > result["label_kl"] + 0.1


def test_neighbours_compare_equal_numbers(reference, settings):
    features, logits = draw(1000, 2)
    many = evaluate(features, logits, reference, settings)
    equal = evaluate(features[:400], logits[:400], reference, settings)
    for key in ("precision", "recall", "density", "coverage", "selfnn_ratio"):
        assert many[key] == equal[key]


def test_protocol_names_what_numbers_must_share():
    arguments = {
        "extractor": "domain",
        "extractor_digest": "e",
        "domain_digest": "e",
        "n_real": 1,
        "n_fake": 2,
        "split": "test",
        "split_sha256": "s",
        "image_size": 28,
        "channels": 1,
        "resize_filter": "lanczos",
        "neighbours": 5,
        "bootstraps": 200,
        "seed": 0,
    }
    result = evaluation.protocol(**arguments)
    versions = result.pop("versions")
    assert result == arguments
    assert np.__version__ == versions["numpy"]
    assert "torch-fidelity" not in versions
    of_inception = evaluation.protocol(**{**arguments, "extractor": "inception"})
    assert "torch-fidelity" in of_inception["versions"]


def of_mixture(keep: int = 8, n: int = 2500, seed: int = 0, spread: float = 1.0):
    """The figures of samples from the ring's first `keep` modes, `spread` times as wide."""
    ring = MIXTURES["ring"]
    test, modes_of_test = ring.draw(2000, 1)
    rng = np.random.default_rng(seed)
    centres = ring.centres[rng.integers(keep, size=n)]
    fakes = (centres + spread * ring.sigma * rng.normal(size=(n, 2))).astype(np.float32)
    model = extractor.Points(centres=ring.centres.tolist(), sigma=ring.sigma)
    features, logits = extractor.extract(model, fakes)
    reference = build_reference(
        *extractor.extract(model, test),
        np.bincount(modes_of_test).tolist(),
        Benchmark(ring.centres, ring.sigma),
    )
    space = evaluation.Space(features, reference.features, ring.draw(3000, 2)[0])
    settings = Settings(bootstraps=20)
    return evaluation.evaluate(Fakes(features, logits, fakes), reference, space, settings)


def test_a_perfect_sampler_of_the_ring_is_at_the_ideal():
    result = of_mixture()
    assert result["hq"] == pytest.approx(0.989, abs=0.007)
    assert result["hq_ci_low"] < result["hq"] < result["hq_ci_high"]
    assert result["modes"] == 8
    assert result["reverse_kl_ci_low"] == 0
    assert result["reverse_kl"] < 4 * result["reverse_kl_floor"]
    assert result["reverse_kl_floor"] == pytest.approx(7 / (2 * 2500 * result["hq"]))
    assert result["label_kl"] < 0.02
    assert result["controls"] == 1
    assert "is_mean" not in result


def test_removed_modes_and_poor_samples_of_the_ring_are_seen():
    fewer = of_mixture(keep=6)
    assert fewer["modes"] == 6
    assert fewer["reverse_kl"] == pytest.approx(np.log(8 / 6), abs=0.01)
    wide = of_mixture(spread=10)
    assert wide["hq"] == pytest.approx(1 - np.exp(-4.5 / 100), abs=0.03)
    assert wide["modes"] == 8  # a mode counts with one good sample
