"""The search space: what may be tried, and how it becomes params."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from pipeline import config
from pipeline.config import Params
from pipeline.errors import ConfigError
from pipeline.tuning import space
from pipeline.tuning.schema import Dimension

from .conftest import plain


@pytest.fixture
def values() -> dict[str, Any]:
    return plain()


def dimensions(**given: Any) -> dict[str, Dimension]:
    return {
        key.replace("__", "."): Dimension.model_validate(dimension)
        for key, dimension in given.items()
    }


def test_each_kind_of_range_becomes_optunas() -> None:
    found = space.distributions(
        dimensions(
            train__lr_g={"log": [1e-5, 1e-3]},
            train__ema_decay={"float": [0.9, 0.99]},
            train__d_steps={"int": [1, 5]},
            loss__name={"choice": ["hinge", "wgan"]},
        )
    )
    assert found == {
        "train.lr_g": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
        "train.ema_decay": optuna.distributions.FloatDistribution(0.9, 0.99),
        "train.d_steps": optuna.distributions.IntDistribution(1, 5),
        "loss.name": optuna.distributions.CategoricalDistribution(["hinge", "wgan"]),
    }


def test_lists_can_be_chosen_among(values: dict[str, Any]) -> None:
    """Optuna takes no lists: they travel as text and come back as they were."""
    betas = dimensions(train__betas_g={"choice": [[0.0, 0.99], [0.5, 0.9]]})
    (distribution,) = space.distributions(betas).values()
    assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
    put = space.put(values, {"train.betas_g": distribution.choices[1]})
    assert put["train"]["betas_g"] == [0.5, 0.9]
    assert space.current(values, betas) == {"train.betas_g": distribution.choices[0]}


def test_terms_can_be_chosen_among(values: dict[str, Any]) -> None:
    terms = dimensions(loss__terms={"choice": [{}, {"dragan": 10.0, "lecam": 0.1}]})
    (distribution,) = space.distributions(terms).values()
    assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
    assert all(isinstance(choice, str) for choice in distribution.choices)
    assert space.current(values, terms) == {"loss.terms": "{}"}
    params = space.possible(values, {"loss.terms": distribution.choices[1]})
    assert isinstance(params, Params)
    assert params.loss.terms == {"dragan": 10.0, "lecam": 0.1}


def test_real_values_are_rounded_to_what_params_yaml_will_say(values: dict[str, Any]) -> None:
    put = space.put(values, {"train.lr_g": 0.00123456789, "train.d_steps": 3})
    assert put["train"]["lr_g"] == 0.001235
    assert put["train"]["d_steps"] == 3
    assert values["train"]["d_steps"] == 1  # not changed in place


def test_todays_value_is_never_rounded(values: dict[str, Any]) -> None:
    values["train"]["lr_g"] = 0.00123456789
    assert space.put(values, {"train.lr_g": 0.00123456789})["train"]["lr_g"] == 0.00123456789


def test_todays_settings_must_lie_in_the_space(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr_g is 0\.002.*widen its range"):
        space.current(values, dimensions(train__lr_g={"log": [1e-5, 1e-4]}))


def test_a_choice_that_no_combination_allows_is_refused(values: dict[str, Any]) -> None:
    choices = {"loss__name": {"choice": ["non_saturating", "wgan"]}}
    with pytest.raises(ConfigError, match=r"loss\.name cannot be 'wgan'.*spectral_norm"):
        space.check(values, dimensions(**choices))
    both = dimensions(**choices, model__spectral_norm={"choice": [True, False]})
    space.check(values, both)
    assert "spectral_norm" in str(
        space.possible(values, {"loss.name": "wgan", "model.spectral_norm": True})
    )
    assert isinstance(
        space.possible(values, {"loss.name": "wgan", "model.spectral_norm": False}), Params
    )


def test_an_empty_space_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="space is empty"):
        space.check(values, {})


def test_a_grid_is_every_combination() -> None:
    axes = dimensions(train__d_steps={"int": [1, 3]}, loss__name={"choice": ["hinge", "lsgan"]})
    found = space.grid(axes)
    assert len(found) == 6
    assert {"train.d_steps": 2, "loss.name": "lsgan"} in found


def test_a_grid_of_real_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no steps for train\.lr_g"):
        space.grid(dimensions(train__lr_g={"log": [1e-5, 1e-3]}))


@pytest.mark.parametrize(
    ("key", "dimension", "words"),
    [
        ("train.lr", {"log": [1e-5, 1e-3]}, "train.lr is no key.*did you mean train.lr_g"),
        ("train.steps", {"int": [1, 5]}, "train.steps cannot be searched.*tune.steps"),
        ("train.lr_g", {"log": [0, 1e-3]}, "log must start above 0"),
        ("data.draws", {"int": [1, 5]}, "data.draws is no key of model, loss or train$"),
        ("lr_g", {"log": [1e-5, 1e-3]}, "lr_g is no key.*did you mean train.lr_g"),
        ("train.lr_g", [1e-5, 1e-3], r"must be given, such as \{log"),
        ("train.d_steps", {"choice": [1, 2, 1]}, r"choice \[1, 2, 1\] names a value twice"),
        ("train.lr_g", {"log": [1e-2, 1e-3]}, "log: low end 0.01 must lie below"),
        ("train.lr_g", {"log": [1e-5, 2.0]}, "train.lr_g cannot be 2.0"),
        ("train.lr_g", {}, "log, float, int or choice must be given"),
        ("loss.name", {"choice": ["hinge", "hnge"]}, "loss.name cannot be 'hnge'"),
        ("train.d_steps", {"int": [0, 5]}, "train.d_steps cannot be 0"),
    ],
)
def test_an_impossible_space_is_refused_with_the_key(
    values: dict[str, Any], key: str, dimension: dict[str, Any], words: str
) -> None:
    values["tune"]["space"] = {key: dimension}
    with pytest.raises(ConfigError, match=words):
        config.check(values)
