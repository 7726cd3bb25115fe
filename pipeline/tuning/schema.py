"""The section `tune` of params.yaml, and which keys a search may try values of."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.schema import Count, Loss, Model, Range, Section, Seed, Train

# What the monitor says of a generator in training, on `val`.
Monitored = Literal[
    "fd",
    "label_kl",
    "ndb_jsd",
    "selfnn_ratio",
    "within_var_ratio",
    "precision",
    "recall",
    "density",
    "coverage",
]
SEARCHED_SECTIONS: dict[str, type[Section]] = {"model": Model, "loss": Loss, "train": Train}
NOT_SEARCHED = {
    "train.steps": "a trial's length follows from tune.steps, so that all cost the same",
    "train.eval_every": "it decides how a trial is measured; tune.reports says how often",
    "train.eval_samples": "it decides how a trial is measured",
    "train.checkpoint_every": "it changes no number",
    "train.log_every": "it changes no number",
    "train.device": "it decides where a trial runs, not what it finds",
    "train.devices": "it decides where a trial runs, not what it finds",
    "train.compile": "it decides how a trial runs, not what it finds",
    "train.cuda_graphs": "it decides how a trial runs, not what it finds",
    "train.deterministic": "it decides where a trial runs, not what it finds",
    "train.on_collapse": "tune.pruner says what becomes of a collapsed trial",
    "train.max_rollbacks": "tune.pruner says what becomes of a collapsed trial",
}


class Dimension(Section):
    """What a tuned key may be: a range on a log or a linear scale, or of integers, or a list."""

    log: Range | None = None
    float_: Range | None = Field(None, alias="float")
    int_: tuple[int, int] | None = Field(None, alias="int")
    choice: Annotated[list[Any], Field(min_length=2)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(
                f"log, float, int or choice must be given, such as {{log: [1.0e-4, 1.0e-2]}}, not "
                f"{value!r}"
            )
        return value

    @field_validator("log", "float_", "int_", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check(self) -> Dimension:
        given = [x for x in (self.log, self.float_, self.int_, self.choice) if x is not None]
        if len(given) != 1:
            raise ValueError("log, float, int or choice must be given, one of them")
        if self.choice is None and not given[0][0] < given[0][1]:
            kind = "log" if self.log else "float" if self.float_ else "int"
            raise ValueError(
                f"{kind}: low end {given[0][0]} must lie below the high end {given[0][1]}"
            )
        if self.choice is not None and any(x in self.choice[:i] for i, x in enumerate(self.choice)):
            raise ValueError(f"choice {self.choice!r} names a value twice")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError(f"log must start above 0, not at {self.log[0]}")
        return self

    @property
    def ends(self) -> list[Any]:
        """The values that must be possible for all between them to be: ends, or every choice."""
        return list(self.choice or self.log or self.float_ or self.int_ or ())


class Bound(Section):
    """Where a trial's figure must lie."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Bound:
        if (self.min is None) == (self.max is None):
            raise ValueError("min or max must be given, one of them")
        return self


class Tune(Section):
    """`gan tune`: a search for better settings, in trials of equal work."""

    trials: Count = Field(
        description="The search's work, in full trials; what pruned trials save buys further ones."
    )
    steps: Count = Field(
        description="A full trial's work: that of so many generator updates of the settings above. "
        "Settings whose updates cost more get fewer."
    )
    space: dict[str, Dimension] = Field(
        description="Keys of model, loss and train, each with log: [low, high], "
        "float: [low, high], int: [low, high] or choice: [...]."
    )
    metric: Monitored = Field(description="The figure on val that decides.")
    direction: Literal["minimize", "maximize"] = Field(description="Which way is better.")
    constraints: dict[Monitored, Bound] = Field(
        description="Figures on val, each with min: or max:; settings beyond one are collapsed."
    )
    sampler: Literal["tpe", "gp", "random", "grid"] = Field(
        description="grid: every combination of choices and integers."
    )
    pruner: Literal["none", "hyperband", "successive_halving", "median"] = Field(
        description="Which trials end early; a collapsed one does at once. none: not even that."
    )
    reports: Annotated[int, Field(ge=2)] = Field(
        description="Looks at a trial's samples, at equal shares of its work."
    )
    finalists: Annotated[int, Field(ge=0)] = Field(
        description="Best trials that are trained again with other seeds. 0: none."
    )
    finalist_seeds: Annotated[int, Field(ge=2)] = Field(description="Seeds for each finalist.")
    seed: Seed = Field(description="Of the search; trials train with the seed above.")
    applied: str | None = Field(
        description="Study and trial that `gan tune apply` took today's settings from."
    )

    @field_validator("space")
    @classmethod
    def _known(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        known = searched_keys()
        for key in space:
            if key in NOT_SEARCHED:
                raise ValueError(f"{key} cannot be searched: {NOT_SEARCHED[key]}")
            if key not in known:
                leaves = {name.partition(".")[2]: name for name in known}
                close = difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1, cutoff=0.6)
                hint = f"; did you mean {leaves[close[0]]}?" if close else ""
                raise ValueError(f"{key} is no key of model, loss or train{hint}")
        return space


def searched_keys() -> list[str]:
    """Every key that a search may try values of."""
    keys = [f"{name}.{key}" for name, of in SEARCHED_SECTIONS.items() for key in of.model_fields]
    return [key for key in keys if key not in NOT_SEARCHED]
