from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest

from pipeline import compare, evaluation, pairs
from pipeline.errors import UserError
from pipeline.evaluated import Evaluated, Samples
from pipeline.evaluation import Fakes, Settings, Space
from pipeline.reference import Reference, benchmark_figures, benchmark_of, build_reference, monitor

CLASSES, D = 4, 6
PROTOCOL = {
    "extractor": "domain",
    "extractor_digest": "0" * 64,
    "n_fake": 300,
    "neighbours": 5,
    "seed": 0,
    "versions": {"torch": "2.15.0", "numpy": "2.4.0"},
}
DATA = {
    "kind": "image",
    "source": "mnist5k",
    "splits": {"train": {"class_counts": [50] * CLASSES}},
}


def draw(n: int, rng: np.random.Generator, *, noise: float = 0.0, labels=None):
    labels = rng.permutation(np.arange(n) % CLASSES) if labels is None else labels
    features = 3 * np.eye(CLASSES, D)[labels] + rng.normal(size=(n, D))
    features += noise * rng.normal(size=(n, D))
    return features.astype(np.float32), (2 * features[:, :CLASSES]).astype(np.float32)


def samples(seed: int, *, n: int = 300, noise: float = 0.0, labels=None) -> Samples:
    rng = np.random.default_rng(1000 + seed)
    features, logits = draw(n, rng, noise=noise, labels=labels)
    real_features, real_logits = draw(200, np.random.default_rng(0))
    return Samples(features, logits, real_features, real_logits, features, real_features, None, DATA, "e" * 64)  # fmt: skip


def figures(of: Samples) -> dict[str, float]:
    images = np.random.default_rng(0).integers(0, 256, (len(of.features), 2, 2, 1), dtype=np.uint8)
    reference = build_reference(of.real_features, of.real_logits, [50] * CLASSES)
    space = Space(of.space, of.space_real, draw(300, np.random.default_rng(7))[0], of.logits)
    return evaluation.evaluate(
        Fakes(of.features, of.logits, images), reference, space, Settings(bootstraps=20)
    )


def evaluated(seed: int, name: str = "some run", **changes) -> Evaluated:
    of = samples(seed, **changes)
    return Evaluated(name, figures(of), PROTOCOL, of)


@pytest.fixture(scope="module")
def good() -> Evaluated:
    return evaluated(1, "good")


@pytest.fixture(scope="module")
def noisy() -> Evaluated:
    return evaluated(2, "noisy", noise=1.0)


def by_key(comparison: compare.Comparison) -> dict[str, compare.Figure]:
    return {figure.key: figure for figure in comparison.figures}


def text(comparison: compare.Comparison) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(compare.table(comparison))
    return console.file.getvalue()


def test_an_evaluation_does_not_differ_from_itself(good: Evaluated) -> None:
    comparison = compare.compare(good, good)
    assert comparison.paired
    for figure in comparison.figures:
        assert figure.difference == 0, figure.key
        assert figure.meaning == "the same", figure.key
    assert comparison.verdict() == "A and B are the same, to the last digit of every figure"
    assert comparison.notes == []


def test_one_evaluation_is_the_same_also_without_its_samples(good: Evaluated) -> None:
    bare = dataclasses.replace(good, samples=None, missing="only its figures are there")
    comparison = compare.compare(good, bare)
    assert not comparison.paired
    assert {figure.meaning for figure in comparison.figures} == {"the same"}
    assert comparison.verdict().startswith("A and B are the same")
    assert comparison.notes == []
    assert "unpaired" not in text(comparison)


def test_every_figure_of_an_evaluation_is_there_but_those_that_describe_others(
    good: Evaluated,
) -> None:
    shown = by_key(compare.compare(good, good))
    assert set(shown) == {
        *("fd", "kid", "precision", "recall", "density", "coverage", "label_kl", "ndb_jsd"),
        *("selfnn_ratio", "within_var_ratio", "modes", "dup_rate", "is_mean", "confidence"),
        *("fd_inf", "mind"),
    }
    assert shown["fd"].floor == good.metrics["fd_floor"]


def test_a_worse_model_is_told_from_a_better_one(good: Evaluated, noisy: Evaluated) -> None:
    comparison = compare.compare(good, noisy)
    shown = by_key(comparison)
    for key in ("fd", "mind", "kid", "precision"):
        assert shown[key].better == "A", key
        assert shown[key].how == "paired"
    low, high = shown["fd"].low, shown["fd"].high
    assert 0 < low < shown["fd"].difference < high
    for key in shown:
        assert shown[key].difference == noisy.metrics[key] - good.metrics[key], key
    assert shown["fd"].meaning.startswith("A is better: fd lower by ")
    assert comparison.verdict().startswith("A is better by fd, ")


def test_the_other_way_round_says_the_same(good: Evaluated, noisy: Evaluated) -> None:
    shown = by_key(compare.compare(noisy, good))
    assert shown["fd"].better == "B"
    assert shown["fd"].meaning.startswith("B is better: fd lower by ")
    assert shown["precision"].meaning.startswith("B is better: precision higher by ")


def test_what_is_not_shown_is_bounded() -> None:
    shown = by_key(compare.compare(evaluated(3), evaluated(4)))
    recall = shown["recall"]
    assert recall.low is not None
    assert recall.low <= 0 <= recall.high
    assert recall.meaning.startswith("no difference shown (")
    assert recall.meaning.endswith(f": B at most {-recall.low:.3g} lower")


def test_samples_with_too_little_variety_are_not_praised_for_density() -> None:
    assert compare._direction("density", 1.1, 1.6) == "lower"
    assert compare._direction("density", 0.7, 0.9) == "higher"
    assert compare._direction("density", 0.9, 1.2) is None


def test_figures_of_a_family_are_judged_as_it_is() -> None:
    assert compare._direction("fd_per_class_3", 1, 2) == "lower"
    assert compare._direction("fd_inf", 1, 2) == "lower"
    assert compare._direction("fdx", 1, 2) is None
    assert compare._direction("anything", 1, 2) is None


def test_different_protocols_are_refused_with_each_field_and_both_values(good: Evaluated) -> None:
    other = dataclasses.replace(
        good, protocol={**PROTOCOL, "n_fake": 5000, "extractor_digest": "f" * 64, "filter": "box"}
    )
    with pytest.raises(UserError) as caught:
        compare.compare(good, other)
    message = str(caught.value)
    assert "n_fake: 300 (A), 5000 (B)" in message
    assert "extractor_digest: 000000000000... (A), ffffffffffff... (B)" in message
    assert "filter: absent (A), box (B)" in message
    assert "seed" not in message


def test_other_library_versions_are_a_note(good: Evaluated) -> None:
    newer = {**PROTOCOL, "versions": {"torch": "2.16.0", "numpy": "2.4.0"}}
    comparison = compare.compare(good, dataclasses.replace(good, protocol=newer))
    (note,) = comparison.notes
    assert note == "measured with different versions: torch 2.15.0 (A), 2.16.0 (B)"


def test_figures_alone_are_compared_unpaired_and_labelled_so(
    good: Evaluated, noisy: Evaluated
) -> None:
    bare = dataclasses.replace(noisy, samples=None, missing="only its figures are there")
    comparison = compare.compare(good, bare)
    shown = by_key(comparison)
    assert not comparison.paired
    assert comparison.notes[0].startswith("unpaired (noisy: only its figures are there)")
    assert "unpaired" in text(comparison)
    assert {shown[key].how for key in ("fd", "kid", "recall")} == {"unpaired"}
    assert shown["modes"].how == ""
    assert shown["fd"].better == "A"
    assert shown["confidence"].meaning == "no interval"
    fd = compare.compare(good, noisy).figures[0]
    assert shown["fd"].high - shown["fd"].low > fd.high - fd.low


def test_unpaired_interval_adds_the_variances_of_both(good: Evaluated) -> None:
    old = {"kid": 0.1, "kid_se": 0.03, "x": 2.0, "x_ci_low": 1.0, "x_ci_high": 5.0}
    new = {"kid": 0.3, "kid_se": 0.04, "x": 1.0, "x_ci_low": -1.0, "x_ci_high": 2.0}
    sides = [Evaluated(name, x, PROTOCOL, missing="y") for name, x in (("a", old), ("b", new))]
    shown = by_key(compare.compare(*sides))
    assert shown["kid"].difference == pytest.approx(0.2)
    assert shown["kid"].high == pytest.approx(0.2 + 1.96 * 0.05)
    assert shown["x"].difference == -1
    assert shown["x"].high == pytest.approx(-2.5 + 2.5)  # around the difference of the middles


def test_a_difference_at_the_end_of_its_interval_is_not_beside_it() -> None:
    at_the_end = compare.Figure("x", 0.0, 0.12345, 0.12345, 0.12344, 0.2, "", None, "")
    assert not compare._beside(at_the_end)


def test_a_difference_beside_its_interval_is_shown_as_it_is_and_said_to_be() -> None:
    """Middles of intervals that are debiased or clipped are not the figures."""
    old = {"nn_share": 0.21, "nn_share_ci_low": 0.28, "nn_share_ci_high": 0.34}
    new = {"nn_share": 0.508, "nn_share_ci_low": 0.48, "nn_share_ci_high": 0.54}
    sides = [Evaluated(name, x, PROTOCOL, missing="y") for name, x in (("a", old), ("b", new))]
    comparison = compare.compare(*sides)
    (figure,) = comparison.figures
    assert figure.difference == pytest.approx(0.298)
    assert (figure.low + figure.high) / 2 == pytest.approx(0.2)
    assert comparison.notes[1].startswith("of nn_share B - A lies beside its interval")


def test_no_interval_of_a_share_goes_beyond_what_is_possible() -> None:
    old = {"precision": 0.02, "precision_ci_low": 0.0, "precision_ci_high": 0.4}
    new = {"precision": 0.99, "precision_ci_low": 0.7, "precision_ci_high": 1.0}
    sides = [Evaluated(name, x, PROTOCOL, missing="y") for name, x in (("a", old), ("b", new))]
    (figure,) = compare.compare(*sides).figures
    assert figure.meaning.startswith("B is better: precision higher by 0.4")
    assert figure.high <= 1

    certain = compare.Difference(0.97, 0.1, 0.77, 1.17)
    figure = compare._figure("precision", old, new, certain, ("A", "B"))
    assert figure.meaning == "B is better: precision higher by 0.77 to 1"


def test_inceptions_distance_differs_by_the_figures_themselves(
    good: Evaluated, noisy: Evaluated
) -> None:
    renamed = [
        dataclasses.replace(
            x, metrics={name.replace("fd", "fid"): value for name, value in x.metrics.items()}
        )
        for x in (good, noisy)
    ]
    fid = by_key(compare.compare(*renamed))["fid"]
    fd = by_key(compare.compare(good, noisy))["fd"]
    assert fid.how == "paired"
    assert fid.difference == noisy.metrics["fd"] - good.metrics["fd"]
    assert fid.high - fid.low == pytest.approx(fd.high - fd.low)


def test_other_reals_are_not_paired(good: Evaluated) -> None:
    moved = dataclasses.replace(good.samples, space_real=good.samples.space_real + 1)
    metrics = {**good.metrics, "fd": 17.0}
    other = dataclasses.replace(good, metrics=metrics, samples=moved)
    comparison = compare.compare(good, other)
    assert not comparison.paired
    assert "the features of the reals are not the same" in comparison.notes[0]


def test_failed_controls_and_figures_of_one_side_are_named(good: Evaluated) -> None:
    metrics = {**good.metrics, "control_real_vs_real": 0.0, "cas": 0.9}
    comparison = compare.compare(good, dataclasses.replace(good, metrics=metrics))
    assert comparison.notes == [
        "control_real_vs_real failed for B: do not trust its figures",
        "only B has cas",
    ]


def test_few_samples_have_no_neighbours_interval_and_no_error() -> None:
    few = [evaluated(seed, n=20) for seed in (1, 2)]
    shown = by_key(compare.compare(*few))
    assert shown["recall"].meaning == "no interval"
    assert shown["fd"].how == "paired"


def test_unlabelled_data_are_compared_by_bins(good: Evaluated) -> None:
    none = {**DATA, "splits": {"train": {"class_counts": None}}}
    sides = [
        dataclasses.replace(x, samples=dataclasses.replace(x.samples, data=none))
        for x in (good, evaluated(5))
    ]
    assert by_key(compare.compare(*sides))["label_kl"].how == "paired"


def test_points_of_a_benchmark_are_compared_by_its_figures() -> None:
    centres = [[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]
    data = {
        **DATA,
        "kind": "points",
        "centres": centres,
        "sigma": 0.1,
        "splits": {"train": {"class_counts": [50] * 3}},
    }
    benchmark = benchmark_of(data)

    def side(spread: float) -> Evaluated:
        rng = np.random.default_rng(int(100 * spread))
        labels, reals = np.arange(300) % 3, np.array(centres)[np.arange(90) % 3]
        points, real = (
            (x + s * rng.normal(size=x.shape)).astype(np.float32)
            for x, s in ((np.array(centres)[labels], spread), (reals, 0.1))
        )
        logits, real_logits = np.eye(3)[labels], np.eye(3)[np.arange(90) % 3]
        of = Samples(points, logits, real, real_logits, points, real, None, data, "e" * 64)
        reference = build_reference(real, real_logits, [50] * 3, benchmark)
        return Evaluated("", benchmark_figures(points, logits, reference), PROTOCOL, of)

    a, b = side(0.1), side(0.2)
    moved = dataclasses.replace(
        b, samples=dataclasses.replace(b.samples, space_real=a.samples.space_real, real_features=a.samples.real_features)
    )  # fmt: skip
    shown = by_key(compare.compare(a, moved))
    assert shown["hq"].better == "A"
    assert shown["reverse_kl"].how == "paired"
    assert shown["modes"].meaning == "the same"


def test_samples_survive_writing_and_reading(good: Evaluated, tmp_path) -> None:
    apart = dataclasses.replace(
        good.samples,
        space=good.samples.space + 1,
        space_real=good.samples.space_real + 1,
        labels=np.arange(300),
    )
    for name, written in (("one", good.samples), ("apart", apart)):
        (tmp_path / name).mkdir()
        written.write(tmp_path / name)
        read = Samples.read(tmp_path / name)
        for field in dataclasses.fields(Samples):
            np.testing.assert_array_equal(
                getattr(read, field.name), getattr(written, field.name), err_msg=field.name
            )


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_of_equal_models_the_intervals_cover_zero_as_often_as_they_say(noise: float) -> None:
    families = [family for family in pairs.PAIRED if family is not pairs._frechet]
    draws, inside = 200, dict.fromkeys(
        ("kid", "precision", "recall", "density", "coverage", "label_kl", "ndb_jsd", "selfnn_ratio", "within_var_ratio", "confidence"), 0
    )  # fmt: skip
    for i in range(draws):
        rng = np.random.default_rng(i)
        reals = draw(300, rng)
        of = []
        for _ in range(2):
            features, logits = draw(300, rng, noise=noise, labels=rng.integers(CLASSES, size=300))
            of.append(Samples(features, logits, *reals, features, reals[0], None, {}, ""))  # fmt: skip
        reference = build_reference(*reals, [50] * CLASSES)
        sides = [Evaluated("", _quick(x, reference), PROTOCOL, x) for x in of]
        for family in families:
            for key, x in family(pairs.Pair(*sides, *of, reference)).items():
                inside[key] += x.low <= 0 <= x.high
    for key, count in inside.items():
        assert 0.91 <= count / draws <= 1, (key, count / draws)


def _quick(x: Samples, reference: Reference) -> dict[str, float]:
    """The figures without the slow ones."""
    from pipeline.metrics import modes, neighbours

    return {
        **monitor(x.features, x.logits, reference),
        **neighbours.precision_recall(reference.features, x.features, k=5),
        "confidence": modes.confidence(x.logits),
    }
