"""Every recipe of presets/ on one data set, as a table: the figures of docs/recipes.md.

All recipes get the same processor time (`--minutes`), so that a dear one has fewer updates, not a
longer training; or the same updates (`--steps`); or their presets' own. Each is a row, written as
soon as it is there and kept by the content of code and params: the same command does what is
missing, and two of it at once share the work. A recipe that fails is a row that says so. Rows,
pictures of samples and the table are below .cache/benchmarks/; `--docs` also puts the table into
docs/recipes.md and README.md.

    python benchmarks/recipes.py --minutes 1                         # MNIST's 5,000 digits
    python benchmarks/recipes.py --minutes 1 --data PATH/cifar10_jpeg.parquet --name cifar10 --images 5000
    python benchmarks/recipes.py --only hinge,r3gan --steps 500
"""  # noqa: E501

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from pipeline import config, errors, evaluation, extractor, files, lineage, logs, paths, presets
from pipeline.benchmark import runs, tables
from pipeline.config import Params, read_yaml
from pipeline.datasets import prepared
from pipeline.errors import ConfigError, UserError
from pipeline.grids import one_class_a_row, save_grid
from pipeline.networks.build import generator_from
from pipeline.reference import build_reference
from pipeline.sampling import class_labels, sample_images
from pipeline.training import callbacks, numerics, recipe
from pipeline.training.loop import Callback
from pipeline.training.state import State, weights_of

PAGES = (Path("docs/recipes.md"), Path("README.md"))
HEAD = (
    "recipe",
    "fd",
    "floor",
    "precision",
    "recall",
    "label KL",
    "self-NN",
    "images/s",
    "min",
    "steps",
)
COLUMNS = 10  # of a picture of samples
BOOTSTRAPS = 20  # of an interval that the table does not show
WARM_UP, TIMED = 4, 16  # rounds: a lazy term comes at every 16th at the latest


@dataclass(frozen=True)
class Bench:
    """A data set that is ready, and how long each recipe may train on it."""

    folder: Path
    asked: list[str]  # changes of params
    seed: int
    minutes: float | None  # of processor time; None: as many steps as params say

    @property
    def work(self) -> Path:
        return self.folder / "work"


def recipes() -> list[str]:
    """Presets that bring no data of their own: the default first, then by name."""
    own = [name for name in presets.names() if "data" not in read_yaml(presets_file(name))]
    return ["default", *own]


def presets_file(name: str) -> Path:
    return paths.PRESETS / f"{name}.yaml"


def changes(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """What the command line asks for, as params."""
    found = [f"train.steps={arguments.steps}"] if arguments.steps else []
    if arguments.data is not None:
        source = arguments.data.resolve()
        if arguments.images:
            source = subset(source, arguments.images, folder / f"{arguments.images}.parquet")
        found += [
            "data.source=parquet",
            f"data.path={source}",
            f"data.name={arguments.name or arguments.data.stem}",
            f"data.image_size={arguments.size}",
            f"data.channels={arguments.channels}",
        ]
    return [*found, *arguments.change]


def subset(source: Path, images: int, out: Path) -> Path:
    """`images` of `source` from each split that it has, drawn once and kept at `out`."""
    import pyarrow.parquet

    if not out.is_file():
        table = pyarrow.parquet.read_table(source)
        split = np.array(table["split"]) if "split" in table.column_names else np.zeros(len(table))
        order = np.random.default_rng(0).permutation(len(table))
        parts = [order[split[order] == name][:images] for name in np.unique(split)]
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_file(out) as fresh:
            pyarrow.parquet.write_table(table.take(np.sort(np.concatenate(parts))), fresh)
    return out


class Figures:
    """Measures samples against the test split, in the data set's own features."""

    def __init__(self, data: prepared.Prepared, folder: Path, params: Params) -> None:
        self.counts = data.manifest["splits"]["train"]["class_counts"]
        self.n = min(params.evaluate.samples, len(data.split("train")))
        self.seed = params.evaluate.seed
        self.judge = extractor.load(folder)
        self.reference = build_reference(
            np.load(folder / "test.npy"), np.load(folder / "test_logits.npy"), self.counts
        )
        self.train = np.load(folder / "train.npy")
        self.settings = evaluation.Settings(
            neighbours=params.evaluate.neighbours, bootstraps=BOOTSTRAPS, seed=self.seed
        )

    def labels(self, conditional: bool) -> np.ndarray | None:
        return class_labels(self.counts, self.n, self.seed) if conditional else None

    def of(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        features, logits = extractor.extract(self.judge, images)
        return evaluation.evaluate(
            evaluation.Fakes(features, logits, images, labels),
            self.reference,
            evaluation.Space(features, self.reference.features, self.train),
            self.settings,
        )


class Recipe:
    """A recipe's training on prepared data, anew at each call."""

    def __init__(self, values: dict[str, Any], data: prepared.Prepared) -> None:
        self.values, self.data = values, data
        self.split, self.device = data.split("train"), torch.device("cpu")
        conditional = values["model"]["conditional"]
        self.n_classes = data.n_classes if conditional else 0

    def train(self, steps: int, listeners: list[Callback]) -> tuple[State, float]:
        """Where `steps` lead, and the seconds of processor time that they took."""
        never = 10 * steps
        chosen = {"steps": steps, "eval_every": never, "checkpoint_every": never, "log_every": 50}
        params = config.check(presets.merged(self.values, {"train": chosen}))
        state = recipe.make_state(
            params, shape=self.data.shape, n_classes=self.n_classes, device=self.device
        )
        task = recipe.make_task(params, self.split.images, self.split.labels, self.device)
        began = time.process_time()
        recipe.run(
            params,
            state,
            task,
            precision=numerics.pick_precision(params.train.precision, self.device),
            evaluate=lambda generator: {"fd": 0.0},
            save=lambda state: None,
            callbacks=listeners,
        )
        return state, time.process_time() - began

    def steps_in(self, seconds: float) -> int:
        """Generator updates that fit into so much processor time."""
        self.train(WARM_UP, [])
        _, few = self.train(WARM_UP, [])
        _, more = self.train(WARM_UP + TIMED, [])
        return max(TIMED, round(seconds * TIMED / (more - few)))


def measure(name: str, bench: Bench, *, begin: bool) -> dict[str, Any] | None:
    """The row of one recipe: kept, or, if it may `begin`, made now.

    None where it is neither, or another command is making it.
    """
    try:
        values = presets.merged(runs.settings(name, bench.asked), {"seed": bench.seed})
    except ConfigError as error:
        return {"recipe": name, "failed": str(error).splitlines()[0]}
    key = files.json_hash([_inputs(values), bench.minutes])[:16]
    rows = bench.folder / "rows"
    kept, picture = rows / f"{name}-{key}.json", rows / f"{name}-{key}.png"
    rows.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(kept.with_suffix(".lock"), timeout=0):
            if not kept.is_file() and not begin:
                return None
            if not kept.is_file():
                print(f"{name} ...", flush=True)
                row = _row(name, values, bench, picture)
                files.write_json(kept, row)
                print("  ".join(line(row)), flush=True)
            return files.read_json(kept)
    except Timeout:
        return None


def _row(name: str, values: dict[str, Any], bench: Bench, picture: Path) -> dict[str, Any]:
    data = prepared.load(bench.work / paths.PREPARED)
    figures = Figures(data, bench.work / paths.FEATURES, config.check(values))
    one = Recipe(values, data)
    began = time.process_time()
    try:
        steps = values["train"]["steps"]
        if bench.minutes is not None:
            steps = one.steps_in(60 * bench.minutes)
        state, seconds = one.train(steps, [callbacks.StopOnDivergence()])
        generator = generator_from(
            {"generator": recipe.generator_config(config.check(values), data.shape, one.n_classes)},
            weights_of(state.ema),
        )
        labels = figures.labels(bool(one.n_classes))
        images = sample_images(generator, n=figures.n, seed=figures.seed, labels=labels)
        found = figures.of(images, labels)
    except (ConfigError, UserError) as error:
        return {"recipe": name, "failed": str(error).splitlines()[0]}
    shown = images[: COLUMNS**2] if labels is None else one_class_a_row(images, labels, COLUMNS)
    save_grid(picture, shown, COLUMNS)
    if not all(math.isfinite(found[key]) for key in ("fd", "label_kl")):
        return {"recipe": name, "failed": "its samples cannot be measured", "steps": steps}
    return {
        "recipe": name,
        "steps": steps,
        "images": state.images,
        "training_seconds": seconds,
        "seconds": time.process_time() - began,
        "metrics": found,
        "history": state.history,
        "date": date.today().isoformat(),
    }


def _inputs(values: dict[str, Any]) -> dict[str, Any]:
    """What decides a row: the params and the code behind them."""
    return {
        stage: lineage.stage_inputs(stage, values, code_only=True)
        for stage in ("prepare", "features", "train", "evaluate")
    }


def line(row: dict[str, Any]) -> tuple[str, ...]:
    if "metrics" not in row:
        why = f"failed: {row['failed']}" if "failed" in row else "not run yet"
        return (f"`{row['recipe']}`", why, *[""] * (len(HEAD) - 2))
    figures = row["metrics"]
    return (
        f"`{row['recipe']}`",
        f"{figures['fd']:.3g}",
        f"{figures['fd_floor']:.2g}",
        f"{figures['precision']:.2f}",
        f"{figures['recall']:.2f}",
        f"{figures['label_kl']:.3f}",
        f"{figures['selfnn_ratio']:.2f}",
        f"{row['images'] / row['training_seconds']:.0f}",
        f"{row['training_seconds'] / 60:.1f}",
        f"{row['steps']:,}",
    )


def markdown(rows: list[dict[str, Any]], title: str) -> str:
    """The table, the best recipe first, under what must be said with it."""
    rows = sorted(rows, key=lambda row: row.get("metrics", {"fd": float("inf")})["fd"])
    lines = [HEAD, tuple("---" for _ in HEAD), *(line(row) for row in rows)]
    told = [row for row in rows if "metrics" in row]
    about = f"{title}, {date.today().isoformat()}, one thread of {tables.processor()}"
    if told:
        figures = told[0]["metrics"]
        about += f"; {figures['n_fake']:.0f} samples against {figures['n_real']:.0f} test images"
    return about + ".\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def put_into_docs(text: str, name: str) -> None:
    """Replace what stands between the marks for this data set, on every page that has them."""
    begin, end = f"<!-- recipes: {name} -->\n", "<!-- end -->"
    pages = {path: path.read_text(encoding="utf-8") for path in PAGES}
    marked = [path for path, page in pages.items() if begin in page]
    if not marked:
        raise UserError(f"no page has a place for {name}: {begin.strip()} and {end}")
    for path in marked:
        before, _, rest = pages[path].partition(begin)
        files.write_bytes(path, (before + begin + text + end + rest.partition(end)[2]).encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", help="recipes by name, separated by commas")
    parser.add_argument("--minutes", type=float, help="processor time of each training")
    parser.add_argument("--steps", type=int, help="generator updates in place of each preset's own")
    parser.add_argument("--within", type=float, help="minutes after which no recipe is begun")
    parser.add_argument("--data", type=Path, help="a parquet file; else the embedded digits")
    parser.add_argument("--images", type=int, help="so many of each of its splits")
    parser.add_argument("--name", help="of that data set; its file's name")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-S", dest="change", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--docs", action="store_true", help="put the table into docs/recipes.md and README.md"
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(1)  # what is compared is work, and several commands share the cores
    known = recipes()
    chosen = arguments.only.split(",") if arguments.only else known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ConfigError(f"--only {', '.join(unknown)}: choose from {', '.join(known)}")
    name = (arguments.name or arguments.data.stem) if arguments.data else "mnist5k"
    folder = paths.benchmarks() / f"recipes-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        asked = changes(arguments, folder)
        bench = Bench(folder, asked, arguments.seed, arguments.minutes)
        runs.prepare(runs.settings("default", asked), bench.work)
    found: dict[str, Any] = {}
    for one in chosen:
        in_time = arguments.within is None or time.monotonic() - began < 60 * arguments.within
        found[one] = measure(one, bench, begin=in_time)
    text = markdown([found.get(one) or {"recipe": one} for one in chosen], name)
    files.write_bytes(folder / "recipes.md", text.encode())
    print(f"\n{text}\n{folder}: recipes.md, and rows/ with all figures and pictures of samples")
    if arguments.docs:
        put_into_docs(text, name)
    missing = [one for one in chosen if found.get(one) is None]
    if missing:
        print(f"not run yet: {', '.join(missing)}; the same command goes on")


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
