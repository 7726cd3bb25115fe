"""What a training leaves in models/: both networks, and what is needed to load and to name them."""

from __future__ import annotations

from typing import Any

from pipeline import paths
from pipeline.config import Params
from pipeline.datasets import prepared
from pipeline.networks.build import save_discriminator, save_generator
from pipeline.training import recipe
from pipeline.training.state import State, weights_of


def write_generator(
    state: State, params: Params, data: prepared.Prepared, key: str
) -> dict[str, Any]:
    """models/generator: both checkpoints and what is needed to load and to name them."""
    assert state.best_weights is not None
    n_classes = data.n_classes if params.model.conditional else 0
    return save_generator(
        paths.GENERATOR,
        {
            "train_key": key,
            "generator": recipe.generator_config(params, data.shape, n_classes),
            "n_classes": n_classes,
            "class_names": data.class_names,
            "class_counts": data.manifest["splits"]["train"]["class_counts"],
            "data_name": data.name,
            "data_digest": data.digest,
            "best_step": state.best_step,
            "last_step": state.step,
        },
        {"best": state.best_weights, "last": weights_of(state.ema)},
    )


def write_discriminator(state: State, params: Params, data: prepared.Prepared, key: str) -> None:
    """models/discriminator: what `gan sample --reject` and a later training need of D."""
    n_classes = data.n_classes if params.model.conditional else 0
    arguments = recipe.generator_config(params, data.shape, n_classes)
    save_discriminator(
        paths.DISCRIMINATOR,
        {
            "train_key": key,
            "discriminator": {**arguments, **recipe.discriminator_config(params)},
            "batch_size": params.train.batch_size,  # D may compare the samples of a batch
        },
        weights_of(state.discriminator),
    )
