"""params.yaml as a whole: read and checked, with what is wrong in it and what would be right.

Its sections and their keys are in schema.py.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from pipeline import paths
from pipeline.compatibility import unfit
from pipeline.errors import ConfigError
from pipeline.schema import (
    IN_WORDS,
    Data,
    Evaluate,
    Features,
    Loss,
    Model,
    Registry,
    Report,
    Section,
    Seed,
    Tracking,
    Train,
)
from pipeline.tuning.schema import Tune


class Params(Section):
    """params.yaml."""

    seed: Seed = Field(description="Training only: weights, noise, order of the data.")
    data: Data
    features: Features
    model: Model
    loss: Loss
    train: Train
    evaluate: Evaluate
    report: Report
    tracking: Tracking
    registry: Registry
    tune: Tune

    @model_validator(mode="after")
    def _check(self) -> Params:
        problem = next(unfit(self), None)
        if problem:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _check_space(self) -> Params:
        """Every end of every range must be possible, or trials would fail one by one."""
        for key, dimension in self.tune.space.items():
            name, leaf = key.split(".")
            section: Section = getattr(self, name)
            for value in dimension.ends:
                try:
                    type(section).model_validate({**section.model_dump(), leaf: value})
                except ValidationError as error:
                    problem = error.errors()[0]
                    raise ValueError(
                        f"tune.space: {key} cannot be {value!r}: "
                        + problem["msg"].removeprefix("Value error, ")
                    ) from None
        return self

    @property
    def data_name(self) -> str:
        """What runs and models are called after."""
        return self.data.name or self.data.source

    @property
    def model_name(self) -> str:
        """The registered model."""
        return self.registry.name or f"gan-{self.data_name}"


def load_params(path: Path = paths.PARAMS) -> Params:
    """Read and check params.yaml.

    Raises ConfigError, which names each wrong key, its value and what is allowed.
    """
    return check(read_yaml(path), path)


def load_tracking(path: Path = paths.PARAMS) -> Tracking:
    """Section `tracking` alone: what only reads the store needs no recipe that is valid.

    Raises ConfigError as `load_params` does.
    """
    try:
        return Tracking.model_validate(read_yaml(path).get("tracking", {}))
    except ValidationError as error:
        lines = [_explain(problem, "tracking") for problem in error.errors()]
        raise ConfigError(f"{path}: " + "\n  ".join(lines)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The file as plain dictionaries. Raises ConfigError where it is missing or no YAML mapping."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: run this in the project's folder") from None
    except YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must be a mapping of sections, not {type(values).__name__}")
    return values


def check(values: dict[str, Any], path: Path = paths.PARAMS) -> Params:
    """`values` as Params. Raises ConfigError with one line for each wrong key."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise ConfigError(f"{path}: " + "\n  ".join(lines)) from None


def json_schema() -> dict[str, Any]:
    """JSON schema of params.yaml, for editors."""
    schema = Params.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def known_keys() -> list[str]:
    """Every key in dotted form, sections included."""
    keys = []
    for name, field in Params.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += [f"{name}.{key}" for key in field.annotation.model_fields]
    return keys


def _explain(problem: Any, *section: str) -> str:
    loc = (*section, *problem["loc"])
    key = ".".join(str(part) for part in loc if not str(part).startswith("function-"))
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"unknown key {key}{_nearest(key)}"
    if kind == "missing":
        return f"{key} is missing: add it (`gan schema` says what is allowed)"
    if kind == "string_pattern_mismatch":
        return f"{key} is {value!r}: allowed are {IN_WORDS[problem['ctx']['pattern']]}"
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}.{message}" if key else message
    return f"{key} is {value!r}: {message[0].lower()}{message[1:]}"


def _nearest(key: str) -> str:
    known = known_keys()
    section, _, leaf = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    close = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {siblings[close[0]]}?"
    elsewhere = [k for k in known if k.rpartition(".")[2] == leaf]
    close = elsewhere or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
