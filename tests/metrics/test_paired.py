from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import kernel, paired


def draw(n: int, rng: np.random.Generator, scale: float = 1.0, d: int = 6) -> np.ndarray:
    return (scale * rng.normal(size=(n, d))).astype(np.float32)


def test_bootstrap_of_a_mean_has_its_standard_error() -> None:
    x = np.random.default_rng(0).exponential(size=400)
    (sd,) = paired.bootstrap_sd(lambda counts: np.array([counts @ x / 400]), 400, resamples=2000)
    assert sd == pytest.approx(x.std() / 20, rel=0.05)


def test_subsamples_of_a_mean_have_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    x, reals = rng.exponential(size=400), 3 * rng.normal(size=400)

    def statistic(rows: np.ndarray, real_rows: np.ndarray) -> np.ndarray:
        return np.array([x[rows].mean() - reals[real_rows].mean()])

    (sd,) = paired.subsample_sd(statistic, 400, resamples=2000)
    assert sd == pytest.approx(np.hypot(x.std(), reals.std()) / 20, rel=0.05)


def test_subsamples_repeat_no_row_and_stay_small() -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def statistic(*rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return np.zeros(1)

    paired.subsample_sd(statistic, 50_000, resamples=2)
    for rows in seen[0]:
        assert len(np.unique(rows)) == len(rows) == paired.LARGEST
    assert paired.subsample_size(300) == 60


@pytest.mark.parametrize("n", [40, paired.BLOCK + 7])
def test_kid_is_the_difference_of_two_unbiased_distances(n: int) -> None:
    rng = np.random.default_rng(0)
    a, b, real = draw(n, rng), draw(n, rng, 1.5), draw(30, rng)
    expected = kernel.mmd2(a, real) - kernel.mmd2(b, real)
    assert paired.kid(a, b, real).delta == pytest.approx(expected, rel=1e-4)


def test_a_set_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(0)
    a = draw(100, rng)
    difference = paired.kid(a, a, draw(50, rng))
    assert (difference.delta, difference.sd) == (0, 0)


def test_paired_samples_tell_more_than_unpaired_ones() -> None:
    rng = np.random.default_rng(0)
    a, real = draw(200, rng, 1.3), draw(100, rng)
    near = a + 0.1 * draw(200, rng)
    assert paired.kid(a, near, real).sd < 0.3 * paired.kid(a, draw(200, rng, 1.3), real).sd


@pytest.mark.parametrize(("scale_a", "scale_b"), [(1.0, 1.0), (1.3, 1.3), (1.0, 1.3)])
def test_the_kernel_distances_interval_covers_the_truth(scale_a: float, scale_b: float) -> None:
    rng = np.random.default_rng(1)
    found = [
        paired.kid(draw(150, rng, scale_a), draw(150, rng, scale_b), draw(80, rng))
        for _ in range(300)
    ]
    truth = 0.0 if scale_a == scale_b else float(np.mean([x.delta for x in found]))
    rate = np.mean([x.low <= truth <= x.high for x in found])
    assert 0.91 <= rate <= 0.99  # three standard errors about 0.95
