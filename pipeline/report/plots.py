"""Curves and bars as SVG texts, drawn by matplotlib without pyplot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.training.collapse import HIGHEST, LOWEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#6b7280"
RED = "#b00020"  # of alarms
POINTS = 400  # a longer curve is averaged to so many
MOST_BARS = 200  # more are drawn as a line

STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "axes.labelcolor": "#4b5563",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": "#e5e7eb",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same outs give the same page
    "text.color": "#1f2937",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
}
FONTS = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Chart:
    """Curves over kimg: columns of the history with their names, and what helps to read them."""

    title: str
    columns: dict[str, str]
    meaning: str
    log: bool = False
    lines: dict[str, float] = field(default_factory=dict)  # horizontal, by name
    limits: tuple[float, float] | None = None


def draw(
    chart: Chart,
    history: dict[str, np.ndarray],
    *,
    lines: dict[str, float] | None = None,
    mark: tuple[float, float, str] | None = None,
    alarms: Sequence[float] = (),
) -> str | None:
    """`chart` as SVG; None where the history has none of its columns.

    `lines` are further horizontal lines, `mark` one point: kimg, value, name; `alarms` are the kimg
    at which each curve gets a mark.
    """
    import matplotlib

    shown = {c: name for c, name in chart.columns.items() if np.isfinite(history.get(c, [])).any()}
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _canvas(5.2, 2.7, top=0.55, bottom=0.45)
        for (column, name), colour in zip(shown.items(), (BLUE, ORANGE, GREEN), strict=False):
            x, y = thinned(history["kimg"], history[column])
            sparse = len(x) <= 40
            axes.plot(x, y, color=colour, label=name, marker="o" if sparse else None, markersize=3)
            at = np.interp(alarms, x, y)
            axes.plot(alarms, at, "X", color=RED, markersize=8, ls="none", zorder=3)
        if alarms:
            axes.plot([], [], "X", color=RED, markersize=8, ls="none", label="collapse alarm")
        for name, value in {**chart.lines, **(lines or {})}.items():
            alarm = name.startswith("alarm")
            axes.axhline(value, color=ORANGE if alarm else GREY, ls="--", lw=1.1, label=name)
        if mark:
            x_best, y_best, name = mark
            axes.plot(x_best, y_best, "D", color=GREEN, markersize=6, label=name, ls="none")
        if chart.log:
            _log_scale(axes)
        if chart.limits:
            axes.set_ylim(*chart.limits)
        axes.set_xlabel("kimg")
        axes.set_xlim(left=0)
        axes.set_title(chart.title, pad=22)
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=4, borderpad=0, borderaxespad=0.2,
            handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip
        return _svg(figure)


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The finite points of a curve, averaged to 400 where there are more."""
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= POINTS:
        return x, y
    parts = [np.array_split(values, POINTS) for values in (x, y)]
    return np.array([p.mean() for p in parts[0]]), np.array([p.mean() for p in parts[1]])


def class_bars(
    names: list[str], reals: np.ndarray, fakes: np.ndarray, *, label: str, of_reals: str
) -> str:
    """Two bars a class as SVG: of reals (K,), which are called `of_reals`, and of samples (K,).

    NaN draws none; very many classes are two lines. `label` names what the bars' height is.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        few = range(len(names)) if len(names) <= 20 else range(0, len(names), -(-len(names) // 20))
        long = max(len(names[i]) for i in few) > 5
        figure, axes = _canvas(10.4, 2.6, top=0.3, bottom=0.9 if long else 0.3)
        places = np.arange(len(names))
        if len(names) <= MOST_BARS:
            axes.bar(places - 0.2, reals, 0.38, color="#9ca3af", label=of_reals)
            axes.bar(places + 0.2, fakes, 0.38, color=BLUE, label="samples")
        else:
            axes.step(places, reals, where="mid", color="#9ca3af", lw=0.8, label=of_reals)
            axes.step(places, fakes, where="mid", color=BLUE, lw=0.8, label="samples")
        axes.grid(False, axis="x")
        axes.set_axisbelow(True)
        axes.set_xticks(few, [names[i][:16] for i in few], rotation=35 if long else 0,
                        ha="right" if long else "center")  # fmt: skip
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylabel(label)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, borderaxespad=0.2)
        return _svg(figure)


def _canvas(width: float, height: float, *, top: float, bottom: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    # Fixed margins in inches: a layout engine takes longer than the drawing.
    left, right = 0.52, 0.1
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def _log_scale(axes: Any) -> None:
    """Logarithmic where all is positive, with plain numbers at the ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    if values.min() <= 0:
        return
    axes.set_yscale("log")
    subs = (1.0, 2.0, 5.0) if values.max() / values.min() < 300 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace("'DejaVu Sans'", FONTS)


def _signal(key: str, title: str, meaning: str, ideal: float | None = None) -> Chart:
    side, threshold = ("above", HIGHEST[key]) if key in HIGHEST else ("below", LOWEST[key])
    lines = {f"alarm {side} {threshold}": threshold}
    if ideal is not None:
        lines["ideal"] = ideal
    return Chart(title, {f"eval_{key}": key}, meaning, log=ideal is None, lines=lines)


CHARTS = {
    "fd": Chart("Distance on val", {"eval_fd": "fd on val"},
                "Lower is better. Val has other images, and fewer, than the test split to which "
                "the floor belongs.", log=True),
    "hq": Chart("Samples of high quality on val", {"eval_hq": "share"},
                "Within three deviations of the nearest mode: 98.9% of a perfect sampler's are.",
                limits=(-0.03, 1.03)),
    "reverse_kl": Chart("Modes in proportion", {"eval_reverse_kl": "reverse KL",
                                                "eval_reverse_kl_floor": "perfect sampler"},
                        "KL of the modes' histogram against the uniform one.", log=True),
    "losses": Chart("Losses", {"loss_g": "generator", "loss_d": "discriminator"},
                    "They need not fall: the two play against each other."),
    "logits": Chart("D's mean logits", {"d_real": "real", "d_fake": "fake"},
                    "Far apart: D tells them with ease. Together: it is guessing."),
    "accuracy": Chart("D's accuracy", {"d_acc_real": "on real", "d_acc_fake": "on fake"},
                      "Both near 1: G gets little to learn from.", lines={"guessing": 0.5},
                      limits=(-0.03, 1.03)),
    "gradients": Chart("Gradient norms", {"grad_norm_g": "generator",
                                          "grad_norm_d": "discriminator"},
                       "Sudden jumps come before divergence.", log=True),
    "label_kl": _signal("label_kl", "Collapse: classes", "KL of the classes' proportions."),
    "ndb_jsd": _signal("ndb_jsd", "Collapse: regions", "Divergence over regions of feature space."),
    "selfnn_ratio": _signal("selfnn_ratio", "Collapse: resemblance", "Distance between samples "
                            "over that between reals.", ideal=1.0),
    "within_var_ratio": Chart("Collapse: variety within classes",
                              {"eval_within_var_ratio": "within_var_ratio"},
                              "Of the least varied class, over that of reals.",
                              lines={"ideal": 1.0}),
    "speed": Chart("Images per second", {"images_per_second": "shown to D"},
                   "Time for evaluation and checkpoints is not in it."),
}  # fmt: skip
