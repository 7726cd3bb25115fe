"""Every recipe learns: a short training of narrow networks on real digits moves G towards them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import config, presets
from pipeline.datasets.mnist5k import open_mnist5k
from pipeline.sampling import class_labels, sample_images
from pipeline.training import recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "presets"
NAMES = [
    name
    for name in presets.names(FOLDER)
    if "data" not in config.read_yaml(FOLDER / f"{name}.yaml")
]
SHORT = {"steps": 150, "batch_size": 32, "ema_decay": 0.9, "eval_every": 150, "precision": "fp32"}
NARROW = {"width": 8, "latent_dim": 16}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    source = open_mnist5k(Path(), Path())
    chosen = np.random.default_rng(0).permutation(len(source))[:2000]
    return source.images[chosen][..., None], source.labels[chosen].astype(np.int64)


def distance(samples: np.ndarray, reals: np.ndarray) -> float:
    """Squared distance of the pixels' means and deviations."""
    ours, theirs = (x.reshape(len(x), -1) / 255 for x in (samples, reals))
    return float(
        np.square(ours.mean(axis=0) - theirs.mean(axis=0)).sum()
        + np.square(ours.std(axis=0) - theirs.std(axis=0)).sum()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_learns(name: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    values = presets.merged(presets.overlay("default", FOLDER), presets.overlay(name, FOLDER))
    values = presets.merged(values, {"train": SHORT})
    if values["model"]["name"] != "mlp":
        values = presets.merged(values, {"model": NARROW})
    params = config.check(values)
    n_classes = 10 if params.model.conditional else 0
    device = torch.device("cpu")
    task = recipe.make_task(params, images, labels, device)
    state = recipe.make_state(params, shape=(28, 28, 1), n_classes=n_classes, device=device)
    wanted = class_labels([1] * 10, 500, 0) if n_classes else None

    def seen(generator: nn.Module) -> float:
        return distance(sample_images(generator, n=500, seed=0, labels=wanted), images)

    before = seen(state.ema)
    recipe.run(
        params,
        state,
        task,
        precision=torch.float32,
        evaluate=lambda generator: {"fd": seen(generator)},
        save=lambda state: None,
    )
    assert state.history[-1]["eval_fd"] < 0.5 * before
    assert all(np.isfinite(value) for row in state.history for value in row.values())
