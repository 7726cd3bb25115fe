"""params.yaml: what is refused, and in which words."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import config, lineage, presets
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def values() -> dict[str, Any]:
    """The shipped file with the plain recipe in it."""
    shipped = config.read_yaml(ROOT / "params.yaml")
    return copy.deepcopy(presets.merged(shipped, presets.overlay("dcgan", ROOT / "presets")))


def test_the_shipped_file_is_valid() -> None:
    assert config.check(config.read_yaml(ROOT / "params.yaml")).data_name == "mnist5k"


def test_every_key_is_documented_or_obvious(values: dict[str, Any]) -> None:
    """Each key has a description in the schema or a comment in the shipped file."""
    text = (ROOT / "params.yaml").read_text()
    for section in values:
        if not isinstance(values[section], dict):
            continue
        fields = config.Params.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        assert list(values[section]) == list(fields), f"order of {section}"
    assert text.startswith("# yaml-language-server")


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("train", "lr_g", -1.0, ["train.lr_g", "-1.0", "greater than 0"]),
        ("train", "steps", 0, ["train.steps", "greater than or equal to 1"]),
        ("train", "steps", "many", ["train.steps", "'many'", "integer"]),
        ("train", "device", "gpu", ["train.device", "'gpu'"]),
        ("loss", "name", "hnge", ["loss.name", "'hnge'", "'hinge'"]),
        ("data", "source", "folder", ["data", "name must be given"]),
        ("data", "image_size", 30, ["data.image_size", "28, 32 or 64", "resnet"]),
        ("model", "name", "r3gan", ["model.spectral_norm", "r3gan", "false"]),
        ("loss", "terms", {"path_length": 2.0}, ["path_length", "dcgan", "stylegan2"]),
        ("data", "val_fraction", 0.9, ["val_fraction"]),
        ("data", "path", "~/images", ["data.path", "absolute"]),
        ("loss", "name", "wgan", ["model.spectral_norm", "false"]),
        ("evaluate", "extractor", "clip", ["evaluate.extractor", "'clip'", "'inception'"]),
        ("evaluate", "inception_weights", "", ["evaluate.inception_weights"]),
        ("data", "source", "ring", ["model.name: dcgan makes images", "points", "preset use ring"]),
        ("model", "name", "pacgan", ["model.name: pacgan makes points", "dcgan"]),
        ("data", "source", "stacked_mnist", ["data.channels must be 3"]),
        ("train", "device", "gpu", ["train.device is 'gpu': allowed are auto, cpu, mps, cuda and"]),
        ("data", "name", "a/b", ["data.name is 'a/b': allowed are letters, digits"]),
        ("train", "augment", ["blur"], ["train.augment", "'blur'", "'translation'"]),
        ("train", "augment_p", 0.0, ["train.augment_p", "greater than 0"]),
        ("train", "augment_p", "ada", ["train.augment_p", "train.augment"]),
        ("loss", "terms", {"dragann": 1.0}, ["loss.terms", "'dragann'", "'dragan'"]),
        ("loss", "terms", {"lecam": 0.0}, ["loss.terms.lecam", "greater than 0"]),
        ("loss", "terms", {"label_smoothing": 0.6}, ["label_smoothing", "below 0.5"]),
        ("model", "pack", 3, ["model.pack", "64", "63"]),
    ],
)
def test_a_wrong_value_names_key_value_and_what_is_allowed(
    values: dict[str, Any], section: str, key: str, value: Any, words: list[str]
) -> None:
    values[section][key] = value
    with pytest.raises(ConfigError) as caught:
        config.check(values)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.name": "veegan", "loss.r1_gamma": 1.0}, ["model.name", "batch", "loss.r1_gamma"]),
        ({"model.name": "veegan", "loss.terms": {"dragan": 10.0}}, ["loss.terms.dragan", "dcgan"]),
        ({"loss.name": "hinge", "loss.terms": {"label_smoothing": 0.1}}, ["target", "lsgan"]),
        ({"loss.name": "rpgan", "loss.terms": {"lecam": 0.1}}, ["lecam", "differences"]),
        (
            {"loss.name": "rpgan", "train.augment": ["flip"], "train.augment_p": "ada"},
            ["train.augment_p", "sign", "hinge"],
        ),
        (
            {"data.source": "celeba", "model.conditional": True, "model.name": "resnet"},
            ["model.conditional", "celeba", "preset use dcgan"],
        ),
        (
            {"model.name": "stylegan2", "model.spectral_norm": False, "model.minibatch": "stddev"},
            ["model.minibatch", "anyway"],
        ),
        ({"model.pack": 2, "model.conditional": True}, ["model.pack", "class"]),
        ({"data.source": "ring", "model.name": "points", "loss.terms": {"cr": 1.0}}, ["points"]),
    ],
)
def test_what_does_not_belong_together_is_refused_with_the_reason(
    values: dict[str, Any], changes: dict[str, Any], words: list[str]
) -> None:
    for key, value in changes.items():
        section, _, leaf = key.partition(".")
        values[section][leaf] = value
    with pytest.raises(ConfigError) as caught:
        config.check(values)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [
        ("train", "lrg", "train.lr_g"),
        ("train", "latent_dim", "model.latent_dim"),
        ("evaluate", "sample", "evaluate.samples"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    values: dict[str, Any], section: str, key: str, nearest: str
) -> None:
    values[section][key] = 1
    with pytest.raises(ConfigError, match=f"unknown key {section}.{key}; did you mean {nearest}"):
        config.check(values)


def test_points_are_not_shown_to_inception(values: dict[str, Any]) -> None:
    values["data"]["source"], values["model"]["name"] = "ring", "points"
    config.check(values)
    values["evaluate"]["extractor"] = "inception"
    with pytest.raises(ConfigError, match=r"evaluate\.extractor: inception sees images"):
        config.check(values)


def test_all_mistakes_are_named_at_once(values: dict[str, Any]) -> None:
    values["train"]["lr_g"] = 7
    del values["evaluate"]["samples"]
    with pytest.raises(ConfigError) as caught:
        config.check(values)
    assert "train.lr_g" in str(caught.value)
    assert "evaluate.samples is missing" in str(caught.value)


@pytest.mark.parametrize("text", ["train: [", "just words", ""])
def test_a_file_that_is_no_mapping_is_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml"):
        config.load_params(path)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        config.load_params(tmp_path / "params.yaml")


def test_the_schema_knows_every_key(values: dict[str, Any]) -> None:
    schema = config.json_schema()
    assert set(schema["required"]) == set(values)
    assert schema["$defs"]["Train"]["additionalProperties"] is False


def test_the_readme_lists_every_key_with_its_default() -> None:
    table = dict(
        re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", (ROOT / "README.md").read_text(), re.M)
    )
    values = config.read_yaml(ROOT / "params.yaml")
    mappings = {key: values["tune"].pop(key) for key in ("space", "constraints")}
    shipped = lineage.flatten(values) | {f"tune.{key}": x for key, x in mappings.items()}
    assert sorted(table) == sorted(shipped)
    for key, value in shipped.items():
        expected: object = (
            json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value
        )
        assert YAML(typ="safe", pure=True).load(table[key]) == expected, key
