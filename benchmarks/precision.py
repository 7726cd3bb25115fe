"""bf16 against fp32 on presets, seed by seed: what quality it costs and what time it saves.

Each seed is trained and measured twice, alike but for `train.precision`, through the pipeline's own
stages in .cache/benchmarks/precision/; what is done is kept by the content of code and params, so
that the same command goes on where it was stopped. Pairs run in turn, so that other load falls on
both. A table has every run's figures and the mean of the differences with its 95% interval; below
it stands which of these intervals tell the two apart.

    python -m benchmarks.precision                              # dcgan, 3 seeds, 2,000 steps
    python -m benchmarks.precision --preset dcgan default --out docs/speed.md
    python -m benchmarks.precision --steps 7000 --seeds 5
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks import pages
from pipeline import errors, logs, paths
from pipeline.benchmark import runs, tables

PRECISIONS = ("fp32", "bf16")
# figure -> whether more of it is better
FIGURES = {
    "fd": False,
    "precision": True,
    "recall": True,
    "density": True,
    "coverage": True,
    "label_kl": False,
}
MARK = "precision"

Pair = dict[str, dict[str, Any]]  # precision -> what `runs.run` says


def pairs(preset: str, steps: int, seeds: int, changes: list[str]) -> list[Pair]:
    """Of each seed both results."""
    folder, found = paths.benchmarks() / MARK, []
    for seed in range(seeds):
        pair = {}
        for precision in PRECISIONS:
            asked = [f"train.steps={steps}", f"train.precision={precision}", *changes]
            values = runs.settings(preset, asked)
            (pair[precision],) = runs.run(values, [seed], folder)
            shown = ", ".join(f"{name} {pair[precision]['metrics'][name]:.3g}" for name in FIGURES)
            print(f"{preset}, seed {seed}, {precision}: {shown}", flush=True)
        found.append(pair)
    return found


def milliseconds(result: dict[str, Any], batch_size: int) -> float:
    """A step's, evaluations aside."""
    training = result["training"]
    return 1000 * training["seconds"] * batch_size / training["images"]


def rows(found: list[Pair], batch_size: int) -> list[tuple[str, ...]]:
    """Of each seed and precision a row, then the differences."""
    lines = []
    for seed, pair in enumerate(found):
        for precision in PRECISIONS:
            metrics = pair[precision]["metrics"]
            cells = (f"{metrics[name]:.4g}" for name in FIGURES)
            time = f"{milliseconds(pair[precision], batch_size):.1f}"
            lines.append((f"seed {seed}, {precision}", *cells, time))
    ratios = [
        milliseconds(pair["fp32"], batch_size) / milliseconds(pair["bf16"], batch_size)
        for pair in found
    ]
    cells = (with_interval(*difference(found, name)) for name in FIGURES)
    speed = f"{np.median(ratios):.2f} times as fast"
    return [*lines, ("bf16 less fp32, mean ± 95% interval", *cells, speed)]


def difference(found: list[Pair], name: str) -> tuple[float, float | None]:
    """bf16's figure less fp32's: mean and half width of Student's interval, which one has not."""
    values = np.array(
        [pair["bf16"]["metrics"][name] - pair["fp32"]["metrics"][name] for pair in found]
    )
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else None
    return float(values.mean()), half


def with_interval(mean: float, half: float | None) -> str:
    return f"{mean:+.3g}" + ("" if half is None else f" ± {half:.2g}")


def verdict(found: list[Pair]) -> str:
    """Which of the intervals leave out 0, and in whose favour."""
    if len(found) < 2:
        return "One seed has no interval."
    told: dict[str, list[str]] = {"bf16": [], "fp32": [], "neither": []}
    for name, more_is_better in FIGURES.items():
        mean, half = difference(found, name)
        assert half is not None
        better = "bf16" if (mean > 0) == more_is_better else "fp32"
        told[better if abs(mean) > half else "neither"].append(name)
    bf16, fp32, neither = (", ".join(names) or "none" for names in told.values())
    return (
        f"The 95% interval of the difference leaves out 0, in favour of bf16, for: {bf16}; in "
        f"favour of fp32, for: {fp32}; it includes 0 for: {neither}."
    )


def section(preset: str, found: list[Pair], values: dict[str, Any], when: str) -> list[str]:
    """The preset's table, what it was made of, and what it says."""
    metrics = found[0]["fp32"]["metrics"]
    about = (
        f"{when}; {values['train']['steps']:,} steps; {metrics['n_fake']:,.0f} samples against "
        f"{metrics['n_real']:,.0f} test images, where reals have an fd of "
        f"{metrics['fd_floor']:.2g}."
    )
    table = pages.markdown(("", *FIGURES, "ms a step"), rows(found, values["train"]["batch_size"]))
    return [f"`{preset}`:", "", *table, "", about, "", verdict(found), ""]


def stamp() -> str:
    """Date, processor and threads, and whether other work ran there when the measuring began."""
    n = torch.get_num_threads()
    threads = f"{n} thread{'s' * (n > 1)}"
    return f"{date.today().isoformat()}, {tables.processor()}, {threads}, {pages.beside()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--preset", nargs="+", default=["dcgan"], metavar="NAME")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-S", dest="change", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="the page to write the tables to")
    arguments = parser.parse_args()
    if arguments.out:
        pages.place(arguments.out, MARK)
    when, lines = stamp(), []
    steps = f"train.steps={arguments.steps}"
    for preset in arguments.preset:
        found = pairs(preset, arguments.steps, arguments.seeds, arguments.change)
        values = runs.settings(preset, [steps, *arguments.change])
        lines += section(preset, found, values, when)
    print("\n" + "\n".join(lines))
    if arguments.out:
        pages.write(arguments.out, MARK, lines)


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
