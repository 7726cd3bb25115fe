"""Two evaluations side by side: which one is better, by how much, and how sure that is.

Evaluations of different protocols are refused. A new figure needs a line in `BETTER` to be judged,
and a family in `pairs.py` for an interval of its own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import lineage, pairs
from pipeline.errors import UserError
from pipeline.evaluated import Evaluated
from pipeline.metrics.frechet import Difference

if TYPE_CHECKING:
    from rich.table import Table

CAUTION = (
    "intervals are of 95%: one in twenty figures that do not differ is shown to. They are about "
    "these samplers; what their recipes do shows only over several seeds"
)
# Figures that say something of another one, or of the protocol.
HELPERS = ("_ci_low", "_ci_high", "_se", "_std", "_floor", "_real", "_null", "_null_sd")
NO_FIGURES = ("n_", "control", "worst_class")

Direction = Literal["lower", "higher", "one"]
How = Literal["paired", "unpaired", ""]


@dataclass(frozen=True)
class Figure:
    """One figure of both. `difference` is B's less A's.

    `low` and `high` are its 95% interval, where there is one. That of `fd`, and of what is unpaired
    where a figure's own interval is, is free of the bias of a finite sample that the figures have:
    the difference need not lie in its middle, nor even within.
    """

    key: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    how: How
    floor: float | None
    meaning: str
    better: str = ""  # A or B where that is shown


@dataclass(frozen=True)
class Comparison:
    """`a` and `b` are the letters under which the two are shown."""

    a: str
    b: str
    figures: list[Figure]
    paired: bool
    notes: list[str] = field(default_factory=list)
    same: bool = False  # every figure, to the last digit

    def verdict(self) -> str:
        """One sentence on all figures."""
        if self.same:
            return f"{self.a} and {self.b} are the same, to the last digit of every figure"
        by = {
            side: [figure.key for figure in self.figures if figure.better == side]
            for side in (self.a, self.b)
        }
        parts = [f"{side} is better by {', '.join(keys)}" for side, keys in by.items() if keys]
        return "; ".join(parts) or f"neither of {self.a} and {self.b} is shown to be better"


def compare(a: Evaluated, b: Evaluated, *, letters: tuple[str, str] = ("A", "B")) -> Comparison:
    """The figures that both have. Raises UserError where their protocols differ.

    Differences are paired where both have their samples: a second or so for 3,500 samples.
    """
    differing = differences(a.protocol, b.protocol)
    if differing:
        lines = [
            f"  {name}: {_shown(x)} ({letters[0]}), {_shown(y)} ({letters[1]})"
            for name, x, y in differing
        ]
        raise UserError(
            f"{letters[0]} ({a.name}) and {letters[1]} ({b.name}) were measured under different "
            "protocols, so their figures cannot be compared:\n"
            + "\n".join(lines)
            + "\nSet both alike in params.yaml and run dvc repro evaluate for each."
        )
    if a.metrics == b.metrics:
        same = [_same(key, a.metrics) for key in a.metrics if is_figure(key)]
        return Comparison(*letters, same, not _why_unpaired(a, b), _notes(a, b, letters), same=True)
    reason = _why_unpaired(a, b)
    certain: dict[str, Difference] = {}
    if not reason:
        assert a.samples is not None
        assert b.samples is not None
        certain = pairs.differences(a, b, a.samples, b.samples)
    figures = [
        _figure(key, a.metrics, b.metrics, certain.get(key), letters)
        for key in a.metrics
        if key in b.metrics and is_figure(key)
    ]
    notes = _notes(a, b, letters)
    beside = [figure.key for figure in figures if _beside(figure)]
    if beside:
        notes.insert(
            0,
            f"of {', '.join(beside)} {letters[1]} - {letters[0]} lies beside its interval, which "
            "is free of the bias of a finite sample that both figures have",
        )
    if reason:
        notes.insert(
            0,
            f"unpaired ({reason}): intervals come from those of each side, and are wider than "
            "those of a paired comparison",
        )
    return Comparison(*letters, figures, not reason, notes)


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Fields in which two protocols differ, with both values (None: absent); versions are none."""
    old, new = (
        lineage.flatten({key: value for key, value in protocol.items() if key != "versions"})
        for protocol in (a, b)
    )
    names = [*old, *(name for name in new if name not in old)]
    return [(x, old.get(x), new.get(x)) for x in names if old.get(x) != new.get(x)]


def letter(i: int) -> str:
    """What the i-th of several evaluations is called: A to Z, then 27, 28, ..."""
    return chr(ord("A") + i) if i < 26 else str(i + 1)


def table(comparison: Comparison) -> Table:
    """The figures for people to read."""
    from rich.table import Table

    a, b = comparison.a, comparison.b
    result = Table(box=None, pad_edge=False)
    result.add_column("figure")
    floors = any(figure.floor is not None for figure in comparison.figures)
    for name in (a, b, f"{b} - {a}", *(["floor"] if floors else [])):
        result.add_column(name, justify="right", no_wrap=True)
    plain = comparison.paired or comparison.same
    result.add_column("what it means" if plain else "what it means (unpaired)")
    for figure in comparison.figures:
        cells = [_number(figure.a), _number(figure.b), _number(figure.difference)]
        if floors:
            cells.append("" if figure.floor is None else _number(figure.floor))
        unpaired = " (unpaired)" if comparison.paired and figure.how == "unpaired" else ""
        style = "bold" if figure.better else None
        result.add_row(figure.key, *cells, figure.meaning + unpaired, style=style)
    return result


def show(legend: list[tuple[str, str, Evaluated]], comparisons: list[Comparison]) -> None:
    """Print all of it. `legend`: letter, what the user called it, and what that stands for."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for name, given, one in legend:
        also = "" if given == one.name else f" ({escape(given)})"
        console.print(f"[bold]{name}[/bold]  {escape(one.name)}{also}")
    for comparison in comparisons:
        console.print()
        console.print(table(comparison))
        console.print(f"\n{escape(comparison.verdict())}.")
        for note in comparison.notes:
            console.print(f"- {escape(note)}")
    if not all(comparison.same for comparison in comparisons):
        console.print(f"- {CAUTION}")


def _why_unpaired(a: Evaluated, b: Evaluated) -> str:
    for one in (a, b):
        if one.samples is None:
            return f"{one.name}: {one.missing}"
    assert a.samples is not None
    assert b.samples is not None
    for name in ("space", "features", "space_real", "real_features"):
        x, y = getattr(a.samples, name), getattr(b.samples, name)
        if x.shape != y.shape:
            return f"the samples' features are of different shapes, {x.shape} and {y.shape}"
        # The same reals under the same extractor differ by rounding only.
        if "real" in name and np.abs(x - y).max() > 0.1 * x.std():
            return "the features of the reals are not the same"
    return ""


def _notes(a: Evaluated, b: Evaluated, letters: tuple[str, str]) -> list[str]:
    notes = []
    old, new = (x.protocol.get("versions", {}) for x in (a, b))
    versions = [
        f"{name} {old.get(name, 'unknown')} ({letters[0]}), {new.get(name, 'unknown')} "
        f"({letters[1]})"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if versions:
        notes.append(f"measured with different versions: {'; '.join(versions)}")
    for letter, one in zip(letters, (a, b), strict=True):
        failed = [key for key, x in one.metrics.items() if key.startswith("control_") and not x]
        if failed:
            notes.append(f"{', '.join(failed)} failed for {letter}: do not trust its figures")
    for letter, one, other in ((letters[0], a, b), (letters[1], b, a)):
        alone = [key for key in one.metrics if is_figure(key) and key not in other.metrics]
        if alone:
            notes.append(f"only {letter} has {', '.join(alone)}")
    return notes


def _same(key: str, metrics: dict[str, float]) -> Figure:
    value = metrics[key]
    return Figure(key, value, value, 0.0, 0.0, 0.0, "", metrics.get(f"{key}_floor"), "the same")


def _beside(figure: Figure) -> bool:
    """Does the difference lie outside of its interval, by more than what is printed?"""
    if figure.low is None or figure.high is None:
        return False
    low, difference, high = (
        float(f"{value:.3g}") for value in (figure.low, figure.difference, figure.high)
    )
    return not low <= difference <= high


def _figure(
    key: str,
    of_a: dict[str, float],
    of_b: dict[str, float],
    certain: Difference | None,
    letters: tuple[str, str],
) -> Figure:
    a, b = of_a[key], of_b[key]
    how: How = "paired"
    if certain is None:
        certain = _unpaired(key, of_a, of_b)
        how = "unpaired" if certain else ""
    if certain and key in SHARES:  # no two differ by more than 1
        low, high = (float(np.clip(end, -1, 1)) for end in (certain.low, certain.high))
        certain = replace(certain, low=low, high=high)
    meaning, better = _meaning(key, a, b, certain, letters)
    return Figure(
        key,
        a,
        b,
        b - a,
        certain.low if certain else None,
        certain.high if certain else None,
        how,
        of_a.get(f"{key}_floor"),
        meaning,
        better,
    )


def _unpaired(key: str, of_a: dict[str, float], of_b: dict[str, float]) -> Difference | None:
    """An interval by those of both sides, as if they shared nothing: it is no narrower.

    It lies around the difference of their middles, which are free of the figures' bias.
    """
    sides = []
    name = key.removesuffix("_rate")  # nearcopy_rate has nearcopy_ci_low
    for metrics in (of_a, of_b):
        if f"{name}_ci_low" in metrics:
            low, high = metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"]
            sides.append(((low + high) / 2, (high - low) / (2 * 1.96)))
        elif f"{key}_se" in metrics:
            sides.append((metrics[key], metrics[f"{key}_se"]))
    if len(sides) < 2:
        return None
    (a, sd_a), (b, sd_b) = sides
    delta, sd = b - a, float(np.hypot(sd_a, sd_b))
    return Difference(delta, sd, delta - 1.96 * sd, delta + 1.96 * sd)


def _meaning(
    key: str, a: float, b: float, certain: Difference | None, letters: tuple[str, str]
) -> tuple[str, str]:
    """What a difference means in words, and which side it shows to be better, if any."""
    direction = _direction(key, a, b)
    if certain is None:
        return ("the same" if a == b else "no interval"), ""
    low, high = certain.low, certain.high
    if low == high == 0:
        return "the same", ""
    interval = f"({_number(low)} to {_number(high)})"
    if low <= 0 <= high:
        text = f"no difference shown {interval}"
        if direction == "lower":
            text += f": {letters[1]} at most {_number(high)} higher"
        elif direction == "higher":
            text += f": {letters[1]} at most {_number(-low)} lower"
        return text, ""
    if direction is None:
        return f"{letters[1]} is {'higher' if low > 0 else 'lower'} {interval}", ""
    rises = low > 0
    better = letters[1] if rises == (direction == "higher") else letters[0]
    size = sorted(abs(end) for end in (low, high))
    return (
        f"{better} is better: {key} {direction} by {_number(size[0])} to {_number(size[1])}",
        better,
    )


def _direction(key: str, a: float, b: float) -> Direction | None:
    """Which way is better for these two figures; None where neither is, or nobody knows."""
    name = max((name for name in BETTER if key.startswith(name)), key=len, default="")
    if name != key and not key.removeprefix(name).startswith("_"):
        return None
    direction = BETTER.get(name)
    if direction == "one":  # on different sides of it neither is better for sure
        return "higher" if max(a, b) <= 1 else "lower" if min(a, b) >= 1 else None
    return direction


def is_figure(key: str) -> bool:
    """Is it a figure of its own, and not a part of another or of the protocol?"""
    return not key.endswith(HELPERS) and not key.startswith(NO_FIGURES)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."


# From 0 to 1.
SHARES = frozenset(
    (
        *("precision", "recall", "coverage", "hq", "dup_rate", "confidence", "label_accuracy"),
        *("cas", "nearcopy_rate", "nn_share", "mia_tpr1"),
    )
)

# Which way is better; "one": the nearer to 1. Figures that are not named are shown, not judged.
BETTER: dict[str, Direction] = {
    "fd": "lower",
    "fid": "lower",
    "kid": "lower",
    "mind": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "one",  # samples without variety exceed it
    "coverage": "higher",
    "label_kl": "lower",
    "ndb_jsd": "lower",
    "selfnn_ratio": "one",
    "within_var_ratio": "one",
    "dup_rate": "lower",
    "modes": "higher",
    "hq": "higher",
    "reverse_kl": "lower",
    "label_accuracy": "higher",
    "cas": "higher",
    "nearcopy_rate": "lower",
    "mia_tpr1": "lower",
}
