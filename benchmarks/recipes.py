"""Every recipe of presets/ on one data set, as a table: the figures of docs/recipes.md.

Each preset is trained and measured through the pipeline's own stages, in a folder of its own below
.cache/benchmarks/; what is done is kept by the content of code and params, so that the same command
goes on where it was stopped, in the middle of a training too. A recipe that fails is a row that says
so. The table, a picture of each recipe's samples and all figures go to that folder; `--docs` also
puts the table into docs/recipes.md and README.md.

    python benchmarks/recipes.py                                     # MNIST's 5,000 digits
    python benchmarks/recipes.py --data PATH/cifar10_jpeg.parquet --name cifar10 --size 32 --channels 3
    python benchmarks/recipes.py --only hinge,r3gan --steps 500
"""  # noqa: E501

from __future__ import annotations

import argparse
import os
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from pipeline import errors, files, logs, paths, presets
from pipeline.benchmark import runs, tables
from pipeline.config import read_yaml
from pipeline.errors import ConfigError, UserError

PAGES = (Path("docs/recipes.md"), Path("README.md"))
HEAD = ("recipe", "fd", "floor", "precision", "recall", "label KL", "images/s", "min", "steps")


def recipes() -> list[str]:
    """Presets that bring no data of their own: the default first, then by name."""
    own = [name for name in presets.names() if "data" not in read_yaml(presets_file(name))]
    return ["default", *own]


def presets_file(name: str) -> Path:
    return paths.PRESETS / f"{name}.yaml"


def changes(arguments: argparse.Namespace) -> list[str]:
    """What the command line asks for, as params."""
    found = [f"train.steps={arguments.steps}"] if arguments.steps else []
    if arguments.data is not None:
        found += [
            "data.source=parquet",
            f"data.path={arguments.data.resolve()}",
            f"data.name={arguments.name or arguments.data.stem}",
            f"data.image_size={arguments.size}",
            f"data.channels={arguments.channels}",
        ]
    return [*found, *arguments.change]


def measure(name: str, asked: list[str], seed: int, folder: Path) -> dict[str, Any]:
    """A row: the figures of one recipe, or why it has none."""
    try:
        values = runs.settings(name, asked)
        evaluated_every = min(values["train"]["eval_every"], values["train"]["steps"])
        values["train"]["eval_every"] = evaluated_every
        (result,) = runs.run(values, [seed], folder)
    except (ConfigError, UserError) as error:
        return {"recipe": name, "failed": str(error).splitlines()[0]}
    picture = folder / f"{name}.png"
    shutil.copy2(folder / "results" / result["picture"], picture)
    return {"recipe": name, "steps": values["train"]["steps"], **result}


def line(row: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in row:
        return (row["recipe"], f"failed: {row['failed']}", *[""] * (len(HEAD) - 2))
    figures, training = row["metrics"], row.get("training", {})
    speed = training["images"] / training["seconds"] if training else float("nan")
    return (
        row["recipe"],
        f"{figures['fd']:.3g}",
        f"{figures['fd_floor']:.2g}",
        f"{figures['precision']:.2f}",
        f"{figures['recall']:.2f}",
        f"{figures['label_kl']:.4f}",
        f"{speed:.0f}",
        f"{row['seconds'] / 60:.1f}",
        f"{row['steps']:,}",
    )


def markdown(rows: list[dict[str, Any]], title: str) -> str:
    """The table under what must be said with it."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(line(row) for row in rows)]
    told = [row for row in rows if "failed" not in row]
    about = f"{title}, {date.today().isoformat()}, {tables.processor()}, {os.cpu_count()} cores"
    if told:
        figures = told[0]["metrics"]
        about += f"; {figures['n_fake']:.0f} samples against {figures['n_real']:.0f} test images"
    return about + ".\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def put_into_docs(text: str, name: str) -> None:
    """Replace what stands between the marks for this data set, on every page that has them."""
    marks = re.compile(rf"(<!-- recipes: {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
    pages = {path: path.read_text(encoding="utf-8") for path in PAGES}
    marked = [path for path, page in pages.items() if marks.search(page)]
    if not marked:
        raise UserError(
            f"no page has a place for {name}: <!-- recipes: {name} --> and <!-- end -->"
        )
    for path in marked:
        page = marks.sub(lambda found: found[1] + text + found[2], pages[path])
        files.write_bytes(path, page.encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", help="recipes by name, separated by commas")
    parser.add_argument("--steps", type=int, help="generator updates in place of each preset's own")
    parser.add_argument("--data", type=Path, help="a parquet file; else the embedded digits")
    parser.add_argument("--name", help="of that data set; its file's name")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-S", dest="change", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--docs", action="store_true", help="put the table into docs/recipes.md and README.md"
    )
    arguments = parser.parse_args()
    known = recipes()
    chosen = arguments.only.split(",") if arguments.only else known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ConfigError(f"--only {', '.join(unknown)}: choose from {', '.join(known)}")
    asked = changes(arguments)
    name = (arguments.name or arguments.data.stem) if arguments.data else "mnist5k"
    folder = paths.benchmarks() / f"recipes-{name}"
    rows = []
    for recipe in chosen:
        print(f"{recipe} ({len(rows) + 1} of {len(chosen)})", flush=True)
        rows.append(measure(recipe, asked, arguments.seed, folder))
        print("  ".join(line(rows[-1])), flush=True)
        files.write_json(folder / "recipes.json", rows)
    text = markdown(rows, name)
    files.write_bytes(folder / "recipes.md", text.encode())
    if arguments.docs:
        put_into_docs(text, name)
    print(f"\n{text}\n{folder}/recipes.md, recipes.json and a picture of each recipe's samples")


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
