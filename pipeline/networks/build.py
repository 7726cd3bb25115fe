"""Building networks by name, and generators from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.errors import UserError
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
    conditioning: str = "auto",
    pack: int = 1,
    **head: Any,
) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator with weights drawn from `seed`.

    `shape` is that of one stored sample: (H, W, C) of an image, (D,) of a point. How D learns of
    the class: `conditioning`, `auto` for the network's own way. D judges `pack` samples together.
    `head` are arguments of heads.Head.
    """
    generator, discriminator = NETWORKS[name]
    samples: dict[str, Any] = {"shape": shape, "n_classes": n_classes}
    packed: dict[str, Any] = {**samples, "shape": [*shape[:-1], shape[-1] * pack], **head}
    if conditioning != "auto":
        packed["conditioning"] = conditioning
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (
            generator(latent_dim=latent_dim, width=width, **samples),
            discriminator(width=width, spectral_norm=spectral_norm, **packed),
        )


def load_generator(folder: Path, *, which: str) -> tuple[nn.Module, dict[str, Any]]:
    """The `best` or the `last` generator of a training, in eval mode, and its configuration.

    Raises UserError where the folder holds no trained generator.
    """
    from safetensors.torch import load_file

    try:
        config = files.read_json(folder / "config.json")
        weights = load_file(folder / f"{which}.safetensors")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro train`") from None
    generator = generator_from(config, weights)
    return generator, config


def save_generator(
    folder: Path, config: dict[str, Any], weights: dict[str, dict[str, Tensor]]
) -> dict[str, Any]:
    """Write what `load_generator` reads: for each of `weights`, `best` and `last`, a file.

    Returns `config` with the files' hashes under "weights".
    """
    from safetensors.torch import save as to_bytes

    with files.atomic_folder(folder) as out:
        for which, tensors in weights.items():
            files.write_bytes(out / f"{which}.safetensors", to_bytes(tensors))
        hashes = {which: files.file_hash(out / f"{which}.safetensors") for which in weights}
        config = {**config, "weights": hashes}
        files.write_json(out / "config.json", config)
    return config


def save_discriminator(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Write what `load_discriminator` reads: what a training kept of D at its end."""
    from safetensors.torch import save as to_bytes

    with files.atomic_folder(folder) as out:
        files.write_bytes(out / "last.safetensors", to_bytes(weights))
        hashes = {"last": files.file_hash(out / "last.safetensors")}
        files.write_json(out / "config.json", {**config, "weights": hashes})


def load_discriminator(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The discriminator of a training, in eval mode, and its configuration.

    Raises UserError where the folder holds none.
    """
    from safetensors.torch import load_file

    try:
        config = files.read_json(folder / "config.json")
        weights = load_file(folder / "last.safetensors")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro train`") from None
    _, discriminator = build(**config["discriminator"], seed=0)
    discriminator.load_state_dict(weights)
    return discriminator.eval().requires_grad_(False), config


def generator_from(config: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The generator that `config["generator"]` describes, with these weights, in eval mode."""
    arguments = dict(config["generator"])
    generator = NETWORKS[arguments.pop("name")][0](**arguments)
    generator.load_state_dict(weights)
    return generator.eval().requires_grad_(False)
