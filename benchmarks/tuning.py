"""Does the search work? The tuner against random search and today's settings, at equal compute.

For each problem and seed: `tuner` (TPE, Hyperband, the collapse alarm, constraints), `random`
(random search, no trial ends early, no constraints) and `today` (the settings that both start
from). The first two get the same work, finals included; their winner is then trained at full length
with a seed that no search has seen. `today` spends all of that work on one training. All three are
judged on `test`, which no search sees; a result has collapsed where its classes or its variety are
gone.

    python benchmarks/tuning.py [--problem digits] [--seeds 5] [--trials 40] [--out FILE]

What is done is kept in .cache/benchmarks/tuning, so that the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import math
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import config, files, logs, paths, presets
from pipeline.benchmark import runs
from pipeline.training import callbacks, devices, recipe
from pipeline.training.collapse import signs
from pipeline.training.monitor import Monitor
from pipeline.tuning import finals, ledger, objective, search, space, studies, work

log = logging.getLogger(__name__)

ARMS = ("tuner", "random", "today")
RATES = {
    "train.lr_g": {"log": [1.0e-5, 0.2]},
    "train.lr_d": {"log": [1.0e-5, 0.2]},
    "train.d_steps": {"int": [1, 5]},
    "train.g_steps": {"int": [1, 3]},
}
FULL = 4  # a full training's work, in trials'

# Small enough that a trial takes some seconds. Points are told apart by bins: a Fréchet distance of
# two dimensions is blind to modes.
POINTS = {
    "data": {"draws": 20_000},
    "model": {"width": 64},
    "train": {"batch_size": 128, "eval_samples": 1000},
    "tune": {"steps": 300, "metric": "ndb_jsd", "constraints": {"label_kl": {"max": 0.2}}},
}
DIGITS = {
    "model": {"width": 8},
    "train": {"batch_size": 32, "eval_samples": 1000, "precision": "fp32"},
    "tune": {
        "steps": 300,
        "metric": "fd",
        "constraints": {"label_kl": {"max": 0.3}, "coverage": {"min": 0.1}},
    },
}
# name -> presets, one over the other, and what makes them small
PROBLEMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "digits": (("default",), DIGITS),
    "ring": (("default", "ring"), POINTS),
    "grid": (("default", "grid"), POINTS),
    "d_too_strong": (("default", "failing/d_too_strong"), DIGITS),
    "g_rate_too_high": (("default", "failing/g_rate_too_high"), DIGITS),
    "minimax_many_d_steps": (("default", "failing/minimax_many_d_steps"), DIGITS),
}


def settings(problem: str, arm: str, seed: int, trials: int) -> dict[str, Any]:
    """All params of one search, nested."""
    names, small = PROBLEMS[problem]
    values: dict[str, Any] = {}
    for name in names:
        values = presets.merged(values, presets.overlay(name))
    values = presets.merged(values, small)
    tune = {**values["tune"], "trials": trials, "space": RATES, "seed": seed, "finalist_seeds": 2}
    tune["constraints"] = small["tune"]["constraints"]
    if arm == "random":
        tune |= {"sampler": "random", "pruner": "none", "constraints": {}}
    train = {**values["train"], "device": "cpu", "steps": FULL * tune["steps"]}
    tracking = {**values["tracking"], "experiment": "benchmark"}
    changed = {"seed": 100 * seed, "tune": tune, "train": train, "tracking": tracking}
    return {**values, **changed}


@contextlib.contextmanager
def project(problem: str, values: dict[str, Any]) -> Iterator[None]:
    """Work in a folder where the problem's data and features are ready."""
    folder = paths.benchmarks() / "tuning" / problem
    folder.mkdir(parents=True, exist_ok=True)
    runs.prepare(values, folder)
    if not (folder / ".git").exists():  # lineage asks for a commit
        git = ["git", "-c", "user.name=b", "-c", "user.email=b@localhost"]
        for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "b"]):
            subprocess.run([*git, *command], cwd=folder, check=True)
    with contextlib.chdir(folder):
        yield


def result(arm: str, values: dict[str, Any]) -> dict[str, Any]:
    """One arm's outcome, from disk where it is known."""
    seed, trials = values["tune"]["seed"], values["tune"]["trials"]
    path = Path(f"{arm}_{trials}_{seed}.json")
    if path.exists():
        return files.read_json(path)
    began = time.monotonic()
    finalists = values["tune"]["finalists"]
    extra = (finalists + 1) * values["tune"]["finalist_seeds"]  # the finals', in trials
    if arm == "today":
        chosen, length, facts = config.check(values), (trials + extra + FULL) / FULL, {}
    else:
        url = f"{arm}_{trials}_{seed}.log"
        outcome = search.search(values, workers=1, url=url)
        study = studies.load(studies.open_storage(url), None)
        counted = ledger.counted(study.get_trials(deepcopy=False))
        winner = outcome.winner.trial if outcome else finals.origin(counted).number
        by_number = {t.number: t for t in counted}
        chosen = config.check(space.put(values, by_number[winner].params))
        length = 1.0
        facts = {
            "trials": len(counted),
            "work": ledger.used(counted),
            "verdict": outcome.verdict if outcome else "",
            "settings": by_number[winner].params,
        }
    found = final(config.check(values), chosen, length)
    told = {**found, **facts, "seconds": round(time.monotonic() - began, 1)}
    files.write_json(path, told)
    return told


def final(base: config.Params, chosen: config.Params, length: float) -> dict[str, Any]:
    """Train `chosen` for `length` full trainings of `base`, with a new seed; judge it on test."""
    definition = studies.Definition("", base.model_dump(by_alias=True, mode="json"), {}, {}, {})
    bench = objective.open_bench(definition)
    steps = work.equal_steps(
        round(length * base.train.steps), work=bench.cost(base), other=bench.cost(chosen)
    )
    train = chosen.train.model_copy(
        update={"steps": steps, "eval_every": steps, "log_every": max(1, steps // 50)}
    )
    params = chosen.model_copy(update={"train": train, "seed": base.seed + 50})
    data, device = bench.data, torch.device("cpu")
    split = data.split("train")
    judge = Monitor(data, n=2000, seed=99, conditional=False, device=device, split="test")
    state = recipe.make_state(params, shape=data.shape, n_classes=0, device=device)
    try:
        recipe.run(
            params,
            state,
            recipe.make_task(params, split.images, split.labels, device),
            precision=devices.pick_precision(params.train.precision, device),
            evaluate=judge,
            save=lambda state: None,
            callbacks=[callbacks.StopOnDivergence()],
        )
    except callbacks.Diverged:
        return {"value": None, "collapsed": True, "figures": {}}
    row = {k.removeprefix("eval_"): v for k, v in state.history[-1].items() if "eval_" in k}
    return {"value": row[base.tune.metric], "collapsed": bool(signs(row)), "figures": row}


def table(problem: str, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The problem's section: a row an arm, and the tuner's gain over each of the others."""
    metric = PROBLEMS[problem][1]["tune"]["metric"]
    lines = [
        f"### {problem}",
        "",
        f"| | median {metric} on test | lowest, highest | collapsed | trials | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm, results in found.items():
        values = [r["value"] for r in results if r["value"] is not None]
        tried = [r["trials"] for r in results if "trials" in r]
        minutes = np.mean([r["seconds"] for r in results]) / 60
        lines.append(
            f"| {arm} | {np.median(values):.3g} | {min(values):.3g}, {max(values):.3g} "
            f"| {sum(r['collapsed'] for r in results)} of {len(results)} "
            f"| {np.mean(tried):.0f} | {minutes:.1f} |"
            if values and tried
            else f"| {arm} | {np.median(values) if values else math.nan:.3g} "
            f"| {min(values, default=math.nan):.3g}, {max(values, default=math.nan):.3g} "
            f"| {sum(r['collapsed'] for r in results)} of {len(results)} | - | {minutes:.1f} |"
        )
    lines.append("")
    lines += [gain(found["tuner"], found[arm], arm) for arm in ARMS[1:]]
    return [*lines, ""]


def gain(tuner: list[dict[str, Any]], other: list[dict[str, Any]], arm: str) -> str:
    """The tuner's gain, seed by seed, as a share of the other's figure, with Student's interval."""
    from scipy import stats

    ratios = [
        math.log(a["value"] / b["value"])
        for a, b in zip(tuner, other, strict=True)
        if a["value"] and b["value"]
    ]
    if len(ratios) < 2:
        return f"Against {arm}: too few figures for a gain."
    interval = stats.ttest_1samp(ratios, 0).confidence_interval(0.95)
    low, middle, high = (
        1 - math.exp(x) for x in (interval.high, float(np.mean(ratios)), interval.low)
    )
    wins = sum(x < 0 for x in ratios)
    return (
        f"Against {arm}: {middle:+.0%} (95% interval {low:+.0%} to {high:+.0%}), better with "
        f"{wins} of {len(ratios)} seeds."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", action="append", choices=PROBLEMS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logs.setup()
    logging.getLogger("pipeline").setLevel(logging.WARNING)
    lines = [
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, "
        f"{torch.get_num_threads()} threads, {arguments.trials} trials' work a search.",
        "",
    ]
    for problem in arguments.problem or PROBLEMS:
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
        cells = [(seed, arm) for seed in range(arguments.seeds) for arm in ARMS]
        params = [settings(problem, arm, seed, arguments.trials) for seed, arm in cells]
        with project(problem, params[0]):
            for (seed, arm), values in zip(cells, params, strict=True):
                one = result(arm, values)
                found[arm].append(one)
                print(problem, seed, arm, one["value"], one["collapsed"], one["seconds"])
        lines += table(problem, found)
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        files.write_bytes(arguments.out, text.encode())


if __name__ == "__main__":
    main()
