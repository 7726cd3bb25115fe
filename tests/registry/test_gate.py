"""The gate on features whose truth is known: equal, better and worse models."""

import dataclasses

import numpy as np
import pytest

from pipeline.config import load_params
from pipeline.evaluated import Evaluated, Samples
from pipeline.reference import build_reference
from pipeline.registry import gate

N, D, K = 600, 6, 3
CENTRES = 6 * np.eye(K, D)
# With so few samples coverage and recall are known to some 0.05.
MARGINS = dataclasses.replace(
    gate.Margins(**load_params().registry.gate.model_dump()), coverage=0.12, recall=0.12
)


def draw(rng: np.random.Generator, n: int, *, shift: float = 0.0, weights=None) -> np.ndarray:
    classes = rng.choice(K, n, p=weights)
    return (CENTRES[classes] + rng.normal(size=(n, D)) + shift).astype(np.float32)


def logits(features: np.ndarray) -> np.ndarray:
    return -((features[:, None] - CENTRES) ** 2).sum(axis=2).astype(np.float32)


def evaluated(features: np.ndarray, reals: np.ndarray, **changes: float) -> Evaluated:
    samples = Samples(
        features=features,
        logits=logits(features),
        real_features=reals,
        real_logits=logits(reals),
        space=features,
        space_real=reals,
        labels=None,
        data={
            "kind": "image",
            "source": "mnist5k",
            "splits": {"train": {"class_counts": [100] * K}},
        },
        eval_key="e" * 64,
    )
    from pipeline import evaluation

    reference = build_reference(reals, logits(reals), [100] * K)
    metrics = evaluation.evaluate(
        evaluation.Fakes(features, samples.logits, features),
        reference,
        evaluation.Space(features, reals, reals),
        evaluation.Settings(bootstraps=20),
    )
    metrics |= {
        "nearcopy_rate": 0.01,
        "nearcopy_ci_low": 0.005,
        "nearcopy_ci_high": 0.02,
        "nearcopy_null": 0.01,
        "ct_z": 0.1,
        "mia_tpr1": 0.01,
        "mia_tpr1_ci_low": 0.0,
        "mia_tpr1_ci_high": 0.05,
    }
    return Evaluated("x", metrics | changes, {"neighbours": 5}, samples)


@pytest.fixture(scope="module")
def models() -> dict[str, Evaluated]:
    rng = np.random.default_rng(0)
    reals = draw(rng, N)
    return {
        "poor": evaluated(draw(rng, N, shift=0.5), reals),
        "good": evaluated(draw(rng, N, shift=0.05), reals),
        "also good": evaluated(draw(rng, N, shift=0.05), reals),
        "unbalanced": evaluated(draw(rng, N, weights=[0.6, 0.3, 0.1]), reals),
        "narrow": evaluated(CENTRES[rng.choice(K, N)].astype(np.float32)
                            + rng.normal(scale=0.3, size=(N, D)).astype(np.float32), reals),
    }  # fmt: skip


def decide(challenger: Evaluated, champion: Evaluated | None, **given) -> gate.Decision:
    given = {"problems": [], "n_held_out": 1000} | given
    return gate.decide(challenger, champion, MARGINS, **given)


def failed(decision: gate.Decision) -> list[str]:
    return [condition.name for condition in decision.failed]


def test_a_better_model_passes_and_a_worse_one_does_not(models) -> None:
    assert decide(models["good"], models["poor"]).passed
    assert "better" in failed(decide(models["poor"], models["good"]))


def test_an_equal_model_is_not_better(models) -> None:
    assert failed(decide(models["also good"], models["good"])) == ["better"]


def test_identical_models_differ_by_nothing_and_are_refused(models) -> None:
    decision = decide(models["good"], models["good"])
    assert failed(decision) == ["better"]
    (better,) = decision.failed
    assert better.figure == pytest.approx(0, abs=1e-9)


def test_a_model_that_lost_variety_is_refused_for_that(models) -> None:
    assert {"coverage", "recall"} & set(failed(decide(models["narrow"], models["poor"])))


def test_classes_out_of_proportion_are_refused_also_of_a_first_model(models) -> None:
    assert failed(decide(models["unbalanced"], None)) == ["label_kl"]
    assert decide(models["good"], None).passed


def test_a_first_model_is_asked_what_needs_no_champion(models) -> None:
    names = [condition.name for condition in decide(models["good"], None).conditions]
    assert names == ["valid", "label_kl", "nearcopy", "ct_z", "mia_tpr1"]


def test_a_model_with_a_bad_class_is_refused_for_it(models) -> None:
    good = models["good"]
    assert good.samples is not None
    features = good.samples.features.copy()
    chosen = logits(features).argmax(axis=1) == 1
    features[chosen] = CENTRES[1] + 2.0 * (features[chosen] - CENTRES[1])
    spoilt = dataclasses.replace(good.samples, features=features, logits=logits(features))
    difference = gate.worst_class(spoilt, good.samples)
    assert difference is not None
    assert difference.low > 0


def test_classes_that_the_extractor_cannot_tell_are_no_groups_of_the_gate(models) -> None:
    """More of them than it sees groups, asked for at random: they decide nothing."""
    good = models["good"].samples
    assert good is not None
    data = {**good.data, "splits": {"train": {"class_counts": None}}}
    asked = np.random.default_rng(0).integers(20, size=len(good.features))
    unlabelled = dataclasses.replace(good, data=data)
    labelled = dataclasses.replace(unlabelled, labels=asked)
    assert gate.worst_class(labelled, labelled) == gate.worst_class(unlabelled, unlabelled)


@pytest.mark.parametrize(
    ("name", "changes", "n_held_out"),
    [
        ("valid", {"kid": float("nan")}, 1000),
        ("valid", {"control_planted_copies": 0.0}, 1000),
        ("nearcopy", {"nearcopy_ci_high": 0.11}, 1000),
        ("nearcopy", {"nearcopy_ci_high": 0.02}, 10_000),
        ("ct_z", {"ct_z": -3.5}, 1000),
        ("mia_tpr1", {"mia_tpr1_ci_high": 0.05}, 10_000),
    ],
)
def test_every_bound_refuses(models, name: str, changes: dict, n_held_out: int) -> None:
    good = models["good"]
    changed = dataclasses.replace(good, metrics=good.metrics | changes)
    assert name in failed(decide(changed, None, n_held_out=n_held_out))


def test_more_copies_than_the_champion_are_refused(models) -> None:
    good = models["good"]
    copying = dataclasses.replace(good, metrics=good.metrics | {"nearcopy_rate": 0.04})
    assert "nearcopy_than_champion" in failed(decide(copying, models["poor"]))


def test_a_model_as_near_to_train_as_new_images_does_not_copy_more_than_a_blurred_champion(
    models,
) -> None:
    good, poor = (
        dataclasses.replace(models[x], metrics={**models[x].metrics}) for x in ("good", "poor")
    )
    poor.metrics["nearcopy_rate"] = 0.0
    good.metrics["nearcopy_rate"] = 0.01
    assert decide(good, poor).passed
    good.metrics["nearcopy_rate"] = 0.04
    (condition,) = decide(good, poor).failed
    assert condition.name == "nearcopy_than_champion"
    assert "no memory (0.01)" in condition.text


def test_the_share_of_near_copies_that_passes_rises_with_the_champions() -> None:
    """Of samples without memory 95% pass, whose threshold is a quantile of 1,000 held-out images."""

    def passes(rate: float, of_champion: float) -> bool:
        challenger, champion = (
            {"nearcopy_rate": x, "n_fake": 3500.0, "nearcopy_null": 0.01}
            for x in (rate, of_champion)
        )
        return gate._more_copies(challenger, champion, 1000).passed

    rates = np.arange(0.008, 0.03, 0.002)
    limits = [max(r for r in rates if passes(r, q)) for q in (0.0, 0.0099, 0.0101, 0.015)]
    assert limits == sorted(limits)
    rng = np.random.default_rng(0)
    held = np.sort(rng.uniform(size=(400, 1000)), axis=1)[:, 9]  # nearest 1%
    true = rng.binomial(3500, held) / 3500
    assert np.mean(true <= limits[0]) > 0.9


def test_a_refusal_says_figure_interval_and_threshold(models) -> None:
    (condition,) = decide(models["also good"], models["good"]).failed
    assert condition.threshold == 0
    assert condition.low < condition.figure < condition.high
    assert "must be below 0" in condition.text


def test_what_is_wrong_with_the_package_is_said(models) -> None:
    decision = decide(models["good"], None, problems=["a.py has changed"])
    assert failed(decision) == ["valid"]
    assert "a.py has changed" in decision.failed[0].text
