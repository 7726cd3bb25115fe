"""What the pipeline takes beside its work: start-up, imports, tracking, plots, DVC.

Runs, in a fresh clone of the committed state, (1) the default and (2) the default with almost no
work in it (one epoch of features, one step for each row of the default's history, its evaluations
and grids kept), and then `dvc repro` with nothing to do. The second's wall time, less what its
stages say they computed, bounds the overhead of the first from above: it writes as many rows and
pictures.

With --training it compares trainings of the default, in turn: the train stage as it is, and with
one look, one row of the history and one checkpoint in all. What the former takes more, threads
included, is the cost of looks, pictures, tracking and checkpoints.

    python benchmarks/overhead.py [--skip-default | --training [--steps 2000] [--rounds 3]]
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from pipeline import config, paths, presets


def shell(command: str, folder: Path) -> tuple[float, str]:
    """Wall seconds and output of a command. Raises SystemExit, with the output, where it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return time.perf_counter() - began, done.stdout


def clone(folder: Path) -> Path:
    """A clone of the repository's committed state, without its lock: every stage must run."""
    root = folder / "project"
    shell(f"git clone --quiet {Path.cwd()} {root}", folder)
    shell(
        "git rm --quiet --ignore-unmatch dvc.lock reports/metrics.json reports/protocol.json", root
    )
    shell("git -c user.name=b -c user.email=b@localhost commit --quiet --allow-empty -m b", root)
    return root


def without_work(root: Path) -> None:
    """Change params.yaml: as many rows, evaluations and grids as the default, in few steps."""
    path = root / paths.PARAMS
    train = config.read_yaml(path)["train"]
    rows, evaluations = train["steps"] // train["log_every"], train["steps"] // train["eval_every"]
    every = max(1, rows // evaluations)
    few = {"steps": rows, "log_every": 1, "eval_every": every, "checkpoint_every": every}
    presets.write({"features": {"epochs": 1}, "train": few}, path)


def stage_seconds(output: str) -> dict[str, float]:
    """What the stages say that they computed, by name."""
    found = re.findall(r"(features|train|evaluate)[, \w]*: \d+ in ([\d.]+) s", output)
    return {name: float(seconds) for name, seconds in found}


def trained(root: Path, train: dict[str, int]) -> tuple[float, float]:
    """Wall seconds and those of the processors, of the train stage with these settings."""
    presets.write({"train": train}, root / paths.PARAMS)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, _ = shell("python -m pipeline.stages.train", root)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def beside_training(root: Path, steps: int, rounds: int) -> None:
    """Print what looks, pictures, rows and checkpoints add to the train stage, by rounds."""
    shell("dvc repro features", root)
    every = {"eval_every": 500, "checkpoint_every": 500, "log_every": 50}
    # The last look is in both: of n looks the difference is n - 1.
    looks = steps // every["eval_every"]
    ratios = []
    for i in range(rounds):
        whole = trained(root, {"steps": steps, **every})
        bare = trained(root, {"steps": steps, **dict.fromkeys(every, steps)})
        more = [(a / b - 1) * looks / (looks - 1) for a, b in zip(whole, bare, strict=True)]
        for what, a, b, ratio in zip(("wall", "processors"), whole, bare, more, strict=True):
            print(f"round {i + 1}, {what}: {a:.1f} s against {b:.1f} s, {ratio:+.1%}", flush=True)
        ratios.append(more)
    wall, processors = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"looks, pictures, tracking and checkpoints: {wall:.1%} of wall time, "
        f"{processors:.1%} of processor time (medians)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip-default", action="store_true", help="measure the overhead only")
    parser.add_argument("--training", action="store_true", help="what is beside a training")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.steps < 1000:
        parser.error("--steps: at least 1000, so that there is more than one look")
    with tempfile.TemporaryDirectory() as folder:
        root = clone(Path(folder))
        if arguments.training:
            beside_training(root, arguments.steps, arguments.rounds)
            return
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
