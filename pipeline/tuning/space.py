"""The search space: keys of params.yaml and the values to try, as Optuna's distributions."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from pipeline import config
from pipeline.config import Params
from pipeline.errors import ConfigError
from pipeline.tuning.schema import Dimension

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = dict[str, Any]  # dotted keys of params.yaml


def distributions(space: dict[str, Dimension]) -> dict[str, BaseDistribution]:
    """The distribution of each key."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, BaseDistribution] = {}
    for key, dimension in space.items():
        if dimension.log is not None:
            found[key] = FloatDistribution(*dimension.log, log=True)
        elif dimension.float_ is not None:
            found[key] = FloatDistribution(*dimension.float_)
        elif dimension.int_ is not None:
            found[key] = IntDistribution(*dimension.int_)
        else:
            found[key] = CategoricalDistribution([encode(x) for x in dimension.choice or []])
    return found


def encode(value: Any) -> Any:
    """A value as Optuna takes it: lists, such as betas, and mappings, of terms, as JSON text."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def decode(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


def current(params: dict[str, Any], space: dict[str, Dimension]) -> Values:
    """Today's value of each searched key, as Optuna takes it.

    Raises ConfigError where one lies outside of its range: it could not be the first trial.
    """
    found = {}
    for key, dimension in space.items():
        value = lookup(params, key)
        low_high = dimension.log or dimension.float_ or dimension.int_
        inside = (
            low_high[0] <= value <= low_high[1]
            if low_high is not None
            else value in (dimension.choice or [])
        )
        if not inside:
            raise ConfigError(
                f"{key} is {value!r}, which tune.space leaves out: widen its range, as the search "
                "starts from today's settings, or change the setting"
            )
        found[key] = encode(value)
    return found


def put(params: dict[str, Any], values: Values) -> dict[str, Any]:
    """`params` (nested) with `values` (dotted keys, as Optuna gives them) in their place.

    Real numbers are rounded to four digits: a trial trains with what params.yaml will say.
    """
    result = {section: dict(x) if isinstance(x, dict) else x for section, x in params.items()}
    for key, value in values.items():
        section, leaf = key.split(".")
        if value != encode(result[section][leaf]):
            result[section][leaf] = (
                float(f"{value:.4g}") if isinstance(value, float) else decode(value)
            )
    return result


def told(values: Values) -> str:
    """Values on one line, without their sections."""
    return ", ".join(
        f"{key.split('.')[1]} {f'{x:.3g}' if isinstance(x, float) else x}"
        for key, x in values.items()
    )


def lookup(params: dict[str, Any], key: str) -> Any:
    section, leaf = key.split(".")
    return params[section][leaf]


def possible(params: dict[str, Any], values: Values) -> Params | str:
    """The params with `values`, or why there are no such params."""
    try:
        return config.check(put(params, values))
    except ConfigError as error:
        return str(error)


def check(params: dict[str, Any], space: dict[str, Dimension]) -> None:
    """Raise ConfigError for an empty space, and for a choice that goes with none of the others.

    One that only some combinations refuse may be searched: such trials cost nothing.
    """
    if not space:
        raise ConfigError("tune.space is empty: name a key to search, such as train.lr_g")
    choices = {key: [encode(x) for x in d.choice] for key, d in space.items() if d.choice}
    for key, values in choices.items():
        others = {name: found for name, found in choices.items() if name != key}
        for value in values:
            combinations = itertools.islice(itertools.product(*others.values()), 1000)
            reasons = []
            for combination in combinations:
                tried = {**dict(zip(others, combination, strict=True)), key: value}
                found = possible(params, tried)
                if isinstance(found, Params):
                    break
                reasons.append(found)
            else:
                raise ConfigError(
                    f"tune.space: {key} cannot be {decode(value)!r}: "
                    + reasons[0].removeprefix("params.yaml: ")
                )


def grid(space: dict[str, Dimension]) -> list[Values]:
    """Every combination. Raises ConfigError for a range of real numbers, which has no end."""
    axes = []
    for key, dimension in space.items():
        if dimension.choice is not None:
            axes.append([encode(x) for x in dimension.choice])
        elif dimension.int_ is not None:
            axes.append(list(range(dimension.int_[0], dimension.int_[1] + 1)))
        else:
            raise ConfigError(
                f"tune.sampler: a grid has no steps for {key}: give it choice: [...], or take "
                "another sampler"
            )
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
