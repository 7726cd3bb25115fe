"""A generator as an MLflow model: code that travels with it, safetensors, a JSON configuration.

Written by the evaluate stage as an out, so that it holds the very code and weights that were
evaluated, and can be delivered later.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.tracking import models, store

PACKAGE_ROOT = Path(__file__).parents[1]
MODEL_CODE = "registry/model_code.py"
LIBRARIES = ("mlflow", "numpy", "pillow", "pydantic", "safetensors", "torch")
MODEL = models.CONFIG.parent  # generator.safetensors, config.json, first.npy
CONFIG = models.CONFIG
WEIGHTS = MODEL / "generator.safetensors"
FIRST = MODEL / "first.npy"
FIRST_SAMPLES = 16
HASHES = "hashes.json"
# MLmodel gets the run's and the model's id when it is logged; MLflow adds the other to a download.
UNHASHED = (HASHES, "MLmodel", "registered_model_meta")
EXAMPLE = [{"n": 4, "seed": 0}]


def write(
    folder: Path,
    generator: Path,
    *,
    which: str,
    eval_key: str,
    samples: np.ndarray,
    seed: int,
    batch_size: int,
    device: str,
) -> None:
    """Package the `which` generator of the folder `generator` (as `build.save_generator` wrote it).

    `samples` are those that the evaluation drew with `seed`, in batches of `batch_size`: the
    package must draw them again.
    """
    with quiet():
        from mlflow.pyfunc import save_model

    trained = files.read_json(generator / "config.json")
    weights = generator / f"{which}.safetensors"
    config = {
        **trained,
        "checkpoint": which,
        "weights": {"generator": files.file_hash(weights)},
        "eval_key": eval_key,
        "sampled": {
            "n": len(samples),
            "seed": seed,
            "batch_size": batch_size,
            "device": device,
            "sha256": samples_hash(samples),
        },
    }
    with tempfile.TemporaryDirectory() as scratch, files.atomic_folder(folder) as out:
        model = Path(scratch) / "model"
        model.mkdir()
        shutil.copyfile(weights, model / WEIGHTS.name)
        files.write_json(model / CONFIG.name, config)
        np.save(model / FIRST.name, samples[:FIRST_SAMPLES])
        out.rmdir()  # MLflow makes it
        with quiet():
            save_model(
                out,
                python_model=str(PACKAGE_ROOT / MODEL_CODE),
                artifacts={"model": str(model)},
                code_paths=[str(_copy_code(Path(scratch) / "code"))],
                pip_requirements=[f"{name}=={_pinned(name)}" for name in LIBRARIES],
                input_example=EXAMPLE,
            )
        _leave_out_paths(out)
        files.write_json(out / HASHES, _hashes(out))


def samples_hash(samples: np.ndarray) -> str:
    """SHA-256 of samples as data sets hold them: shape, type and content."""
    digest = hashlib.sha256(f"{samples.shape} {samples.dtype}".encode())
    digest.update(np.ascontiguousarray(samples).tobytes())
    return digest.hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in a package."""
    config: dict[str, Any] = files.read_json(folder / CONFIG)
    return config


def damage(folder: Path) -> list[str]:
    """What in a package is not as it was written, one line a file."""
    try:
        recorded = files.read_json(folder / HASHES)
    except (FileNotFoundError, json.JSONDecodeError):
        return [f"{HASHES} is missing or unreadable"]
    found = _hashes(folder)
    return [
        f"{name} {'has changed' if name in found else 'is missing'}"
        for name in recorded
        if found.get(name) != recorded[name]
    ] + [f"{name} was added" for name in found if name not in recorded]


def code_files(start: str = MODEL_CODE) -> list[str]:
    """Files of the package `pipeline` that `start` imports, itself included, directly or not."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        tree = ast.parse((PACKAGE_ROOT / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
                waiting += _modules(str(node.module), [alias.name for alias in node.names])
    return sorted(reached)


def _modules(module: str, names: list[str]) -> list[str]:
    base = Path(*module.split(".")[1:])
    stems = [base, *(base / name for name in names)]
    candidates = [Path(*base.parts[:i]) / "__init__.py" for i in range(len(base.parts))]
    candidates += [stem / "__init__.py" for stem in stems]
    candidates += [stem.with_suffix(".py") for stem in stems if stem.name]
    return [path.as_posix() for path in candidates if (PACKAGE_ROOT / path).is_file()]


def _copy_code(folder: Path) -> Path:
    target = folder / "pipeline"
    for name in code_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE_ROOT / name, target / name)
    return target


def _pinned(name: str) -> str:
    """The installed version; of 2.15.0+cpu, which no registry has under that name, 2.15.0."""
    return version(name).partition("+")[0]


def _leave_out_paths(folder: Path) -> None:
    """Where it was made is nobody's business, and nobody needs it."""
    from mlflow.models import Model

    model = Model.load(str(folder))
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = Path(MODEL_CODE).name
    flavor["artifacts"]["model"]["uri"] = MODEL.as_posix()
    model.save(str(folder / "MLmodel"))


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): files.file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.name not in UNHASHED
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MLflow's models warn of their own type hints when they are imported, and say much."""
    store.settle()
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
