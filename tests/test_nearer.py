"""The deviation of a difference of distances, against many draws of the same two models."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import evaluation, nearer
from pipeline.evaluated import Samples
from pipeline.metrics import frechet

N, M, D, K = 900, 400, 12, 4
CENTRES = 5 * np.eye(K, D)


def draw(rng: np.random.Generator, n: int, *, shift: float = 0.0, fixed: bool = False):
    classes = np.arange(n) % K if fixed else rng.integers(K, size=n)
    rows = CENTRES[classes] + rng.normal(size=(n, D))
    rows[:, 0] += shift
    return rows.astype(np.float32), classes


def samples(features: np.ndarray, reals: np.ndarray, *, test: list[int]) -> Samples:
    none = np.zeros((0, K), np.float32)
    splits = {"train": {"class_counts": [100] * K}, "test": {"class_counts": test}}
    return Samples(features, none, reals, none, features, reals, None, {"splits": splits}, "")


@pytest.fixture(scope="module")
def rounds() -> list[tuple[float, float, float]]:
    """The difference of two equally good models, its deviation, and the plain bootstrap's."""
    result = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        reals, groups = draw(rng, M, fixed=True)
        a, b = (samples(draw(rng, N, shift=s)[0], reals, test=[M // K] * K) for s in (0.2, -0.2))
        found = nearer.difference(a, b, groups, biased=False, seed=0)
        plain = frechet.paired_difference(a.space, b.space, reals, resamples=50, seed=0)
        result.append((found.delta, found.sd, plain.sd))
    return result


def test_the_deviation_is_that_of_many_draws(rounds) -> None:
    deltas, sds, plain = np.array(rounds).T
    truth = deltas.std(ddof=1)  # known to one part in seven
    assert 0.65 < sds.mean() / truth < 1.5
    assert plain.mean() / truth > sds.mean() / truth
    assert abs(deltas.mean()) < 3 * truth / np.sqrt(len(deltas))


def test_the_influence_is_what_a_row_adds() -> None:
    rng = np.random.default_rng(0)
    rows, others = (draw(rng, 500, shift=s)[0].astype(np.float64) for s in (0.0, 0.5))
    own, other = frechet.statistics(rows), frechet.statistics(others)
    influence = nearer._influence(rows, own, other)
    # Twice a row with a large influence, and once one with a small one: by so much more or less.
    before = frechet.of_statistics(own, other)
    for i in (influence.argmax(), influence.argmin()):
        weights = np.ones(len(rows))
        weights[i] += 1e-4 * len(rows)
        weights /= weights.sum()
        mean = weights @ rows
        centred = rows - mean
        covariance = (centred * weights[:, None]).T @ centred * len(rows) / (len(rows) - 1)
        change = (frechet.of_statistics((mean, covariance), other) - before) / 1e-4
        assert change == pytest.approx(influence[i] - influence.mean(), rel=0.02)


def test_only_a_split_of_fixed_class_counts_is_stratified() -> None:
    def splits(train, test):
        return {"train": {"class_counts": train}, "test": {"class_counts": test}}

    assert evaluation.stratified(splits([350, 350], [100, 100]))
    assert evaluation.stratified(splits([5, 4], [2, 1]))
    assert not evaluation.stratified(splits([350, 350], [110, 90]))
    assert not evaluation.stratified(splits(None, None))
    assert not evaluation.stratified({"train": {"class_counts": [1]}})


def test_fewer_samples_than_features_and_the_biased_figure() -> None:
    rng = np.random.default_rng(1)
    reals, groups = draw(rng, D - 2, fixed=True)
    a, b = (samples(draw(rng, 40, shift=s)[0], reals, test=[3, 3, 2, 2]) for s in (0.0, 3.0))
    found = nearer.difference(a, b, groups, biased=True, seed=0)
    wanted = frechet.distance(a.space, reals) - frechet.distance(b.space, reals)
    assert found.delta == pytest.approx(wanted)
    assert found.delta < 0
    assert found.low < found.delta < found.high
