"""The alarm's bounds on samples that are known: of the mixtures on which modes are counted."""

import numpy as np
import pytest
import torch

from pipeline import extractor
from pipeline.datasets.points import MIXTURES
from pipeline.reference import Benchmark, build_reference, monitor
from pipeline.training import collapse


def figures(problem: str, samples: np.ndarray) -> dict[str, float]:
    """The monitor's, beside 2,000 reals of the mixture."""
    mixture = MIXTURES[problem]
    model = extractor.Points(centres=mixture.centres.tolist(), sigma=mixture.sigma)
    reals, modes = mixture.draw(2000, 1)

    def seen(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = model(torch.from_numpy(points))
        return features.numpy(), logits.numpy()

    counts = np.bincount(modes, minlength=len(mixture.centres)).tolist()
    benchmark = Benchmark(mixture.centres, mixture.sigma)
    reference = build_reference(*seen(reals), counts, benchmark)
    return monitor(*seen(samples), reference)


@pytest.mark.parametrize("n", [500, 2000])
@pytest.mark.parametrize("problem", MIXTURES)
def test_held_out_reals_raise_no_sign(problem: str, n: int) -> None:
    for seed in range(2, 7):
        points, _ = MIXTURES[problem].draw(n, seed)
        assert collapse.signs(figures(problem, points)) == []


def test_points_on_a_curve_through_every_mode_raise_no_sign() -> None:
    """As of a sound training of the ring: on arcs, and closer together than reals."""
    rng = np.random.default_rng(0)
    mixture = MIXTURES["ring"]
    angles = 2 * np.pi * rng.integers(8, size=500) / 8 + 0.02 * rng.normal(size=500)
    radius = 1 + 0.3 * mixture.sigma * rng.normal(size=500)
    arcs = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    found = figures("ring", arcs.astype(np.float32))
    assert found["selfnn_ratio"] < 0.9
    assert collapse.signs(found) == []


@pytest.mark.parametrize("problem", MIXTURES)
def test_half_of_the_modes_lost_and_samples_that_repeat_each_other_raise_signs(
    problem: str,
) -> None:
    points, modes = MIXTURES[problem].draw(1000, 2)
    half = points[modes < len(MIXTURES[problem].centres) // 2]
    assert any("label_kl" in sign for sign in collapse.signs(figures(problem, half)))
    repeated = np.tile(points[:100], (5, 1))
    assert any("selfnn_ratio" in sign for sign in collapse.signs(figures(problem, repeated)))
