"""Points of the mode benchmarks: the published mixtures, and their prepared form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import prepared
from pipeline.datasets.points import MIXTURES, prepare_points


def prepare(out: Path, name: str = "ring", draws: int = 1000, seed: int = 0) -> dict:
    return prepare_points(
        MIXTURES[name],
        out=out,
        name=name,
        source_name=name,
        draws=draws,
        val_fraction=0.1,
        test_fraction=0.2,
        split_seed=seed,
    )


def test_the_ring_is_eight_modes_at_radius_one() -> None:
    centres = MIXTURES["ring"].centres
    assert centres.shape == (8, 2)
    np.testing.assert_allclose(np.hypot(*centres.T), 1)
    gaps = np.hypot(*(centres - np.roll(centres, 1, axis=0)).T)
    np.testing.assert_allclose(gaps, gaps[0])


def test_the_grid_is_all_pairs_of_even_places() -> None:
    places = {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert {tuple(centre) for centre in MIXTURES["grid"].centres} == places
    assert len(MIXTURES["grid"].centres) == 25


@pytest.mark.parametrize("name", MIXTURES)
def test_draws_have_the_modes_shares_and_deviation(name: str) -> None:
    mixture = MIXTURES[name]
    points, modes = mixture.draw(50_000, seed=0)
    assert points.dtype == np.float32
    shares = np.bincount(modes) / len(modes)
    np.testing.assert_allclose(shares, 1 / len(mixture.centres), rtol=0.1)
    offsets = points - mixture.centres[modes]
    np.testing.assert_allclose(offsets.std(axis=0), mixture.sigma, rtol=0.02)
    np.testing.assert_allclose(offsets.mean(axis=0), 0, atol=5 * mixture.sigma / 50_000**0.5)


def test_prepared_points_are_splits_with_their_mixture(tmp_path: Path) -> None:
    manifest = prepare(tmp_path / "out")
    data = prepared.load(tmp_path / "out")
    assert data.manifest == manifest
    assert (data.points, data.shape, data.n_classes) == (True, (2,), 8)
    assert {name: len(data.split(name)) for name in ("train", "val", "test")} == {
        "train": 700,
        "val": 100,
        "test": 200,
    }
    train = data.split("train")
    assert train.points
    assert train.images.dtype == np.float32
    assert train.labels is not None
    offsets = train.images - np.array(manifest["centres"])[train.labels]
    assert np.abs(offsets).max() < 6 * manifest["sigma"]
    assert len(np.unique(train.labels[:100])) == 8  # shuffled: a fair sample from the start


def test_points_are_a_function_of_the_seed(tmp_path: Path) -> None:
    digests = [prepare(tmp_path / str(i), seed=seed)["digest"] for i, seed in enumerate((0, 0, 1))]
    assert digests[0] == digests[1] != digests[2]
