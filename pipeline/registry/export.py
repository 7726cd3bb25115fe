"""A generator for other runtimes: ONNX, TorchScript, torch.export; each checked against torch.

An exported file takes latent vectors (N, latent_dim) float32 and, where the model has classes,
labels (N,) int64; it gives images (N, C, H, W) in [-1, 1], or points (N, D). N is free.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import files, outputs
from pipeline.errors import UserError
from pipeline.networks.build import generator_from, load_generator
from pipeline.registry import package, trained
from pipeline.sampling import class_labels, generate, latents

TOLERANCE = 1e-4  # of values in [-1, 1]; a gray level is 8e-3
CHECKED, TRACED = 5, 3  # batches of different sizes: N must be free
SEED = 1

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Exported:
    """`difference` is the largest one from torch's own output, on latent vectors not exported."""

    path: Path
    format: str
    difference: float


def load(source: Path) -> tuple[nn.Module, dict[str, Any], str]:
    """Generator, configuration and weights' hash of a training's folder (its best) or a package.

    Raises UserError where it is neither, or the network here is no longer that of the package.
    """
    trained.check(source, ("config.json", "best.safetensors"), (package.CONFIG, package.WEIGHTS))
    if (source / "config.json").is_file():
        generator, config = load_generator(source, which="best")
        return generator, config, config["weights"]["best"]
    from safetensors.torch import load_file

    config = package.read_config(source)
    generator = generator_from(config, load_file(source / package.WEIGHTS))
    first, sampled = np.load(source / package.FIRST), config["sampled"]
    vectors = latents(sampled["n"], config["generator"]["latent_dim"], sampled["seed"])
    labels = None
    if config["n_classes"]:
        labels = class_labels(config["class_counts"], sampled["n"], sampled["seed"])[: len(first)]
    again = generate(generator, vectors[: len(first)], labels)
    if np.abs(again.astype(float) - first).max() > (2 if again.ndim == 4 else TOLERANCE):
        raise UserError(
            f"the networks here are no longer those that {source} was made with: "
            "check out its commit (gan verify says which)"
        )
    return generator, config, config["weights"]["generator"]


def export(source: Path, path: Path, format: str) -> Exported:
    """Write `path`, and facts.json's content beside it as PATH.json.

    Raises UserError where the result differs from torch's by more than 1e-4, or where what the
    format needs is not installed.
    """
    generator, config, weights = load(source)
    wrapped = _Plain(generator, bool(config["n_classes"])).eval()
    write, run = FORMATS[format]
    outputs.make_folder(path.parent)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            write(wrapped, _inputs(config, TRACED), path)
            inputs = _inputs(config, CHECKED)
            wanted = wrapped(*inputs).numpy()
            found = run(path, inputs)
        except ImportError as error:
            raise UserError(
                f"{error.name} is missing: pip install 'gan-pipeline[export]'"
            ) from None
    difference = float(np.abs(found - wanted).max())
    if difference > TOLERANCE:
        path.unlink()
        raise UserError(
            f"the {format} file's output differs from torch's by up to {difference:.2g}, more than "
            f"{TOLERANCE:g}: it was removed"
        )
    files.write_json(
        path.with_name(f"{path.name}.json"),
        {
            "format": format,
            "weights": weights,
            "train_key": config["train_key"],
            "inputs": NAMES[: len(inputs)],
            "latent_dim": config["generator"]["latent_dim"],
            "class_names": config["class_names"] if config["n_classes"] else None,
            "output": "images (N, C, H, W) in [-1, 1]" if wanted.ndim == 4 else "points (N, D)",
            "largest_difference": difference,
            "torch": torch.__version__,
        },
    )
    return Exported(path, format, difference)


class _Plain(nn.Module):
    """A forward of tensors alone."""

    def __init__(self, generator: nn.Module, labelled: bool) -> None:
        super().__init__()
        self.generator, self.labelled = generator, labelled

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.generator(latents, labels)


def _inputs(config: dict[str, Any], n: int) -> Inputs:
    vectors = latents(n, config["generator"]["latent_dim"], SEED + n)
    if not config["n_classes"]:
        return (vectors,)
    return vectors, torch.arange(n) % config["n_classes"]


def _dynamic(inputs: Inputs) -> dict[str, dict[int, Any]]:
    batch = torch.export.Dim("n", min=1, max=100_000)
    return {name: {0: batch} for name in NAMES[: len(inputs)]}


def _write_onnx(model: nn.Module, inputs: Inputs, path: Path) -> None:
    torch.onnx.export(
        model,
        inputs,
        str(path),
        input_names=NAMES[: len(inputs)],
        output_names=["samples"],
        dynamic_shapes=_dynamic(inputs),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _run_onnx(path: Path, inputs: Inputs) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {
        name: tensor.numpy() for name, tensor in zip(NAMES[: len(inputs)], inputs, strict=True)
    }
    result: np.ndarray = session.run(None, given)[0]
    return result


def _write_torchscript(model: nn.Module, inputs: Inputs, path: Path) -> None:
    torch.jit.trace(model, inputs, check_trace=False).save(str(path))


def _run_torchscript(path: Path, inputs: Inputs) -> np.ndarray:
    return torch.jit.load(str(path))(*inputs).numpy()


def _write_program(model: nn.Module, inputs: Inputs, path: Path) -> None:
    torch.export.save(torch.export.export(model, inputs, dynamic_shapes=_dynamic(inputs)), path)


def _run_program(path: Path, inputs: Inputs) -> np.ndarray:
    return torch.export.load(path).module()(*inputs).numpy()


NAMES = ["latents", "labels"]
FORMATS: dict[
    str,
    tuple[Callable[[nn.Module, Inputs, Path], None], Callable[[Path, Inputs], np.ndarray]],
] = {
    "onnx": (_write_onnx, _run_onnx),
    "torchscript": (_write_torchscript, _run_torchscript),
    "torch-export": (_write_program, _run_program),
}
SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "torch-export": ".pt2"}
