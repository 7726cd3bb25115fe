"""Sampling: reproducible, and the same whatever the batch size."""

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.networks.build import build
from pipeline.sampling import class_labels, draw, latents, requested_labels, sample_images, to_uint8


def generator(n_classes: int = 3) -> torch.nn.Module:
    return build(
        "dcgan",
        shape=(28, 28, 1),
        latent_dim=8,
        n_classes=n_classes,
        width=4,
        spectral_norm=False,
        seed=0,
    )[0].eval()


def test_images_are_a_function_of_seed_and_labels() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    first = sample_images(generator(), n=5, seed=1, labels=labels)
    assert first.shape == (5, 28, 28, 1)
    assert first.dtype == np.uint8
    assert np.array_equal(first, sample_images(generator(), n=5, seed=1, labels=labels))
    assert not np.array_equal(first, sample_images(generator(), n=5, seed=2, labels=labels))
    assert not np.array_equal(
        first, sample_images(generator(), n=5, seed=1, labels=labels[::-1].copy())
    )


def test_batch_size_changes_nothing_that_can_be_seen() -> None:
    whole = sample_images(generator(0), n=7, seed=0, batch_size=7)
    parts = sample_images(generator(0), n=7, seed=0, batch_size=2)
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= 1


def test_progress_hears_of_every_batch() -> None:
    heard: list[int] = []
    sample_images(generator(0), n=7, seed=0, batch_size=3, on_batch=heard.append)
    assert heard == [3, 3, 1]


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    short = sample_images(generator(0), n=3, seed=0)
    long = sample_images(generator(0), n=6, seed=0)
    assert np.abs(short.astype(int) - long[:3].astype(int)).max() <= 1


def test_rounding_to_bytes_is_to_nearest_and_bounded() -> None:
    values = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5)
    assert to_uint8(values).flatten().tolist() == [0, 0, 128, 255, 255]


def test_class_labels_meet_the_proportions_exactly() -> None:
    labels = class_labels([5, 3, 2], 100, seed=0)
    assert np.bincount(labels).tolist() == [50, 30, 20]
    assert np.bincount(class_labels([1, 1, 1], 10, seed=0)).sum() == 10
    assert not np.array_equal(labels, np.sort(labels))


def test_requested_labels() -> None:
    names = ["cat", "dog", "7"]
    assert requested_labels(4, 3, names, None).tolist() == [0, 1, 2, 0]  # type: ignore[union-attr]
    assert requested_labels(2, 3, names, "dog").tolist() == [1, 1]  # type: ignore[union-attr]
    assert requested_labels(2, 3, names, "7").tolist() == [2, 2]  # type: ignore[union-attr]
    assert requested_labels(2, 0, None, None) is None
    with pytest.raises(ConfigError, match="choose from cat, dog"):
        requested_labels(1, 3, names, "cow")
    with pytest.raises(ConfigError, match="without classes"):
        requested_labels(1, 0, None, "cat")


def test_points_are_not_rounded() -> None:
    generator, _ = build(
        "points", shape=(2,), latent_dim=2, n_classes=0, width=8, spectral_norm=False, seed=0
    )
    points = sample_images(generator.eval(), n=50, seed=0, batch_size=20)
    assert (points.shape, points.dtype) == ((50, 2), np.float32)
    with torch.no_grad():
        expected = generator(latents(50, 2, 0)).numpy()
    np.testing.assert_allclose(points, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "stylegan2"])
def test_truncation_brings_samples_nearer_to_each_other(name: str) -> None:
    generator, _ = build(
        name,
        shape=(28, 28, 1),
        latent_dim=4,
        n_classes=0,
        width=8,
        spectral_norm=False,
        seed=0,
    )
    generator.eval()
    vectors = latents(20, 4, 0)
    spreads = [
        draw(generator, vectors, None, truncation=psi).std(dim=0).mean() for psi in (1.0, 0.5, 0.01)
    ]
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 0.1 * spreads[0]
