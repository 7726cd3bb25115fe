from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.grids import save_grid
from pipeline.networks.build import build
from pipeline.report import samples
from pipeline.sampling import sample_images


def make_generator(n_classes: int):
    generator, _ = build(
        "mlp",
        shape=(8, 8, 1),
        latent_dim=4,
        n_classes=n_classes,
        width=8,
        spectral_norm=False,
        seed=0,
    )
    return generator.eval()


@pytest.mark.parametrize("n_classes", [0, 3])
def test_the_sampler_makes_the_evaluated_samples_again(n_classes):
    labels = np.arange(20) % n_classes if n_classes else None
    generator = make_generator(n_classes)
    evaluated = sample_images(generator, n=20, seed=7, labels=labels)
    chosen = np.array([13, 2, 19])
    again = samples.Sampler(generator, n=20, seed=7, labels=labels)(chosen)
    # Matrix products of other sizes may round differently.
    assert np.abs(again.astype(int) - evaluated[chosen]).max() <= 1


def test_a_row_of_interpolations_keeps_its_class():
    labels = np.array([0, 2, 2, 0])
    sampler = samples.Sampler(make_generator(3), n=4, seed=0, labels=labels)
    assert sampler.row_labels(3).tolist() == [0, 2, 0]
    assert sampler.interpolations(3, columns=5).shape == (15, 8, 8, 1)


def test_slerp_goes_from_end_to_end_on_the_sphere():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    path = samples.slerp(a, b, 5)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    torch.testing.assert_close(path.norm(dim=1), torch.full((5,), 3.0))
    torch.testing.assert_close(path[2], torch.tensor([4.5, 4.5]).sqrt())


def test_rows_hold_the_first_images_of_each_class():
    labels = np.array([1, 0, 1, 1, 0, 4])
    rows = samples.rows_by_class(labels, 2)
    assert {k: v.tolist() for k, v in rows.items()} == {0: [1, 4], 1: [0, 2], 4: [5]}


def test_shown_samples_go_through_the_classes_in_turn():
    labels = np.array([1, 1, 0, 2, 0, 2])
    assert samples.one_a_class(labels, 4, 6).tolist() == [2, 0, 3, 4]
    assert samples.one_a_class(None, 4, 3).tolist() == [0, 1, 2]


def test_nearest_agrees_with_all_distances_computed():
    rng = np.random.default_rng(0)
    queries, references = (
        rng.normal(5, 1, (300, 6)).astype("f"),
        rng.normal(5, 1, (40, 6)).astype("f"),
    )
    distances = np.linalg.norm(queries[:, None] - references, axis=2)
    found, least = samples.nearest(queries, references, 3)
    assert (found == distances.argsort(axis=1)[:, :3]).all()
    np.testing.assert_allclose(least, np.sort(distances, axis=1)[:, :3], rtol=1e-4)
    np.testing.assert_allclose(
        samples.nearest_distance(queries, references), distances.min(axis=1), rtol=1e-3
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_is_cut_from_a_training_grid_column_by_column(tmp_path: Path, channels):
    images = np.random.default_rng(0).integers(0, 256, (30, 6, 6, channels), dtype=np.uint8)
    save_grid(tmp_path / "grid.png", images, 10)
    cut = samples.strip(tmp_path / "grid.png", image_size=6, n=4)
    assert (cut == images[[0, 10, 20, 1]]).all()


def test_moments_are_the_first_the_last_and_more_early_than_late_ones(tmp_path: Path):
    for step in range(1, 101):
        (tmp_path / f"step_{step * 50:06d}.png").touch()
    steps = [step for step, _ in samples.moments(tmp_path, 5)]
    assert steps[0] == 50
    assert steps[-1] == 5000
    assert (np.diff(np.diff(steps)) > 0).all()
    assert samples.moments(tmp_path / "none", 5) == []


def test_large_images_are_shown_smaller_and_small_ones_in_whole_pixels():
    small = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    assert (samples.fit(small)[:, ::10, ::10] == small).all()
    assert samples.fit(np.zeros((2, 256, 256, 3), np.uint8)).shape == (2, 128, 128, 3)
    assert samples.fit(np.zeros((2, 200, 200, 1), np.uint8)).shape == (2, 128, 128, 1)
