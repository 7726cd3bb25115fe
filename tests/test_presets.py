"""Presets: each is valid, and using one keeps what it does not set."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import config, lineage, presets
from pipeline.cli import gan
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "presets"
NAMES = list(presets.names(FOLDER))


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def test_the_default_is_the_shipped_file() -> None:
    assert presets.overlay("default", FOLDER) == config.read_yaml(ROOT / "params.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_described_and_valid(name: str, params: Path) -> None:
    assert len(presets.names(FOLDER)[name]) > 20
    presets.use(name, params, FOLDER)
    config.load_params(params)


def test_a_preset_does_not_depend_on_the_one_before() -> None:
    """Each sets the same keys of a recipe as all others, and of data all or none."""
    of_recipe, of_data = set(), set()
    for name in NAMES:
        keys = frozenset(lineage.flatten(presets.overlay(name, FOLDER)))
        recipe = {key for key in keys if key.partition(".")[0] in presets.RECIPE}
        recipe = {key for key in recipe if not key.startswith("loss.terms")}
        if name != "default":
            of_recipe.add(frozenset(recipe))
            of_data.add(frozenset(keys - recipe - {"loss.terms"}))
    assert len(of_recipe) == 1
    assert len({keys for keys in of_data if any(key.startswith("data.") for key in keys)}) == 1


def test_a_recipe_keeps_ones_own_data_and_device(params: Path) -> None:
    params.write_text(params.read_text().replace("device: auto", "device: cpu "))
    changed = presets.use("hinge", params, FOLDER)
    assert "loss.name: non_saturating -> hinge" in changed
    assert config.load_params(params).train.device == "cpu"


@pytest.mark.parametrize("name", NAMES)
def test_using_a_preset_keeps_comments_and_other_keys(name: str, params: Path) -> None:
    own = params.read_text().replace("experiment: gan ", "experiment: mine ")
    params.write_text(own + "# the last word\n")
    before = [line.partition("#")[2] for line in params.read_text().splitlines()]
    presets.use(name, params, FOLDER)
    assert [line.partition("#")[2] for line in params.read_text().splitlines()] == before
    if name != "default":
        assert config.load_params(params).tracking.experiment == "mine"


def test_the_default_brings_the_shipped_file_back_to_the_letter(params: Path) -> None:
    shipped = params.read_text()
    changed = presets.use("ring", params, FOLDER)
    assert "data.source: mnist5k -> ring" in changed
    assert params.read_text() != shipped
    presets.use("default", params, FOLDER)
    assert params.read_text() == shipped
    assert presets.use("default", params, FOLDER) == []


def test_an_invalid_result_leaves_the_file_as_it_was(params: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("# An odd preset, of no use at all.\ntrain:\n  lr_gg: 1\n")
    before = params.read_text()
    with pytest.raises(ConfigError, match=r"train\.lr_gg; did you mean train\.lr_g"):
        presets.use("odd", params, tmp_path)
    assert params.read_text() == before


def test_an_unknown_preset_names_the_nearest(params: Path) -> None:
    with pytest.raises(ConfigError, match="unknown preset 'rng'; did you mean ring"):
        presets.use("rng", params, FOLDER)
    with pytest.raises(ConfigError, match=r"unknown preset 'zzz'\. There are acgan, "):
        presets.use("zzz", params, FOLDER)
    with pytest.raises(ConfigError, match="in the project's folder"):
        presets.text("ring", params.parent / "nowhere")


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("loss", name) for name in ("lsgan", "wgan", "wgan_gp", "rpgan")),
        *(("model", name) for name in ("r3gan", "stylegan2", "progressive")),
    ],
)
def test_what_does_not_go_with_the_default_names_the_preset_that_does(
    section: str, name: str, params: Path
) -> None:
    change = {section: {"name": name}}
    with pytest.raises(ConfigError) as caught:
        config.check(presets.merged(config.read_yaml(params), change))
    way_out = re.search(r"`gan preset use (\w+)`", str(caught.value))
    assert way_out, str(caught.value)
    presets.use(way_out[1], params, FOLDER)
    assert config.read_yaml(params)[section]["name"] == name


def test_the_command_line_lists_shows_and_uses(params: Path, monkeypatch) -> None:
    (params.parent / "presets").symlink_to(FOLDER)
    monkeypatch.chdir(params.parent)
    run = CliRunner()
    listed = run.invoke(gan, ["preset", "list"]).output
    assert all(name in listed for name in NAMES)
    assert run.invoke(gan, ["preset", "show", "ring"]).output == (FOLDER / "ring.yaml").read_text()
    assert "data.source: mnist5k -> ring" in run.invoke(gan, ["preset", "use", "ring"]).output
    assert config.load_params().data.source == "ring"
    again = run.invoke(gan, ["preset", "use", "ring"]).output
    assert again == "params.yaml has all of ring already\n"


@pytest.mark.parametrize("path", sorted((FOLDER / "failing").glob("*.yaml")), ids=lambda p: p.stem)
def test_failing_presets_are_valid_settings_too(path: Path, params: Path) -> None:
    """They fail in training, not before it; and the default brings all of it back."""
    before = params.read_text()
    assert presets.use(f"failing/{path.stem}", params, FOLDER)
    presets.use("default", params, FOLDER)
    assert params.read_text() == before
