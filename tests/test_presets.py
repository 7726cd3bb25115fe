"""Presets: each is valid, and using one keeps what it does not set."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.utils.hydra import apply_overrides

from pipeline import config, lineage, presets
from pipeline.cli import gan
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "presets"
NAMES = list(presets.names(FOLDER))


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def comments(path: Path) -> list[str]:
    return re.findall("#.*", path.read_text())


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
    assert config.load_params(params).tracking.experiment == "mine"


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_used_on_what_dvc_wrote(name: str, params: Path) -> None:
    """`dvc exp run -S` writes lists below their comments, which must not come before them."""
    apply_overrides(params, ["train.lr_g=1e-3", "train.device=cpu"])
    assert "\n  - rotation\n" in params.read_text()
    before = comments(params)
    presets.use(name, params, FOLDER)
    assert comments(params) == before
    params_now = config.load_params(params)
    assert params_now.train.device == "cpu"
    assert params_now.train.augment == presets.overlay(name, FOLDER)["train"]["augment"]


def test_what_stood_below_a_replaced_list_stays(tmp_path: Path) -> None:
    shipped = (ROOT / "params.yaml").read_text()
    lists = "  augment:\n  # of all\n  - flip  # mirrored\n  # tried: crop\n\n  augment_p:"
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"  augment: .*\n  augment_p:", lists, shipped))
    presets.write({"train": {"augment": [], "augment_p": 1.0}}, path)
    assert "  augment: []\n  # of all\n  # tried: crop\n\n  augment_p:" in path.read_text()
    presets.write({"train": {"augment": ["crop", "flip"]}}, path)
    assert "  augment: [crop, flip]\n  # of all\n" in path.read_text()


def test_what_would_not_say_what_was_meant_is_not_written(params: Path, monkeypatch) -> None:
    """The text is read again, whatever the library made of it."""
    apply_overrides(params, ["train.lr_g=1e-3"])
    before = params.read_text()
    monkeypatch.setattr(presets, "_put", lambda mapping, key, value: mapping.update({key: value}))
    with pytest.raises(ConfigError, match=r"as it was.*git checkout params\.yaml"):
        presets.use("dcgan", params, FOLDER)
    assert params.read_text() == before
    assert [path.name for path in params.parent.iterdir()] == ["params.yaml"]


def test_the_default_is_a_recipe_and_all_of_it_an_explicit_wish(params: Path) -> None:
    own = {"data": {"name": "mine"}, "train": {"device": "cpu"}, "tune": {"trials": 7}}
    presets.write(own, params)
    presets.use("hinge", params, FOLDER)
    presets.use("default", params, FOLDER)
    shipped = config.read_yaml(ROOT / "params.yaml")
    assert config.read_yaml(params) == presets.merged(shipped, own)
    presets.use("default", params, FOLDER, everything=True)
    assert config.read_yaml(params) == shipped


def test_the_way_from_points_to_images_is_named(params: Path) -> None:
    presets.use("ring", params, FOLDER)
    for name in ("hinge", "default"):
        with pytest.raises(ConfigError, match=r"set data\.source first .*use default --all`"):
            presets.use(name, params, FOLDER)
    params.write_text(params.read_text().replace("source: ring", "source: mnist5k"))
    presets.use("hinge", params, FOLDER)


def test_the_default_brings_the_shipped_file_back_to_the_letter(params: Path) -> None:
    shipped = params.read_text()
    changed = presets.use("ring", params, FOLDER)
    assert "data.source: mnist5k -> ring" in changed
    assert params.read_text() != shipped
    presets.use("default", params, FOLDER, everything=True)
    assert params.read_text() == shipped
    assert presets.use("default", params, FOLDER, everything=True) == []


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
    refused = run.invoke(gan, ["preset", "use", "ring", "--all"])
    assert (refused.exit_code, "--all goes with default" in refused.output) == (2, True)
    assert run.invoke(gan, ["preset", "use", "default", "--all"]).exit_code == 0
    assert config.load_params().data.source == "mnist5k"


@pytest.mark.parametrize("path", sorted((FOLDER / "failing").glob("*.yaml")), ids=lambda p: p.stem)
def test_failing_presets_are_valid_settings_too(path: Path, params: Path) -> None:
    """They fail in training, not before it; and the default brings all of it back."""
    before = params.read_text()
    assert presets.use(f"failing/{path.stem}", params, FOLDER)
    presets.use("default", params, FOLDER, everything=True)
    assert params.read_text() == before
