"""A package brings all that it needs, and says so where something of it is changed."""

import io
import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import files
from pipeline.errors import UserError
from pipeline.networks import warm_start
from pipeline.registry import fresh, package, provenance


def test_it_holds_code_weights_and_json_and_no_pickle(kept_packages) -> None:
    folder = kept_packages()
    endings = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert endings <= {".py", ".safetensors", ".json", ".yaml", ".txt", ".npy", ""}
    model = (folder / "MLmodel").read_text()
    assert "/tmp" not in model
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in model
    for row in ("n", "seed", "label", "truncation", "format"):
        assert f'"{row}"' in model
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert f"safetensors=={version('safetensors')}" in requirements
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in requirements)
    assert json.loads((folder / "input_example.json").read_text()) == package.EXAMPLE


def test_the_code_that_travels_is_all_that_it_imports_of_the_pipeline() -> None:
    names = package.code_files()
    assert "sampling.py" in names
    assert "networks/dcgan.py" in names
    assert not [name for name in names if name.startswith(("tracking", "stages", "training"))]


@pytest.mark.parametrize("n_classes", [0, 10])
def test_a_fresh_process_samples_what_was_evaluated(kept_packages, n_classes: int) -> None:
    folder = kept_packages(n_classes=n_classes, n=700)  # more than a batch
    sampled = package.read_config(folder)["sampled"]
    samples, labels = fresh.sample(folder, n=sampled["n"], seed=sampled["seed"])
    assert package.samples_hash(samples) == sampled["sha256"]
    assert (labels is not None) == bool(n_classes)


def test_points_too(kept_packages) -> None:
    folder = kept_packages(shape=(2,))
    sampled = package.read_config(folder)["sampled"]
    samples, _ = fresh.sample(folder, n=sampled["n"], seed=sampled["seed"])
    assert samples.shape == (40, 2)
    assert package.samples_hash(samples) == sampled["sha256"]


def test_damage_is_named(copied: Path) -> None:
    assert package.damage(copied) == []
    (copied / package.FIRST).unlink()
    (copied / "code" / "pipeline" / "sampling.py").write_text("")
    (copied / "code" / "pipeline" / "more.py").write_text("")
    assert package.damage(copied) == [
        "artifacts/model/first.npy is missing",
        "code/pipeline/sampling.py has changed",
        "code/pipeline/more.py was added",
    ]


def test_changed_weights_are_refused_where_they_are_loaded(copied: Path) -> None:
    weights = copied / package.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"does not load in a fresh process.*has changed since"):
        fresh.sample(copied, n=1, seed=0)


def test_another_version_of_the_code_in_one_process_is_refused(copied: Path) -> None:
    from mlflow.exceptions import MlflowException

    with package.quiet():
        import mlflow.pyfunc

        mlflow.pyfunc.load_model(str(copied))  # the same code as here
        with (copied / "code" / "pipeline" / "sampling.py").open("a") as file:
            file.write("# newer\n")
        with pytest.raises(MlflowException, match=r"pipeline/sampling\.py.*process of its own"):
            mlflow.pyfunc.load_model(str(copied))


def test_a_training_can_start_from_it(kept_packages) -> None:
    start = warm_start.read(kept_packages())
    assert start.config["generator"]["name"] == "dcgan"


def test_the_same_evaluation_gives_the_same_hashes(kept_packages, tmp_path: Path) -> None:
    from tests.registry.conftest import write_package

    again = write_package(tmp_path)
    assert files.read_json(again / package.HASHES) == files.read_json(
        kept_packages() / package.HASHES
    )


def test_a_png_says_where_it_came_from(rng) -> None:
    origin = provenance.Origin("gan-x/3", "a" * 64, "r" * 32, 7, 11, 20, 'a "label" & <more>', 0.5)
    for channels in (1, 3):
        picture = rng.integers(256, size=(9, 5, channels), dtype=np.uint8)
        image = Image.open(io.BytesIO(provenance.png(picture, origin)))
        assert np.array_equal(np.asarray(image).reshape(picture.shape), picture)
        packet = image.info[provenance.KEYWORD]
        assert "trainedAlgorithmicMedia" in packet
        assert provenance.parse(packet) == origin
    assert provenance.parse("<x/>") is None
    assert provenance.parse("not XML") is None
