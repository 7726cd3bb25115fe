"""May a model take the champion's place? Every condition, with its figure, interval and threshold.

Both are sampled afresh with the same latent seeds and held to the same reals, so differences are
paired. `docs/registry.md` says how often equal, better and worse models pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline import compare, pairs
from pipeline.evaluated import Evaluated, Samples
from pipeline.metrics import frechet, memorization
from pipeline.metrics.frechet import Difference
from pipeline.metrics.per_class import FEWEST
from pipeline.metrics.threads import single_threaded
from pipeline.reference import Reference, benchmark_of, build_reference

MOST_CLASSES = 100  # of more, each has too few images for a distance of its own
CLASS_RESAMPLES = 50
SDS = 1.645  # one-sided bound of 95%
SCALE_OF_FEW = 10  # below 10,000 held-out images nearcopy's null is 1% in place of 0.1%
SEED = 0


@dataclass(frozen=True)
class Margins:
    """How much each condition allows; `registry.gate` of params.yaml.

    better_sds, worst_class_sds: deviations of the difference. coverage, recall: what they may fall
    by. label_kl: the highest that is always good enough; label_kl_margin: above the champion's.
    nearcopy: bound on the share of near copies, from 10,000 held-out images. ct_z: the lowest.
    mia_tpr1: bound, from 10,000 held-out images.
    """

    better_sds: float
    coverage: float
    recall: float
    label_kl: float
    label_kl_margin: float
    worst_class_sds: float
    nearcopy: float
    ct_z: float
    mia_tpr1: float


@dataclass(frozen=True)
class Condition:
    """`figure` must lie on the right side of `threshold`; `low` and `high`: its 95% interval."""

    name: str
    passed: bool
    text: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Decision:
    """`figures` are the challenger's and the champion's, with their paired differences."""

    conditions: list[Condition]
    figures: dict[str, dict[str, float | None]]

    @property
    def passed(self) -> bool:
        return all(condition.passed for condition in self.conditions)

    @property
    def failed(self) -> list[Condition]:
        return [condition for condition in self.conditions if not condition.passed]

    def to_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


def decide(
    challenger: Evaluated,
    champion: Evaluated | None,
    margins: Margins,
    *,
    problems: list[str],
    n_held_out: int,
    families: Sequence[pairs.Family] = pairs.PAIRED,
) -> Decision:
    """Every condition of the gate. `problems`: why the challenger is not valid, if it is not.

    `families` of paired differences: those of the neighbours are needed.

    Both must have their samples. A first model has no champion to be better than.
    """
    metrics = challenger.metrics
    of_champion = champion.metrics if champion else None
    differences: dict[str, Difference] = {}
    conditions = [_valid(metrics, problems)]
    if champion is not None:
        assert challenger.samples is not None
        assert champion.samples is not None
        differences = pairs.differences(
            champion, challenger, champion.samples, challenger.samples, families=families
        )
        conditions += [
            _better(differences, margins),
            *(_not_inferior(key, differences, margins) for key in ("coverage", "recall")),
        ]
    conditions.append(_label_kl(metrics, of_champion, margins))
    if champion is not None and champion.samples and challenger.samples:
        worst = worst_class(challenger.samples, champion.samples)
        if worst is not None:
            conditions.append(_worst_class(worst, margins))
    conditions += _memorization(metrics, of_champion, margins, n_held_out)
    return Decision(conditions, _figures(metrics, of_champion, differences))


def _reference(samples: Samples) -> Reference:
    return build_reference(
        samples.real_features,
        samples.real_logits,
        samples.data["splits"]["train"]["class_counts"],
        benchmark_of(samples.data),
    )


def worst_class(challenger: Samples, champion: Samples, *, seed: int = SEED) -> Difference | None:
    """The distance of the challenger's worst class less that of the champion's, debiased.

    Classes are those asked for, else (also where the extractor cannot tell them) those it sees.
    None where no class, or more than 100, have ten images on every side.
    """
    reference = _reference(challenger)

    def groups(samples: Samples) -> np.ndarray:
        if samples.labels is not None and reference.labelled:
            return samples.labels
        return reference.groups_of(samples.features, samples.logits)

    n = len(reference.frequencies)
    sides = [(challenger.features, groups(challenger)), (champion.features, groups(champion))]
    reals = (challenger.real_features, reference.groups)
    fewest = np.min([np.bincount(g, minlength=n) for _, g in (*sides, reals)], axis=0)
    classes = np.flatnonzero(fewest >= FEWEST)
    if not 0 < len(classes) <= MOST_CLASSES:
        return None
    rows = [[f[g == k].astype(np.float64) for k in classes] for f, g in (*sides, reals)]
    rng = np.random.default_rng(seed)

    def drawn(x: np.ndarray) -> np.ndarray:
        return x[rng.integers(len(x), size=len(x))]

    def difference(parts: list[list[np.ndarray]]) -> float:
        a, b, real = parts
        worst = [
            max(frechet.distance(x, y) for x, y in zip(side, real, strict=True)) for side in (a, b)
        ]
        return worst[0] - worst[1]

    with single_threaded():
        plain = difference(rows)
        boot = [
            difference([[drawn(x) for x in part] for part in rows]) for _ in range(CLASS_RESAMPLES)
        ]
    delta, sd = 2 * plain - float(np.mean(boot)), float(np.std(boot, ddof=1))
    return Difference(delta, sd, delta - 1.96 * sd, delta + 1.96 * sd)


def _valid(metrics: dict[str, float], problems: list[str]) -> Condition:
    found = list(problems)
    found += [f"{key} is {value}" for key, value in metrics.items() if not math.isfinite(value)]
    found += [
        f"{key} failed"
        for key, value in metrics.items()
        if key.startswith("control_") and not value
    ]
    return Condition("valid", not found, "; ".join(found) or "package, figures and controls hold")


def _better(differences: dict[str, Difference], margins: Margins) -> Condition:
    key = "fid" if "fid" in differences else "fd"
    found = differences[key]
    bound = found.delta + margins.better_sds * found.sd
    return Condition(
        "better",
        bound < 0,
        f"{key} less the champion's: {_with_interval(found)}, with {margins.better_sds} deviations "
        f"{bound:.3g}, must be below 0",
        found.delta,
        found.low,
        found.high,
        0.0,
    )


def _not_inferior(key: str, differences: dict[str, Difference], margins: Margins) -> Condition:
    margin = getattr(margins, key)
    found = differences.get(key)
    if found is None:
        return Condition(key, False, f"{key} cannot be compared: too few images for its neighbours")
    bound = found.delta - SDS * found.sd
    return Condition(
        key,
        bound > -margin,
        f"{key} less the champion's: {_with_interval(found)}, lower bound {bound:.3g}, "
        f"must be above {-margin:g}",
        found.delta,
        found.low,
        found.high,
        -margin,
    )


def _label_kl(
    metrics: dict[str, float], champion: dict[str, float] | None, margins: Margins
) -> Condition:
    # Of many classes, chance alone exceeds a fixed bound.
    allowed = max(margins.label_kl, 2 * metrics["label_kl_floor"])
    if champion is not None:
        allowed = max(allowed, champion["label_kl"] + margins.label_kl_margin)
    value = metrics["label_kl"]
    low, high = metrics["label_kl_ci_low"], metrics["label_kl_ci_high"]
    return Condition(
        "label_kl",
        value <= allowed,
        f"label_kl {value:.3g} ({low:.3g} to {high:.3g}), must be at most {allowed:.3g}",
        value,
        low,
        high,
        allowed,
    )


def _worst_class(found: Difference, margins: Margins) -> Condition:
    bound = found.delta - margins.worst_class_sds * found.sd
    return Condition(
        "worst_class",
        bound <= 0,
        f"distance of the worst class less that of the champion's: {_with_interval(found)}, "
        f"lower bound {bound:.3g}, must not be above 0",
        found.delta,
        found.low,
        found.high,
        0.0,
    )


def _memorization(
    metrics: dict[str, float],
    champion: dict[str, float] | None,
    margins: Margins,
    n_held_out: int,
) -> list[Condition]:
    """Nothing for points, which cannot be copied."""
    if "nearcopy_rate" not in metrics:
        return []
    many = n_held_out >= memorization.MANY_HELD_OUT
    rate, low, high = (metrics[f"nearcopy_{x}"] for x in ("rate", "ci_low", "ci_high"))
    bound = margins.nearcopy * (1 if many else SCALE_OF_FEW)
    conditions = [
        Condition(
            "nearcopy",
            high < bound,
            f"nearcopy_rate {rate:.3g} ({low:.3g} to {high:.3g}), "
            f"upper end must be below {bound:g}",
            rate,
            low,
            high,
            bound,
        )
    ]
    if champion is not None and "nearcopy_rate" in champion:
        conditions.append(_more_copies(metrics, champion, n_held_out))
    z = metrics["ct_z"]
    conditions.append(
        Condition(
            "ct_z",
            z > margins.ct_z,
            f"ct_z {z:.3g}, must be above {margins.ct_z:g}",
            z,
            threshold=margins.ct_z,
        )
    )
    tpr, low, high = metrics["mia_tpr1"], metrics["mia_tpr1_ci_low"], metrics["mia_tpr1_ci_high"]
    text = f"mia_tpr1 {tpr:.3g} ({low:.3g} to {high:.3g})"
    bounded = f", upper end must be below {margins.mia_tpr1:g}"
    aside = ", reported only: fewer than 10,000 held-out images"
    conditions.append(
        Condition(
            "mia_tpr1",
            not many or high < margins.mia_tpr1,
            text + (bounded if many else aside),
            tpr,
            low,
            high,
            margins.mia_tpr1 if many else None,
        )
    )
    return conditions


def _more_copies(
    metrics: dict[str, float], champion: dict[str, float], n_held_out: int
) -> Condition:
    """Not significantly more near copies than both the champion and a generator without memory.

    A blurred champion has fewer than new real images would: a model that is as near to the training
    images as those are does not copy. What no memory gives is itself uncertain: its threshold is a
    quantile of the held-out images.
    """
    p, n = metrics["nearcopy_rate"], metrics["n_fake"]
    q, m = champion["nearcopy_rate"], champion["n_fake"]
    null = metrics["nearcopy_null"]
    references = (
        ("the champion's", q, q * (1 - q) / m),
        (f"that of no memory ({null:.2g})", null, null * (1 - null) / n_held_out),
    )
    bounds = []
    for name, reference, variance in references:
        sd = math.sqrt(p * (1 - p) / n + variance)
        bounds.append((p - reference - SDS * sd, name, p - reference, sd))
    bound, name, delta, sd = min(bounds)
    found = Difference(delta, sd, delta - 1.96 * sd, delta + 1.96 * sd)
    return Condition(
        "nearcopy_than_champion",
        bound <= 0,
        f"nearcopy_rate less {name}: {_with_interval(found)}, lower bound {bound:.3g}, "
        "must not be above 0",
        found.delta,
        found.low,
        found.high,
        0.0,
    )


def _figures(
    metrics: dict[str, float],
    champion: dict[str, float] | None,
    differences: dict[str, Difference],
) -> dict[str, dict[str, float | None]]:
    """Every figure that is judged or has an interval: value, champion's, difference, interval."""
    result: dict[str, dict[str, float | None]] = {}
    for key, value in metrics.items():
        if not compare.is_figure(key):
            continue
        entry: dict[str, float | None] = {"value": value}
        name = key.removesuffix("_rate")
        if f"{name}_ci_low" in metrics:
            entry |= {"low": metrics[f"{name}_ci_low"], "high": metrics[f"{name}_ci_high"]}
        if champion is not None and key in champion:
            entry["champion"] = champion[key]
            if key in differences:
                found = differences[key]
                entry |= {
                    "difference": found.delta,
                    "difference_low": found.low,
                    "difference_high": found.high,
                }
        result[key] = entry
    return result


def _with_interval(found: Difference) -> str:
    return f"{found.delta:.3g} ({found.low:.3g} to {found.high:.3g})"
