"""Weights that a training starts from: those of an earlier one, or of a registered model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline import files
from pipeline.errors import ConfigError

# Where a folder may hold the generator and its configuration, a training's or a package's.
GENERATORS = ("best.safetensors", "generator.safetensors")


@dataclass(frozen=True)
class Start:
    """Weights by name, of D None where none were kept; `digest` is that of their files."""

    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor] | None
    config: dict[str, Any]
    digest: str


def read(folder: Path) -> Start:
    """Find a generator in `folder` or anywhere below it, and the discriminator kept beside it.

    Raises ConfigError where there is none, or more than one.
    """
    from safetensors.torch import load_file

    found = [path for name in GENERATORS for path in sorted(folder.rglob(name))]
    if len(found) != 1:
        what = "no generator" if not found else f"{len(found)} generators"
        raise ConfigError(
            f"model.init_from: {folder} holds {what}; name the folder of one training "
            "(models/generator, or one that holds it) or of one model"
        )
    beside = found[0].parent.with_name("discriminator") / "last.safetensors"
    hashes = [files.file_hash(path) for path in (found[0], beside) if path.is_file()]
    return Start(
        load_file(found[0]),
        load_file(beside) if beside.is_file() else None,
        files.read_json(found[0].with_name("config.json")),
        files.json_hash(hashes),
    )


def load_into(network: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Load `weights` into `network`. Raises ConfigError, naming what differs, where shapes do."""
    own = network.state_dict()
    wrong = [
        f"{name} is {_shape(weights.get(name))} there and {_shape(own.get(name))} here"
        for name in sorted(own.keys() | weights.keys())
        if _shape(weights.get(name)) != _shape(own.get(name))
    ]
    if wrong:
        raise ConfigError(
            f"model.init_from: its {what} is another network: {wrong[0]}"
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            + "; set model.* and data.* as they were there"
        )
    network.load_state_dict(weights)


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{list(tensor.shape)}"
