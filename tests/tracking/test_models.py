"""Weights of a registered model, from the store to a training's start."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from pipeline.networks import warm_start
from pipeline.networks.build import build, save_generator
from pipeline.tracking import models, store
from pipeline.training.state import weights_of


@pytest.mark.usefixtures("quick_store")
def test_a_registered_model_is_what_a_training_starts_from(tmp_path: Path) -> None:
    import mlflow

    about = {"shape": [28, 28, 1], "latent_dim": 4, "n_classes": 0, "width": 4}
    generator, _ = build("mlp", **about, spectral_norm=False, seed=1)
    weights = weights_of(generator)
    save_generator(tmp_path / "model/generator", {"generator": about}, {"best": weights})
    mlflow.set_tracking_uri(store.uri())
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "model"), "model")
    client = mlflow.MlflowClient()
    client.create_registered_model("gan-x")
    client.create_model_version("gan-x", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("gan-x", "champion", "1")

    start = warm_start.read(models.fetch("models:/gan-x@champion"))
    assert start.generator.keys() == weights.keys()
    assert all(torch.equal(start.generator[name], weight) for name, weight in weights.items())


@pytest.mark.usefixtures("quick_store")
def test_a_model_that_does_not_exist_is_a_message() -> None:
    with pytest.raises(UserError, match=r"models:/gan-y@champion cannot be fetched"):
        models.fetch("models:/gan-y@champion")
