"""Does the promotion gate pass better trained models, and stop equal and worse ones?

    python -m benchmarks.gate_trained [--seeds 3] [--docs]

Where benchmarks/gate.py simulates, this trains: recipes on the default's digits, each with several
seeds and for all of its updates, a quarter or an eighth of them. Against an eighth all are clearly
better. Seeds begin at 2: 0 and 1 were looked at while the gate was made. The last average of every
one is scored as `evaluate` does, and the gate decides about all pairs. Trainings are kept below
.cache/benchmarks/gate-trained by the content of code and params, so that the same command goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recipes import Recipe
from pipeline import config, errors, evaluation, extractor, files, lineage, logs, paths, scoring
from pipeline.benchmark import runs, tables
from pipeline.datasets import prepared
from pipeline.evaluated import Evaluated, Samples
from pipeline.registry import gate
from pipeline.sampling import class_labels, sample_images

DOCS = Path("docs/registry.md")
FIRST_SEED = 2
FULL = {"dcgan": 7000, "default": 4000}  # preset -> all of its updates of G
PARTS = {"an eighth": 8, "a quarter": 4, "all": 1}
# (preset, part) -> updates of G
MODELS = {
    (preset, part): steps // share
    for preset, steps in FULL.items()
    for part, share in PARTS.items()
}
# The challenger is, in what it was given: kind -> (champion, challenger)
PAIRS = [
    (kind, (preset, before), (preset, after))
    for kind, before, after in (
        ("clearly better", "an eighth", "all"),
        ("better", "a quarter", "all"),
        ("equal", "all", "all"),
        ("worse", "all", "a quarter"),
    )
    for preset in FULL
]
PAIRS.append(("nearer, but narrower", ("dcgan", "all"), ("default", "all")))


def model(preset: str, steps: int, seed: int, folder: Path) -> Evaluated:
    """The evaluation of one training: kept below `folder`, or made now."""
    values = runs.settings(preset, [f"train.steps={steps}"]) | {"seed": seed}
    stages = ("prepare", "features", "train", "evaluate")
    inputs = {s: lineage.stage_inputs(s, values, code_only=True) for s in stages}
    kept = folder / files.json_hash(inputs)[:16]
    if not kept.exists():
        print(f"{preset}, {steps} updates, seed {seed} ...", flush=True)
        with contextlib.chdir(folder / "work"):
            scored = trained(values, steps)
        with files.atomic_folder(kept) as fresh:
            scored.samples.write(fresh)
            files.write_json(fresh / "metrics.json", scored.metrics)
    name = f"{preset} {steps} {seed}"
    metrics = files.read_json(kept / "metrics.json")
    return Evaluated(
        name, metrics, {"neighbours": values["evaluate"]["neighbours"]}, Samples.read(kept)
    )


def trained(values: dict[str, Any], steps: int) -> scoring.Scored:
    params, data = config.check(values), prepared.load()
    one = Recipe(values, data)
    state, _ = one.train(steps, [])
    settings = params.evaluate
    counts = data.manifest["splits"]["train"]["class_counts"]
    n = min(settings.samples, len(data.split("train")))
    labels = class_labels(counts, n, settings.seed) if one.n_classes else None
    images = sample_images(state.ema.eval(), n=n, seed=settings.seed, labels=labels)
    judge = scoring.Judge(
        data=data,
        network=extractor.load(),
        config=extractor.load_config(),
        weights=None,
        settings=evaluation.Settings(
            neighbours=settings.neighbours, bootstraps=settings.bootstraps, seed=settings.seed
        ),
        cas=False,
        batch_size=settings.batch_size,
        device=torch.device("cpu"),
    )
    return scoring.score(images, labels, judge, scoring.see(images, labels, judge))


Named = tuple[str, str]  # preset, part


def decided(
    models: dict[tuple[Named, int], Evaluated],
    champion: Named,
    challenger: Named,
    margins: gate.Margins,
) -> Iterator[gate.Decision]:
    """About every pair of seeds; of one recipe, of two different seeds."""
    for (name, i), one in models.items():
        for (other_name, j), other in models.items():
            if (name, other_name) != (champion, challenger) or (name == other_name and i == j):
                continue
            assert other.samples is not None
            n_held_out = other.samples.data["splits"]["test"]["n"]
            yield gate.decide(other, one, margins, problems=[], n_held_out=n_held_out)


def table(models: dict[tuple[Named, int], Evaluated], margins: gate.Margins) -> str:
    def told(name: Named) -> str:
        fds = [m.metrics["fd"] for (own, _), m in models.items() if own == name]
        ends = f"{min(fds):.2f} to {max(fds):.2f}"
        return f"`{name[0]}`, {MODELS[name]:,} updates: {np.mean(fds):.2f} ({ends})"

    lines = [
        "| challenger | champion, mean fd (range) | challenger | passes | refused by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, champion, challenger in PAIRS:
        found = list(decided(models, champion, challenger, margins))
        counts = Counter(condition.name for decision in found for condition in decision.failed)
        why = ", ".join(f"`{key}` {count}" for key, count in counts.most_common())
        passed = sum(decision.passed for decision in found)
        lines.append(
            f"| {kind} | {told(champion)} | {told(challenger)} | {passed} of {len(found)} | {why} |"
        )
    copies = [
        more_than_champion(models[champion, i].metrics, models[challenger, j].metrics)
        for kind, champion, challenger in PAIRS
        if kind.endswith("better")
        for i in {seed for _, seed in models}
        for j in {seed for _, seed in models}
    ]
    strict = (
        "Near copies are held to the champion's rate and to that of no memory. By the champion's "
        f"alone {sum(copies)} of the {len(copies)} better ones would be refused for them."
    )
    seeds = sorted({seed for _, seed in models})
    about = (
        f"Seeds {', '.join(map(str, seeds))} of each, so that pairs share trainings; "
        f"{date.today().isoformat()}, one thread of {tables.processor()}."
    )
    return "\n".join([*lines, "", strict, "", about])


def more_than_champion(champion: dict[str, float], challenger: dict[str, float]) -> bool:
    """Whether the challenger has significantly more near copies than the champion."""
    (p, n), (q, m) = ((one["nearcopy_rate"], one["n_fake"]) for one in (challenger, champion))
    return p - q > gate.SDS * math.sqrt(p * (1 - p) / n + q * (1 - q) / m)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", action="store_true", help=f"put the table into {DOCS}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    margins = gate.Margins(**config.load_params().registry.gate.model_dump())
    folder = (paths.benchmarks() / "gate-trained").resolve()
    runs.prepare(runs.settings("default"), folder / "work")
    models = {
        (name, seed): model(name[0], steps, seed, folder)
        for seed in range(FIRST_SEED, FIRST_SEED + given.seeds)
        for name, steps in MODELS.items()
    }
    text = table(models, margins)
    print(text)
    if given.docs:
        whole = DOCS.read_text(encoding="utf-8")
        block = f"<!-- gate, trained -->\n{text}\n<!-- end -->"
        pattern = re.compile("<!-- gate, trained -->.*?<!-- end -->", re.S)
        changed, places = pattern.subn(lambda _: block, whole, count=1)
        if not places:
            raise errors.UserError(f"{DOCS} has no place for the table: <!-- gate, trained -->")
        DOCS.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
