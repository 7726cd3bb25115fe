"""Listeners: grids from fixed latents, and the stop at divergence."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.networks.build import build
from pipeline.training import callbacks


def state(step: int) -> Any:
    generator, _ = build(
        "mlp",
        shape=(28, 28, 1),
        latent_dim=4,
        n_classes=3,
        width=4,
        spectral_norm=False,
        seed=0,
    )
    return SimpleNamespace(step=step, ema=generator.eval())


def test_grids_show_the_same_latents_at_every_look_one_class_a_row(tmp_path: Path) -> None:
    seen: list[int] = []
    grids = callbacks.Grids(
        tmp_path / "grids",
        latent_dim=4,
        labels=callbacks.grid_labels(3),
        seed=0,
        on_file=lambda step, path: seen.append(step),
    )
    grids.write(state(0))
    grids.on_eval(state(500), {})
    first, second = (Image.open(tmp_path / f"grids/step_{step:06d}.png") for step in (0, 500))
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert first.width > 3 * first.height  # 10 columns, 3 rows
    assert seen == [0, 500]


def test_points_are_drawn_over_real_ones(tmp_path: Path) -> None:
    generator, _ = build(
        "points", shape=(2,), latent_dim=2, n_classes=0, width=4, spectral_norm=False, seed=0
    )
    reals = np.random.default_rng(0).normal(size=(50, 2))
    grids = callbacks.Grids(
        tmp_path, latent_dim=2, labels=None, seed=0, on_file=lambda *_: None, beneath=reals
    )
    grids.write(SimpleNamespace(step=5, ema=generator.eval()))  # type: ignore[arg-type]
    with Image.open(tmp_path / "step_000005.png") as image:
        assert image.width == image.height
    assert len(grids.latents) == callbacks.POINTS


def test_real_images_fill_the_same_grid() -> None:
    labels = np.repeat([2, 0, 1], 12)
    images = labels.astype(np.uint8).reshape(-1, 1, 1, 1)
    chosen = callbacks.reals_for_grid(images, labels, 3)
    assert chosen.flatten().tolist() == callbacks.grid_labels(3).tolist()
    assert len(callbacks.reals_for_grid(images, None, 0)) == 36
    few = callbacks.reals_for_grid(images[:25], labels[:25], 3)  # one image of class 1 is left
    assert few.flatten().tolist() == [0] * 10 + [1] + [255] * 9 + [2] * 10


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_stops_the_training(value: float) -> None:
    watch = callbacks.StopOnDivergence()
    watch.on_step(state(1), {"loss_d": 1.0})
    with pytest.raises(UserError, match=r"loss_d not finite at step 7.*train\.lr_g"):
        watch.on_step(state(7), {"loss_g": 1.0, "loss_d": value})
