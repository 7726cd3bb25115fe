"""What came out, in words: the first sentence, the alarms, and each figure with its meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Mode collapse in the evaluation: the figure, the side on which it is alarming, the threshold.
# Stricter than the alarm of a training, which must not end one that is not done yet.
THRESHOLDS = {
    "label_kl": (">", 0.1, "classes, or groups of similar images, are out of proportion"),
    "ndb_jsd": (">", 0.05, "parts of the data are missing or made too often"),
    "selfnn_ratio": ("<", 0.5, "the samples resemble each other too much"),
}


@dataclass(frozen=True)
class Meaning:
    """One line of the table of figures. `low`, `high`, `spread` and `reals` are names of metrics.

    `ideal` is what a perfect generator comes to, where no metric `reals` says what reals do.
    """

    key: str
    text: str
    low: str = ""
    high: str = ""
    spread: str = ""
    reals: str = ""
    ideal: str = ""

    @property
    def companions(self) -> set[str]:
        return {self.low, self.high, self.spread, self.reals}


@dataclass(frozen=True)
class Figure:
    """A line of the table as text."""

    key: str
    value: str
    interval: str
    reals: str
    meaning: str


def number(value: float, digits: int = 3) -> str:
    """`value` with at least so many significant digits, never as a power of ten if above 1."""
    if abs(value) >= 10**digits or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def sentence(metrics: dict[str, float], presence: str) -> str:
    """What came out, e.g. "fd 3.1 on 1,000 test images, 2.4 times the floor of 1.3 ...".

    Of a mode benchmark its own figures.
    """
    if "reverse_kl" in metrics:
        good = f", {100 * metrics['hq']:.1f}% of high quality" if "hq" in metrics else ""
        return (
            f"{metrics['modes']:,.0f} of {metrics['n_groups']:,.0f} modes among "
            f"{metrics['n_fake']:,} samples{good}, reverse KL {number(metrics['reverse_kl'])} "
            f"(a perfect sampler: {number(metrics['reverse_kl_floor'], 2)})."
        )
    key = "fid" if "fid" in metrics else "fd"
    value, floor = metrics[key], metrics[f"{key}_floor"]
    return (
        f"{key} {number(value)} on {metrics['n_real']:,} test images, "
        f"{number(value / floor, 2)} times the floor of {number(floor, 2)} that real images reach; "
        f"{presence}."
    )


def alarm(events: Sequence[Mapping[str, str]]) -> str:
    """What the training's alarm came to, as a sentence; empty where it never sounded.

    `events` are those of events.csv: step, kind and text.
    """
    sounded = [event for event in events if event["kind"] in ("alarm", "not_finite")]
    if not sounded:
        return ""
    step, text = int(sounded[0]["step"]), sounded[0]["text"].removeprefix("collapse: ")
    what = "The collapse alarm sounded" if sounded[0]["kind"] == "alarm" else "Training failed"
    told = f"{what} at step {step:,} ({text})"
    if len(sounded) > 1:
        told += f", {len(sounded)} times in all"
    kinds = [event["kind"] for event in events if event["kind"] != "balance"]
    rollbacks = kinds.count("rollback")
    if rollbacks:
        told += f"; the training was taken back {rollbacks} time{'s' if rollbacks > 1 else ''}"
    if kinds[-1] == "stop":
        return f"{told}; the training was stopped there."
    quiet = kinds[-1] in ("clear", "rollback")
    return f"{told}; {'it has been silent since' if quiet else 'it sounded to the end'}."


def blind(text: str) -> str:
    """An alarm of its own: the extractor is near chance, as `text` says."""
    return (
        f"{sentence_case(text)}. Figures in its features say little, and no classes are counted: "
        "raise features.epochs, or add images."
    )


def sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def presence(
    logits: np.ndarray,
    class_names: list[str] | None,
    class_counts: np.ndarray | None,
    modes: float,
    n_groups: float,
) -> str:
    """Which classes are among the samples, told by the extractor's logits (N, K).

    Without labels how many (`modes`) of the groups of similar reals have a sample.
    """
    if class_names is None or class_counts is None:
        every = f"{modes:.0f} of" if modes < n_groups else "all"
        return f"{every} {n_groups:.0f} groups of similar images are present"
    seen = np.bincount(logits.argmax(axis=1), minlength=len(class_names)) > 0
    wanted = np.flatnonzero(class_counts > 0)
    missing = [class_names[k] for k in wanted if not seen[k]]
    if not missing:
        return f"all {len(wanted)} classes are present"
    named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return f"{len(wanted) - len(missing)} of {len(wanted)} classes are present (missing: {named})"


def alarms(metrics: dict[str, float]) -> list[str]:
    """One line for each failed control and each signal of mode collapse beyond its threshold."""
    lines = [
        f"Control {key.removeprefix('control_')} failed: do not trust these figures."
        for key, value in metrics.items()
        if key.startswith("control_") and not value
    ]
    for key, (side, threshold, text) in THRESHOLDS.items():
        value = metrics[key]
        if value > threshold if side == ">" else value < threshold:
            sign = "above" if side == ">" else "below"
            lines.append(f"Mode collapse: {key} {number(value)} is {sign} {threshold}: {text}.")
    return lines


def figures(metrics: dict[str, float]) -> list[Figure]:
    """Every metric once: those of `MEANINGS` in its order, then any that it does not know."""
    rows = [_figure(meaning, metrics) for meaning in MEANINGS if meaning.key in metrics]
    told = {meaning.key for meaning in MEANINGS} | {"n_real", "n_fake"}
    told = told.union(*(meaning.companions for meaning in MEANINGS))
    rows += [
        Figure(key, _passed(value) if key.startswith("control_") else number(value), "", "",
               CONTROLS.get(key, ""))
        for key, value in metrics.items()
        if key not in told
    ]  # fmt: skip
    return rows


def _figure(meaning: Meaning, metrics: dict[str, float]) -> Figure:
    interval = ""
    if meaning.low in metrics:
        interval = f"{number(metrics[meaning.low])} to {number(metrics[meaning.high])}"
    elif meaning.spread in metrics:
        interval = f"± {number(metrics[meaning.spread], 2)}"
    reals = number(metrics[meaning.reals]) if meaning.reals in metrics else meaning.ideal
    value = metrics[meaning.key]
    text = _passed(value) if meaning.key == "controls" else number(value)
    return Figure(meaning.key, text, interval, reals, meaning.text)


def _passed(value: float) -> str:
    return "passed" if value else "failed"


CONTROLS = {
    "control_real_vs_real": "Two halves of the reals are at distance 0, within the noise.",
    "control_dropped_class": "A class taken away from the reals raises label_kl.",
    "control_held_out_is_no_copy": "Held-out images are not taken for copies.",
    "control_planted_copies": "Planted copies of training images raise nearcopy_rate.",
}

MEANINGS = [
    Meaning("fd", "Fréchet distance between samples and test images; lower is better. Interval: "
            "95%, with the bias of a finite sample taken off, so it may lie below the value.",
            low="fd_ci_low", high="fd_ci_high", reals="fd_floor"),
    Meaning("fd_inf", "fd extrapolated to infinitely many images: information only.", ideal="0"),
    Meaning("hq", "Share of samples within three deviations of the nearest mode. Interval: 95%.",
            low="hq_ci_low", high="hq_ci_high", ideal="0.989"),
    Meaning("reverse_kl", "KL of the modes' histogram against the uniform one, over the samples "
            "that count (of points those of high quality). Interval: 95%, with the bias of a "
            "finite sample taken off.", low="reverse_kl_ci_low", high="reverse_kl_ci_high",
            reals="reverse_kl_floor"),
    Meaning("fid", "Fréchet Inception distance; lower is better, and lower with more images. "
            "Interval: 95%, at these numbers of images.",
            low="fid_ci_low", high="fid_ci_high", reals="fid_floor"),
    Meaning("fid_inf", "fid extrapolated to infinitely many images: information only.", ideal="0"),
    Meaning("kid", "Kernel distance; unbiased, so reals come to 0. Interval: one standard error.",
            spread="kid_se", ideal="0"),
    Meaning("mind", "Sliced Wasserstein distance: it sees more than means and covariances. "
            "Interval: 95%, at these numbers of images.",
            low="mind_ci_low", high="mind_ci_high", reals="mind_floor"),
    Meaning("precision", "Share of samples that lie among the reals: quality. Interval: 95%.",
            low="precision_ci_low", high="precision_ci_high", ideal="→ 1"),
    Meaning("recall", "Share of reals that lie among the samples: variety. Interval: 95%.",
            low="recall_ci_low", high="recall_ci_high", ideal="→ 1"),
    Meaning("density", "As precision, but counting how many reals are near. Interval: 95%.",
            low="density_ci_low", high="density_ci_high", ideal="≈ 1"),
    Meaning("coverage", "Share of reals with a sample nearby: variety. Interval: 95%.",
            low="coverage_ci_low", high="coverage_ci_high", ideal="→ 1"),
    Meaning("label_kl", "How far the classes are from their proportions in training; alarm above "
            "0.1. Interval: 95%, with the bias of a finite sample taken off.",
            low="label_kl_ci_low", high="label_kl_ci_high", reals="label_kl_floor"),
    Meaning("modes", "Classes, or groups of similar images, with at least one sample; of points "
            "with one of high quality."),
    Meaning("ndb_jsd", "How unevenly the samples fill the regions that reals fill; alarm above "
            "0.05. Interval: 95%, with the bias of a finite sample taken off.",
            low="ndb_jsd_ci_low", high="ndb_jsd_ci_high", ideal="0"),
    Meaning("selfnn_ratio", "Distance from a sample to its nearest sample, over that among reals; "
            "alarm below 0.5. Interval: 95%.",
            low="selfnn_ratio_ci_low", high="selfnn_ratio_ci_high", ideal="1"),
    Meaning("within_var_ratio", "Variety within the least varied class, over that of reals: the "
            "least of several, so below 1 by chance. Interval: 95%, at these numbers of images.",
            low="within_var_ratio_ci_low", high="within_var_ratio_ci_high", ideal="→ 1"),
    Meaning("dup_rate", "Share of samples that repeat another one exactly.", ideal="0"),
    Meaning("confidence", "Mean certainty of the extractor about a sample's class.",
            reals="confidence_real"),
    Meaning("label_accuracy", "Share of samples told to be of the class that was asked for. "
            "Interval: 95%.",
            low="label_accuracy_ci_low", high="label_accuracy_ci_high", ideal="→ 1"),
    Meaning("fd_per_class", "Distance within each class, the mean over classes.",
            reals="fd_per_class_floor"),
    Meaning("fd_worst_class", "Distance of the class farthest above its floor.",
            reals="fd_worst_class_floor"),
    Meaning("fid_per_class", "Inception distance within each class, the mean over classes.",
            reals="fid_per_class_floor"),
    Meaning("fid_worst_class", "Inception distance of the class farthest above its floor.",
            reals="fid_worst_class_floor"),
    Meaning("worst_class", "Which class that is, counted from 0."),
    Meaning("cas", "Accuracy on test images of a classifier that learnt from samples only; beside "
            "it, of one that learnt from the training images. Interval: 95%.",
            low="cas_ci_low", high="cas_ci_high", reals="cas_real"),
    Meaning("nearcopy_rate", "Share of samples as near to a training image, in pixels, as the "
            "nearest 0.1% of held-out images (1% of fewer than 10,000). Interval: 95%.",
            low="nearcopy_ci_low", high="nearcopy_ci_high", reals="nearcopy_null"),
    Meaning("nn_share", "Share of samples nearer to the training images than to equally many "
            "held-out ones. Interval: 95%.",
            low="nn_share_ci_low", high="nn_share_ci_high", ideal="0.5"),
    Meaning("ct_z", "Are samples nearer to the training images than held-out images are? Copying "
            "below -3. Interval: one deviation without memory.", spread="ct_z_null_sd",
            ideal="≥ 0"),
    Meaning("mia_tpr1", "Share of training images that an outsider finds by the samples while "
            "wrongly naming 1% of held-out images. Interval: 95%.",
            low="mia_tpr1_ci_low", high="mia_tpr1_ci_high", ideal="0.01"),
    Meaning("n_groups", "Classes, or without labels groups of similar images, that there are."),
    Meaning("is_mean", "Inception score, at most the number of the extractor's classes: "
            "information only.",
            spread="is_std"),
    Meaning("controls", "The metrics see what is planted and nothing where nothing is."),
]  # fmt: skip
