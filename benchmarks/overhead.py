"""What the pipeline takes beside its work: start-up, imports, tracking, plots, DVC.

Runs, in a fresh clone of the committed state, (1) the default and (2) the default with almost no
work in it (one epoch of features, one step for each row of the default's history, its evaluations
and grids kept), and then `dvc repro` with nothing to do. The second's wall time, less what its
stages say they computed, bounds the overhead of the first from above: it writes as many rows and
pictures.

    python benchmarks/overhead.py [--skip-default]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML


def shell(command: str, folder: Path) -> tuple[float, str]:
    """Wall seconds and output of a command."""
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return time.perf_counter() - began, done.stdout


def clone(folder: Path) -> Path:
    """A clone of the repository's committed state, without its lock: every stage must run."""
    root = folder / "project"
    shell(f"git clone --quiet {Path.cwd()} {root}", folder)
    shell("git rm --quiet --ignore-unmatch dvc.lock reports/metrics.json", root)
    shell("git -c user.name=b -c user.email=b@localhost commit --quiet --allow-empty -m b", root)
    return root


def without_work(root: Path) -> None:
    """Change params.yaml: as many rows, evaluations and grids as the default, in few steps."""
    yaml, path = YAML(), root / "params.yaml"
    params = yaml.load(path.read_text())
    train = params["train"]
    rows, evaluations = train["steps"] // train["log_every"], train["steps"] // train["eval_every"]
    params["features"]["epochs"] = 1
    train["steps"], train["log_every"] = rows, 1
    train["eval_every"] = max(1, rows // evaluations)
    train["checkpoint_every"] = train["eval_every"]
    with path.open("w") as file:
        yaml.dump(params, file)


def stage_seconds(output: str) -> dict[str, float]:
    """What the stages say that they computed, by name."""
    found = re.findall(r"(features|train|evaluate)[, \w]*: \d+ in ([\d.]+) s", output)
    return {name: float(seconds) for name, seconds in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip-default", action="store_true", help="measure the overhead only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = clone(Path(folder))
        if not arguments.skip_default:
            wall, output = shell("dvc repro", root)
            work = stage_seconds(output)
            print(f"default: {wall:.0f} s, of it {sum(work.values()):.0f} s work {work}")
            beside = re.search(r"beside [\d.]+ s of training: .*", output)
            print(beside[0] if beside else "the train stage did not say what it took beside")
        else:
            shell("dvc repro prepare", root)
        without_work(root)
        wall, output = shell("rm -rf .dvc/cache mlflow.db* dvc.lock && dvc repro", root)
        work = stage_seconds(output)
        print(
            f"without work: {wall:.1f} s, computed {sum(work.values()):.1f} s: "
            f"at most {wall - sum(work.values()):.1f} s are overhead {work}"
        )
        idle = [shell("dvc repro", root)[0] for _ in range(5)]
        print(f"nothing to do: {min(idle):.2f} to {max(idle):.2f} s")


if __name__ == "__main__":
    main()
