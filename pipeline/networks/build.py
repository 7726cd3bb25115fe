"""Building networks by name, and generators from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.networks import NETWORKS


def build(
    name: str,
    *,
    shape: Sequence[int],
    latent_dim: int,
    n_classes: int,  # 0: unconditional
    width: int,
    spectral_norm: bool,
    seed: int,
) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator with weights drawn from `seed`.

    `shape` is that of one stored sample: (H, W, C) of an image, (D,) of a point.
    """
    generator, discriminator = NETWORKS[name]
    samples: dict[str, Any] = {"shape": shape, "n_classes": n_classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (
            generator(latent_dim=latent_dim, width=width, **samples),
            discriminator(width=width, spectral_norm=spectral_norm, **samples),
        )


def load_generator(folder: Path, *, which: str) -> tuple[nn.Module, dict[str, Any]]:
    """The `best` or the `last` generator of a training, in eval mode, and its configuration.

    Raises UserError where the folder holds no trained generator.
    """
    from safetensors.torch import load_file

    try:
        config = read_json(folder / "config.json")
        weights = load_file(folder / f"{which}.safetensors")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro train`") from None
    generator = generator_from(config, weights)
    return generator, config


def generator_from(config: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The generator that `config["generator"]` describes, with these weights, in eval mode."""
    arguments = dict(config["generator"])
    generator = NETWORKS[arguments.pop("name")][0](**arguments)
    generator.load_state_dict(weights)
    return generator.eval().requires_grad_(False)
