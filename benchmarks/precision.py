"""bf16 against fp32 on the plain recipe, seed by seed: what quality it costs and time it saves.

Each seed is trained and measured twice, alike but for `train.precision`, through the pipeline's own
stages in .cache/benchmarks/precision/; what is done is kept by the content of code and params, so
that the same command goes on where it was stopped. Pairs run in turn, so that other load falls on
both. The table has every run's figures and the mean of the differences with its 95% interval.

    python benchmarks/precision.py                              # 3 seeds, 2,000 steps
    python benchmarks/precision.py --steps 7000 --seeds 5 --out docs/speed.md
"""

from __future__ import annotations

import argparse
import os
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from pipeline import errors, files, logs, paths
from pipeline.benchmark import runs, tables
from pipeline.errors import UserError

PRECISIONS = ("fp32", "bf16")
FIGURES = ("fd", "precision", "recall", "density", "coverage", "label_kl")
MARK = "precision"


def pairs(steps: int, seeds: int, changes: list[str]) -> list[dict[str, dict[str, Any]]]:
    """Of each seed both results."""
    folder, found = paths.benchmarks() / MARK, []
    for seed in range(seeds):
        pair = {}
        for precision in PRECISIONS:
            asked = [f"train.steps={steps}", f"train.precision={precision}", *changes]
            values = runs.settings("dcgan", asked)
            (pair[precision],) = runs.run(values, [seed], folder)
            shown = ", ".join(f"{name} {pair[precision]['metrics'][name]:.3g}" for name in FIGURES)
            print(f"seed {seed}, {precision}: {shown}", flush=True)
        found.append(pair)
    return found


def milliseconds(result: dict[str, Any], batch_size: int) -> float:
    """A step's, evaluations aside."""
    training = result["training"]
    return 1000 * training["seconds"] * batch_size / training["images"]


def rows(found: list[dict[str, dict[str, Any]]], batch_size: int) -> list[tuple[str, ...]]:
    """Of each seed and precision a row, then the differences."""
    lines = []
    for seed, pair in enumerate(found):
        for precision in PRECISIONS:
            metrics = pair[precision]["metrics"]
            cells = (f"{metrics[name]:.4g}" for name in FIGURES)
            time = f"{milliseconds(pair[precision], batch_size):.1f}"
            lines.append((f"seed {seed}, {precision}", *cells, time))
    differences = []
    for name in FIGURES:
        values = [pair["bf16"]["metrics"][name] - pair["fp32"]["metrics"][name] for pair in found]
        differences.append(with_interval(np.asarray(values)))
    ratios = [
        milliseconds(pair["fp32"], batch_size) / milliseconds(pair["bf16"], batch_size)
        for pair in found
    ]
    speed = f"{np.median(ratios):.2f} times as fast"
    return [*lines, ("bf16 less fp32, mean ± 95% interval", *differences, speed)]


def with_interval(values: np.ndarray) -> str:
    """Mean and half width of Student's interval."""
    if len(values) < 2:
        return f"{values.mean():+.3g}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.3g} ± {half:.2g}"


def markdown(found: list[dict[str, dict[str, Any]]], batch_size: int, steps: int) -> str:
    head = ("", *FIGURES, "ms a step")
    table = [head, ("---",) * len(head), *rows(found, batch_size)]
    metrics = found[0]["fp32"]["metrics"]
    about = (
        f"{date.today().isoformat()}, {tables.processor()}, {os.cpu_count()} cores, "
        f"{steps:,} steps; {metrics['n_fake']:.0f} samples against "
        f"{metrics['n_real']:.0f} test images, where reals "
        f"have an fd of {metrics['fd_floor']:.2g}."
    )
    return "\n".join("| " + " | ".join(row) + " |" for row in table) + f"\n\n{about}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-S", dest="change", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="the page to write the table to")
    arguments = parser.parse_args()
    found = pairs(arguments.steps, arguments.seeds, arguments.change)
    batch_size = runs.settings("dcgan", arguments.change)["train"]["batch_size"]
    text = markdown(found, batch_size, arguments.steps)
    print(f"\n{text}")
    if arguments.out:
        marks = re.compile(rf"(<!-- {MARK} -->\n).*?(<!-- end {MARK} -->)", re.S)
        page = arguments.out.read_text(encoding="utf-8")
        if not marks.search(page):
            raise UserError(f"{arguments.out}: no place <!-- {MARK} --> to <!-- end {MARK} -->")
        page = marks.sub(lambda match: match[1] + text + match[2], page)
        files.write_bytes(arguments.out, page.encode())


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
