"""A benchmark's results: means over seeds beside published rows, as a table, Markdown and JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import grids, lineage
from pipeline.benchmark.published import Protocol
from pipeline.errors import UserError

FIGURES = ("modes", "hq", "reverse_kl")
GAP = 8  # pixels between the pictures of two seeds


def summary(
    name: str,
    label: str,
    protocol: Protocol,
    values: dict[str, Any],
    results: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """All that a benchmark came to, as JSON: means, deviations over seeds (None of one), rows."""
    ours = {}
    for key in FIGURES:
        found = np.array([result["metrics"][key] for result in results if key in result["metrics"]])
        if len(found):
            spread = float(found.std(ddof=1)) if len(found) > 1 else None
            ours[key] = {"mean": float(found.mean()), "sd": spread}
    return {
        "benchmark": name,
        "label": label,
        "date": date.today().isoformat(),
        "processor": processor(),
        "commit": _commit(),
        "samples": results[0]["metrics"]["n_fake"],
        "steps": values["train"]["steps"],
        "seconds": float(np.mean([result["seconds"] for result in results])),
        "ours": ours,
        "ideal": vars(protocol.ideal),
        "published": [vars(row) for row in protocol.rows],
        "seeds": list(results),
        "params": lineage.flatten(values),
    }


def rows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    """Heading and lines: ours, the perfect sampler, the published ones."""
    n = len(told["seeds"])
    points = "hq" in told["ours"]
    head: tuple[str, ...] = ("", f"modes of {told['ideal']['modes']}", "high quality", "reverse KL")
    lines: list[tuple[str, ...]] = [
        (f"this pipeline, {n} seed{'s' * (n > 1)}", *_ours(told["ours"]))
    ]
    for row in [told["ideal"], *told["published"]]:
        lines.append(
            (
                str(row["method"]),
                f"{row['modes']:g}",
                _percent(row["hq"]),
                "-" if row["reverse_kl"] is None else f"{row['reverse_kl']:.2g}",
            )
        )
    table = [head, *lines]
    return table if points else [(*row[:2], row[3]) for row in table]


def markdown(told: dict[str, Any]) -> str:
    """The table with what must be said beside it."""
    head, *lines = rows(told)
    table = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)]
    seeds = [
        f"| {result['seed']} | {result['metrics']['modes']:g} | "
        + (f"{_percent(result['metrics']['hq'])} | " if "hq" in result["metrics"] else "")
        + f"{result['metrics']['reverse_kl']:.4f} | {_spent(result)} |"
        for result in told["seeds"]
    ]
    columns = ["seed", *head[1:], "training and evaluation"]
    return "\n".join(
        [
            f"# {told['benchmark']}: {told['label']}",
            "",
            *table,
            "",
            f"{told['samples']:,} samples a seed; means ± deviation over the seeds. "
            f"{told['steps']:,} generator updates. {told['date']}, {told['processor']}, commit "
            f"{told['commit']}.",
            "",
            "| " + " | ".join(columns) + " |",
            "| " + " | ".join(["---"] * len(columns)) + " |",
            *seeds,
            "",
        ]
    )


def picture(results: Sequence[dict[str, Any]], folder: Path, out: Path, most: int = 3) -> None:
    """The samples of the first seeds side by side, as PNG."""
    from PIL import Image

    parts = []
    for result in results[:most]:
        with Image.open(folder / result["picture"]) as image:
            parts += [np.asarray(image.convert("RGB"))]
    gap = np.full((parts[0].shape[0], GAP, 3), 255, np.uint8)
    joined = [part for image in parts for part in (gap, image)][1:]
    grids.save_png(out, np.concatenate(joined, axis=1))


def processor() -> str:
    """The machine in words: its processor and how many of it this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = named[0].partition(":")[2].strip() if named else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def _ours(ours: dict[str, Any]) -> tuple[str, str, str]:
    def told(key: str, scale: float, digits: int) -> str:
        if key not in ours:
            return "-"
        mean, spread = ours[key]["mean"] * scale, ours[key]["sd"]
        return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread * scale:.{digits}f}")

    hq = told("hq", 100, 1)
    return told("modes", 1, 1), hq if hq == "-" else f"{hq} %", told("reverse_kl", 1, 4)


def _spent(result: dict[str, Any]) -> str:
    cpu = f" ({result['cpu_seconds']:.0f} CPU-s)" if "cpu_seconds" in result else ""
    return f"{result['seconds']:.0f} s{cpu}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _commit() -> str:
    try:
        facts = lineage.git_facts()
    except UserError:
        return "unknown"
    changed = " with uncommitted changes" if facts["git_dirty"] == "true" else ""
    return facts["git_commit"][:12] + changed
