from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.networks.build import build, load_generator, save_generator
from pipeline.registry import package
from pipeline.sampling import class_labels, sample_images
from pipeline.training.state import weights_of
from tests.tracking.conftest import empty_store, quick_store  # noqa: F401

SHAPE = (28, 28, 1)


def write_generator(
    folder: Path,
    *,
    n_classes: int = 0,
    shape: tuple[int, ...] = SHAPE,
    seed: int = 0,
    name: str = "",
) -> dict[str, Any]:
    """An untrained generator as the train stage writes one; `name` of its network, or by shape."""
    name = name or ("dcgan" if len(shape) == 3 else "points")
    arguments = {
        "name": name,
        "shape": list(shape),
        "latent_dim": 8,
        "n_classes": n_classes,
        "width": 8,
    }
    generator, _ = build(**arguments, spectral_norm=False, seed=seed)
    config = {
        "train_key": f"{seed}" * 64,
        "generator": arguments,
        "n_classes": n_classes,
        "class_names": [f"digit {k}" for k in range(10)],
        "class_counts": [350] * 5 + [200] * 5,
        "data_name": "mnist5k",
        "data_digest": "d" * 64,
        "best_step": 1,
        "last_step": 2,
    }
    weights = weights_of(generator)
    return save_generator(folder, config, {"best": weights, "last": weights})


def write_package(
    root: Path, *, n: int = 40, seed: int = 0, eval_key: str = "e" * 64, **of_generator: Any
) -> Path:
    """A package that loads and samples, beside its generator."""
    config = write_generator(root / "generator", **of_generator)
    generator, _ = load_generator(root / "generator", which="best")
    labels = class_labels(config["class_counts"], n, seed) if config["n_classes"] else None
    samples = sample_images(generator, n=n, seed=seed, labels=labels)
    package.write(
        root / "package",
        root / "generator",
        which="best",
        eval_key=eval_key,
        samples=samples,
        seed=seed,
        batch_size=500,
        device="cpu",
    )
    return root / "package"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a store of its own."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def kept_packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Packages by their arguments, each written once; not to be changed."""
    made: dict[tuple[tuple[str, Any], ...], Path] = {}

    def get(**arguments: Any) -> Path:
        key = tuple(sorted(arguments.items()))
        if key not in made:
            made[key] = write_package(tmp_path_factory.mktemp("package"), **arguments)
        return made[key]

    return get


@pytest.fixture
def copied(kept_packages: Callable[..., Path], tmp_path: Path) -> Path:
    """A package to be damaged."""
    shutil.copytree(kept_packages(), tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
