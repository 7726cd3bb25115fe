"""How often do equal, better and worse models pass the promotion gate?

    python benchmarks/gate.py [--repeats 40] [--large 8] [--rows rows.json] [--docs]

Simulated from features: the reals are drawn from one Gaussian a class, with the means and
covariances that the data set's own extractor gives the training images (models/features); a model
is the same with each class's mean moved in a random direction and its spread changed. Every repeat
draws reals, champion and challenger anew. `fakes` and `reals` are those of the default (3,500 and
1,000), and 10,000 of each.

Repeats are kept in --rows as they are done, so that it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import files, pairs, paths
from pipeline.config import load_params
from pipeline.evaluated import Evaluated, Samples
from pipeline.metrics import frechet, modes, neighbours
from pipeline.metrics.threads import single_threaded
from pipeline.registry import gate

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "registry.md"
FAMILIES = [x for x in pairs.PAIRED if x.__name__ in ("_frechet", "_neighbours")]
SIZES = {"default": (3500, 1000), "10,000": (10_000, 10_000)}


@dataclass(frozen=True)
class Model:
    """`shift`: how far each class's mean is moved; `spread`: factor of its deviation; `skew` of the
    classes' shares."""

    shift: float
    spread: float = 1.0
    skew: float = 0.0


CHAMPION = Model(shift=0.64)  # as far above the floor as `dcgan`'s fd of 0.54 was
CHALLENGERS = {
    "equal": CHAMPION,
    "a little better": Model(shift=0.57),
    "clearly better": Model(shift=0.45),
    "worse": Model(shift=0.72),
    "nearer, but narrower": Model(shift=0.2, spread=0.93),
    "classes askew": Model(shift=0.45, skew=0.4),
}


SWEEPS = {
    "better_sds": (0.0, 0.5, 0.75, 1.0, 1.25, 1.645),
    "coverage": (0.01, 0.02, 0.03, 0.04, 0.05),
    "recall": (0.01, 0.02, 0.03, 0.04, 0.05),
    "worst_class_sds": (1.0, 1.645, 2.326),
}


class World:
    """One Gaussian a class, as the extractor sees the training images."""

    def __init__(self, folder: Path) -> None:
        features = np.load(folder / "train.npy").astype(np.float64)
        labels = np.load(paths.PREPARED / "train_labels.npy")
        self.k = int(labels.max()) + 1
        self.means = np.stack([features[labels == c].mean(axis=0) for c in range(self.k)])
        # Shrunk: a class has some 350 images, and as many directions would be flat.
        pooled = np.cov(features - self.means[labels], rowvar=False)
        self.roots = [
            np.linalg.cholesky(0.7 * np.cov(features[labels == c], rowvar=False) + 0.3 * pooled)
            for c in range(self.k)
        ]

    def draw(
        self, rng: np.random.Generator, n: int, model: Model | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, d) and classes (n,) of reals, or of a model."""
        shares = np.full(self.k, 1 / self.k)
        means, spread = self.means, 1.0
        if model is not None:
            shares = np.exp(model.skew * np.linspace(-1, 1, self.k))
            shares /= shares.sum()
            moves = rng.normal(size=means.shape)
            moves *= model.shift / np.linalg.norm(moves, axis=1, keepdims=True)
            means, spread = means + moves, model.spread
        # Splits are stratified; an unconditional model draws its classes.
        classes = np.arange(n) % self.k if model is None else rng.choice(self.k, n, p=shares)
        rows = rng.normal(size=(n, means.shape[1]))
        result = np.empty_like(rows)
        for c in range(self.k):
            own = classes == c
            result[own] = means[c] + spread * rows[own] @ self.roots[c].T
        order = rng.permutation(n)
        return result[order].astype(np.float32), classes[order]


def evaluated(
    features: np.ndarray, classes: np.ndarray, reals: np.ndarray, real_classes: np.ndarray, k: int
) -> Evaluated:
    """An evaluation with the figures that the gate reads; classes are taken for known."""
    one_hot = np.eye(k, dtype=np.float32)
    splits = {name: {"class_counts": [100] * k} for name in ("train", "test")}
    frequencies = np.full(k, 1 / k)
    low, high = modes.label_kl_interval(classes, frequencies, resamples=100)
    n = len(features)
    metrics = {
        "fd": frechet.distance(features, reals),
        "recall": 0.0,  # differences are made from the features
        "coverage": 0.0,
        "label_kl": modes.label_kl(classes, frequencies),
        "label_kl_ci_low": low,
        "label_kl_ci_high": high,
        "label_kl_floor": modes.label_kl_floor(k, n),
        "n_fake": float(n),
    }
    samples = Samples(
        features=features,
        logits=one_hot[classes],
        real_features=reals,
        real_logits=one_hot[real_classes],
        space=features,
        space_real=reals,
        labels=None,
        data={
            "kind": "image",
            "source": "simulated",
            "splits": splits,
        },
        eval_key="",
    )
    return Evaluated("simulated", metrics, {"neighbours": 5}, samples)


def decide(world: World, seed: int, challenger: Model, size: tuple[int, int], margins) -> dict:
    """One repeat: what failed, and the figures."""
    rng = np.random.default_rng(seed)
    n_fake, n_real = size
    reals, real_classes = world.draw(rng, n_real)
    sides = [
        evaluated(*world.draw(rng, n_fake, model), reals, real_classes, world.k)
        for model in (CHAMPION, challenger)
    ]
    for side in sides:
        n = min(n_fake, n_real)
        figures = neighbours.precision_recall(reals[:n], side.samples.features[:n], k=5)  # type: ignore[union-attr]
        side.metrics.update(figures)
    with single_threaded():
        decision = gate.decide(
            sides[1], sides[0], margins, problems=[], n_held_out=n_real, families=FAMILIES
        )
    return {
        "fd": [side.metrics["fd"] for side in sides],
        "label_kl": [sides[1].metrics["label_kl_floor"], *(x.metrics["label_kl"] for x in sides)],
        "conditions": {c.name: [c.figure, c.low, c.high] for c in decision.conditions},
    }


def failed(row: dict, margins: gate.Margins) -> list[str]:
    """What fails under these margins, from a repeat's figures and intervals.

    So that margins can be chosen without repeating anything.
    """
    found = {name: x for name, x in row["conditions"].items() if x[1] is not None}

    def bound(name: str, sds: float) -> float:
        figure, low, high = found[name]
        return figure + sds * (high - low) / (2 * 1.96)

    floor, of_champion, of_challenger = row["label_kl"]
    allowed = max(margins.label_kl, 2 * floor, of_champion + margins.label_kl_margin)
    passes = {
        "better": bound("better", margins.better_sds) < 0,
        "coverage": bound("coverage", -gate.SDS) > -margins.coverage,
        "recall": bound("recall", -gate.SDS) > -margins.recall,
        "label_kl": of_challenger <= allowed,
        "worst_class": bound("worst_class", -margins.worst_class_sds) <= 0,
    }
    return [name for name, passed in passes.items() if not passed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--large", type=int, default=8, help="repeats at 10,000")
    parser.add_argument("--rows", type=Path, default=Path(".cache/benchmarks/gate.json"))
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    rows: dict[str, dict] = files.read_json(given.rows) if given.rows.is_file() else {}
    margins = gate.Margins(**load_params().registry.gate.model_dump())
    world, began = World(paths.FEATURES), time.monotonic()
    for name, size in SIZES.items():
        for seed in range(given.repeats if name == "default" else given.large):
            for kind, model in CHALLENGERS.items():
                key = json.dumps([name, kind, seed])
                if key not in rows and time.monotonic() - began < given.seconds:
                    rows[key] = decide(world, seed, model, size, margins)
                    files.write_json(given.rows, rows)
    text = f"{table(rows, margins)}\n\n{choices(rows, margins)}"
    print(text)
    if given.docs:
        whole = DOCS.read_text(encoding="utf-8")
        block = f"<!-- gate -->\n{text}\n<!-- end -->"
        pattern = re.compile("<!-- gate -->.*?<!-- end -->", re.S)
        DOCS.write_text(pattern.sub(lambda _: block, whole, count=1), encoding="utf-8")


def table(rows: dict[str, dict], margins: gate.Margins) -> str:
    lines = [
        "| fakes, reals | challenger | passes | refused by | mean fd: champion, challenger |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, (n_fake, n_real) in SIZES.items():
        for kind in CHALLENGERS:
            own = of(rows, name, kind)
            if not own:
                continue
            reasons = [failed(row, margins) for row in own]
            counts = Counter(x for found in reasons for x in found)
            why = ", ".join(f"`{key}` {count}" for key, count in counts.most_common())
            a, b = np.mean([row["fd"] for row in own], axis=0)
            lines.append(
                f"| {n_fake:,}, {n_real:,} | {kind} | {reasons.count([])} of {len(own)} | {why} | "
                f"{a:.2f}, {b:.2f} |"
            )
    return "\n".join(lines)


def choices(rows: dict[str, dict], margins: gate.Margins) -> str:
    """How many pass one condition alone, by its margin."""
    kinds = ["equal", "a little better", "clearly better", "worse", "nearer, but narrower"]
    lines = [
        f"| condition alone | fakes, reals | {' | '.join(kinds)} |",
        f"| --- | --- |{' --- |' * len(kinds)}",
    ]
    for name, (n_fake, n_real) in SIZES.items():
        for key, values in SWEEPS.items():
            condition = key.removesuffix("_sds")
            for value in values:
                tried = dataclasses.replace(margins, **{key: value})
                shares = [
                    np.mean([condition not in failed(row, tried) for row in own]) if own else None
                    for own in (of(rows, name, kind) for kind in kinds)
                ]
                if None in shares:
                    continue
                mark = "**" if value == getattr(margins, key) else ""
                cells = " | ".join(f"{share:.0%}" for share in shares)
                lines.append(
                    f"| {mark}`{key}` {value:g}{mark} | {n_fake:,}, {n_real:,} | {cells} |"
                )
    return "\n".join(lines)


def of(rows: dict[str, dict], name: str, kind: str) -> list[dict]:
    return [row for key, row in rows.items() if json.loads(key)[:2] == [name, kind]]


if __name__ == "__main__":
    main()
