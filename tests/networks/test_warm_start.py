"""Starting from earlier weights: found, checked, loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import config
from pipeline.errors import ConfigError
from pipeline.networks import warm_start
from pipeline.networks.build import load_discriminator, save_discriminator, save_generator
from pipeline.presets import merged, overlay
from pipeline.training import recipe
from pipeline.training.state import State, weights_of

ROOT = Path(__file__).parents[2]
PLAIN = merged(config.read_yaml(ROOT / "params.yaml"), overlay("dcgan", ROOT / "presets"))


def params(**model: Any) -> config.Params:
    return config.check(merged(PLAIN, {"model": {"width": 4, "latent_dim": 4, **model}}))


def state(chosen: config.Params) -> State:
    return recipe.make_state(chosen, shape=(28, 28, 1), n_classes=0, device=torch.device("cpu"))


def kept(folder: Path, chosen: config.Params) -> State:
    """A training's outs."""
    trained = state(chosen)
    with torch.no_grad():
        for parameter in trained.ema.parameters():
            parameter += 1
    about = recipe.generator_config(chosen, (28, 28, 1), 0)
    weights = weights_of(trained.ema)
    save_generator(folder / "generator", {"generator": about}, {"best": weights, "last": weights})
    arguments = {**about, **recipe.discriminator_config(chosen)}
    save_discriminator(
        folder / "discriminator", {"discriminator": arguments}, weights_of(trained.discriminator)
    )
    return trained


@pytest.mark.parametrize("named", ["generator", "."])
def test_both_networks_start_where_the_training_ended(tmp_path: Path, named: str) -> None:
    before = kept(tmp_path, params())
    start = warm_start.read(tmp_path / named)
    after = state(params(init_from=str(tmp_path)))
    recipe.warm_start(after, start)
    for ours, theirs in ((after.generator, before.ema), (after.ema, before.ema),
                         (after.discriminator, before.discriminator)):  # fmt: skip
        there = theirs.state_dict()
        assert all(torch.equal(value, there[key]) for key, value in ours.state_dict().items())


def test_without_a_discriminator_the_generator_starts_alone(tmp_path: Path) -> None:
    kept(tmp_path, params())
    (tmp_path / "discriminator/last.safetensors").unlink()
    assert warm_start.read(tmp_path).discriminator is None


def test_other_shapes_are_refused_by_name(tmp_path: Path) -> None:
    kept(tmp_path, params())
    start = warm_start.read(tmp_path)
    with pytest.raises(ConfigError, match=r"generator is another network: .* there and .* here"):
        recipe.warm_start(state(params(width=8)), start)
    with pytest.raises(ConfigError, match=r"model\.init_from"):
        recipe.warm_start(state(params(name="mlp")), start)


def test_a_folder_without_one_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no generator"):
        warm_start.read(tmp_path)
    kept(tmp_path / "one", params())
    kept(tmp_path / "two", params())
    with pytest.raises(ConfigError, match="2 generators"):
        warm_start.read(tmp_path)


def test_other_weights_have_another_digest(tmp_path: Path) -> None:
    kept(tmp_path / "one", params())
    kept(tmp_path / "two", params(latent_dim=5))
    first, second = (warm_start.read(tmp_path / name) for name in ("one", "two"))
    assert first.digest != second.digest


@pytest.mark.parametrize(
    "model",
    [{}, {"pack": 2, "dropout": 0.2}, {"name": "progressive", "spectral_norm": False}],
    ids=["dcgan", "packed", "progressive"],
)
def test_a_kept_discriminator_judges_as_it_did(tmp_path: Path, model: dict[str, Any]) -> None:
    trained = kept(tmp_path, params(**model)).discriminator.eval()
    loaded, about = load_discriminator(tmp_path / "discriminator")
    images = torch.rand(4, about["discriminator"]["pack"], 28, 28)
    torch.testing.assert_close(loaded(images), trained(images))
