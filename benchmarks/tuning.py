"""Does the search work? The tuner against random search and today's settings, at equal compute.

For each problem and seed, three arms of the same work: `tuner` (what `gan tune` does by default),
`random` (random search: no trial ends early, no constraints) and `today` (the settings that both
start from, trained for all of that work at once). The first two spend a part of it on finals, and
end with a training of their winner with a seed that no search has seen, as long as the trials were:
a search is made for the length that is trained. Beside them `today_once`: that last training alone,
with today's settings, what the winner would have been without a search. All are judged on `test`,
which no search sees.

The measure is one: `tune.metric` of the last training. Random search is beaten where the interval
of the gain over it, over all problems of DESIGN, lies above 0. A failing start is rescued where the
last training of today's settings has collapsed with at least 3 seeds of 5, and the winner's with at
most 1. Seeds 0 to 4 are spent: this design is what came of looking at them.

    python benchmarks/tuning.py [--problem digits] [--arm tuner] [--seeds 5] [--out docs/...md]

Rows are kept in benchmarks/tuning.json as they come, and unfinished searches in .cache/benchmarks:
the same command goes on where it was stopped, and `--table` writes the table of what there is.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import math
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline import config, errors, files, lineage, logs, paths, presets
from pipeline.benchmark import runs
from pipeline.benchmark.tables import processor
from pipeline.training import callbacks, collapse, numerics, recipe
from pipeline.training.finite import Diverged
from pipeline.training.monitor import Monitor
from pipeline.tuning import finals, ledger, objective, search, show, space, studies, work

log = logging.getLogger(__name__)

ROWS = Path("benchmarks/tuning.json")
ARMS = ("tuner", "random", "today_once", "today")
FIRST = 5  # the first seed
RATES = {
    "train.lr_g": {"log": [1.0e-5, 0.2]},
    "train.lr_d": {"log": [1.0e-5, 0.2]},
    "train.d_steps": {"int": [1, 5]},
    "train.g_steps": {"int": [1, 3]},
}

# Small enough that a trial takes some seconds. Points are told apart by bins: a Fréchet distance
# of two dimensions is blind to modes.
POINTS = {
    "data": {"draws": 20_000},
    "model": {"width": 64},
    "train": {"batch_size": 64, "eval_samples": 1000},
    "tune": {
        "steps": 400,
        "reports": 5,
        "metric": "ndb_jsd",
        "constraints": {"label_kl": {"max": 0.2}},
    },
}
DIGITS = {
    "features": {"epochs": 6},
    "model": {"width": 8},
    "train": {"batch_size": 16, "eval_samples": 500, "precision": "fp32"},
    "tune": {
        "steps": 300,
        "reports": 5,
        "metric": "fd",
        "constraints": {"label_kl": {"max": 0.5}, "coverage": {"min": 0.05}},
    },
}
FAILING = ("d_too_strong", "g_rate_too_high", "minimax_many_d_steps")
# Five updates of D each: 200 of their rounds are the work of some 600 of the ring's.
STEPS = {"ring_d_too_strong": 200, "ring_minimax_many_d_steps": 200}
# name -> preset, and what makes the problem small
PROBLEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("dcgan", DIGITS),
    "ring": ("ring", POINTS),
    "grid": ("grid", POINTS),
    **{f"ring_{name}": (f"failing/ring_{name}", POINTS) for name in FAILING},
    **{f"digits_{name}": (f"failing/{name}", DIGITS) for name in FAILING},
}
DESIGN = ("digits", "ring", "grid", *(f"ring_{name}" for name in FAILING))
HELD = ("fd", "label_kl", "ndb_jsd", "coverage", "recall", "selfnn_ratio")  # of a row's figures


def settings(problem: str, arm: str, seed: int, trials: int) -> dict[str, Any]:
    """All params of one cell, nested."""
    preset, small = PROBLEMS[problem]
    values = presets.merged(presets.overlay("default"), presets.overlay(preset))
    values = presets.merged(values, small)
    tune = {**values["tune"], "trials": trials, "space": RATES, "seed": seed, "finalist_seeds": 2}
    tune["constraints"] = small["tune"]["constraints"]
    tune["steps"] = STEPS.get(problem, tune["steps"])
    if arm == "random":
        tune |= {"sampler": "random", "pruner": "none", "constraints": {}}
    train = {**values["train"], "device": "cpu", "steps": tune["steps"]}
    tracking = {**values["tracking"], "experiment": "benchmark"}
    changed = {"seed": 100 * seed, "tune": tune, "train": train, "tracking": tracking}
    return {**values, **changed}


@contextlib.contextmanager
def project(values: dict[str, Any]) -> Iterator[None]:
    """Work in a folder where the data of these params and their features are ready."""
    folder = paths.benchmarks() / "tuning" / values["data"]["source"]
    folder.mkdir(parents=True, exist_ok=True)
    runs.prepare(values, folder)
    if not (folder / ".git").exists():  # lineage asks for a commit
        git = ["git", "-c", "user.name=b", "-c", "user.email=b@localhost"]
        for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "b"]):
            subprocess.run([*git, *command], cwd=folder, check=True)
    with contextlib.chdir(folder):
        yield


def run(problem: str, arm: str, values: dict[str, Any]) -> dict[str, Any]:
    """What one cell came to."""
    seed, trials = values["tune"]["seed"], values["tune"]["trials"]
    extra = (values["tune"]["finalists"] + 1) * values["tune"]["finalist_seeds"]  # the finals'
    base = config.check(values)
    chosen, facts = base, {"seconds": 0.0}
    length = trials + extra + 1 if arm == "today" else 1
    if arm in ("tuner", "random"):
        each = values["tune"]["steps"]
        chosen, facts = searched(values, f"{problem}_{arm}_{trials}x{each}_{seed}.log")
    began = time.perf_counter()
    found = final(base, chosen, length)
    facts["seconds"] = round(facts["seconds"] + time.perf_counter() - began, 1)
    return {**found, **facts}


def searched(values: dict[str, Any], url: str) -> tuple[config.Params, dict[str, Any]]:
    """The winner of a search, and what the search was like."""
    outcome = search.search(values, workers=1, url=url)
    storage = studies.open_storage(url)
    study = studies.load(storage, None)
    counted = ledger.counted(study.get_trials(deepcopy=False))
    winner = outcome.winner.trial if outcome else finals.origin(counted).number
    repeats = studies.load(storage, study.study_name + studies.FINALS)
    by_number = {t.number: t for t in counted}
    return config.check(space.put(values, by_number[winner].params)), {
        "trials": len(counted),
        "work": round(ledger.used(counted), 2),
        "verdict": outcome.verdict if outcome else "",
        "settings": by_number[winner].params,
        "seconds": sum(sum(show.seconds(one).values()) for one in (study, repeats)),
    }


def final(base: config.Params, chosen: config.Params, length: int) -> dict[str, Any]:
    """Train `chosen` for the work of `length` trials, with a new seed; judge it on test."""
    definition = studies.Definition("", base.model_dump(by_alias=True, mode="json"), {}, {}, {})
    bench = objective.open_bench(definition)
    steps = work.equal_steps(
        length * base.tune.steps, work=bench.cost(base), other=bench.cost(chosen)
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
            precision=numerics.pick_precision(params.train.precision, device),
            evaluate=judge,
            save=lambda state: None,
            callbacks=[callbacks.StopOnDivergence()],
        )
    except Diverged:
        return {"value": None, "figures": {}}
    row = {k.removeprefix("eval_"): v for k, v in state.history[-1].items() if "eval_" in k}
    return {
        "value": row[base.tune.metric],
        "figures": {name: round(row[name], 4) for name in HELD},
    }


def key(arm: str, values: dict[str, Any]) -> str:
    """Names the settings of a cell, so that a row of others is not taken for it."""
    used = {name: values[name] for name in ("seed", "data", "features", "model", "loss", "train")}
    tune = dict(values["tune"])
    if arm == "tuner":  # the alarm ends its trials
        tune["alarm"] = {**collapse.HIGHEST, **collapse.LOWEST}
    if arm.startswith("today"):
        tune = {name: tune[name] for name in ("trials", "finalists", "finalist_seeds", "metric")}
    return files.json_hash({**used, "tune": tune})[:8]


def collapsed(row: dict[str, Any]) -> bool:
    """Diverged, or beyond the alarm's bounds on missing classes and bins, at the end.

    Not where samples lie close together: G makes a curve of each Gaussian of a ring learnt well.
    """
    figures = row["figures"]
    return not figures or any(figures[name] > bound for name, bound in collapse.HIGHEST.items())


def median(rows: list[dict[str, Any]]) -> float:
    """The middle of the rows' figures; one that diverged is beyond all."""
    values = sorted(math.inf if r["value"] is None else r["value"] for r in rows)
    n = len(values)
    return (values[(n - 1) // 2] + values[n // 2]) / 2 if n else math.nan


def table(problem: str, rows: list[dict[str, Any]], seeds: int) -> list[str]:
    """The problem's section: a row an arm, and the tuner's gain over each of the others."""
    metric = PROBLEMS[problem][1]["tune"]["metric"]
    by_arm = {arm: {r["seed"]: r for r in rows if r["arm"] == arm} for arm in ARMS}
    lines = [
        f"### {problem}",
        "",
        f"| | seeds | median {metric} on test | lowest, highest | collapsed | trials | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm, found in by_arm.items():
        if not found:
            lines.append(f"| {arm} | 0 of {seeds} | | | | | |")
            continue
        some = list(found.values())
        known = [r["value"] for r in some if r["value"] is not None]
        ends = f"{min(known):.3g}, {max(known):.3g}" if known else ""
        diverged = len(some) - len(known)
        tried = [r["trials"] for r in some if "trials" in r]
        lines.append(
            f"| {arm} | {len(some)} of {seeds} | {median(some):.3g} | {ends}"
            f"{f' ({diverged} diverged)' if diverged else ''} "
            f"| {sum(map(collapsed, some))} of {len(some)} "
            f"| {f'{sum(tried) / len(tried):.0f}' if tried else '-'} "
            f"| {sum(r['seconds'] for r in some) / len(some) / 60:.1f} |"
        )
    lines.append("")
    lines += [f"- {gain(by_arm['tuner'], by_arm[arm], arm)}" for arm in ARMS[1:]]
    return [*lines, ""]


def gain(tuner: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]], arm: str) -> str:
    """The tuner's gain, seed by seed, as a share of the other's figure."""
    both = sorted(set(tuner) & set(other))
    pairs = [(tuner[s]["value"], other[s]["value"]) for s in both]
    wins = sum(a is not None and (b is None or a < b) for a, b in pairs)
    ratios = [math.log(a / b) for a, b in pairs if a and b]
    told = f"Against `{arm}`: better with {wins} of {len(pairs)} seeds"
    return f"{told}; {_interval(ratios, 'seeds')}."


def _interval(ratios: list[float], what: str) -> str:
    """The mean gain of logarithms of ratios, and Student's 95% interval of it."""
    from scipy import stats

    if len(ratios) < 2:
        return "too few figures for an interval"
    interval = stats.ttest_1samp(ratios, 0).confidence_interval(0.95)
    low, middle, high = (
        1 - math.exp(x) for x in (interval.high, sum(ratios) / len(ratios), interval.low)
    )
    return f"gain {middle:+.0%} (95% interval over {len(ratios)} {what} {low:+.0%} to {high:+.0%})"


def overall(rows: list[dict[str, Any]]) -> list[str]:
    """The gain over all problems: of each the mean over its seeds, which all problems share."""
    lines = []
    for arm in ("random", "today_once"):
        means, wins, pairs = [], 0, 0
        for problem in DESIGN:
            tuner, other = (
                {r["seed"]: r["value"] for r in rows if (r["problem"], r["arm"]) == (problem, name)}
                for name in ("tuner", arm)
            )
            both = [(tuner[seed], other[seed]) for seed in tuner.keys() & other.keys()]
            ratios = [math.log(a / b) for a, b in both if a and b]
            wins += sum(a is not None and (b is None or a < b) for a, b in both)
            pairs += len(both)
            if ratios:
                means.append(sum(ratios) / len(ratios))
        told = _interval(means, "problems")
        lines.append(f"- Against `{arm}`: better in {wins} of {pairs} cells; {told}.")
    return lines


def page(rows: list[dict[str, Any]], seeds: int, trials: int) -> str:
    commits = sorted({r["commit"] for r in rows})
    dates = sorted({r["date"] for r in rows})
    machines = sorted({r["machine"] for r in rows})
    bounds = " or ".join(f"`{name}` above {bound:g}" for name, bound in collapse.HIGHEST.items())
    return "\n".join(
        [
            f"{trials} trials' work a search, finals and a last training on top; `today` spends "
            f"as much. {', '.join(dates)}; {'; '.join(machines)}, one thread, beside other work; "
            f"commits {', '.join(commits)}.",
            "",
            f"Collapsed: {bounds}, or diverged; a training too short to be any good counts, "
            "too. Gains are the share by which the figure is smaller. Over all problems:",
            "",
            *overall(rows),
            "",
            *(
                line
                for problem in PROBLEMS
                if any(r["problem"] == problem for r in rows)
                for line in table(problem, [r for r in rows if r["problem"] == problem], seeds)
            ),
        ]
    )


def write(path: Path, text: str) -> None:
    """Put the text between the marks `<!-- tuning -->` and `<!-- end tuning -->` of a page."""
    marks = re.compile(r"(<!-- tuning -->\n).*?(<!-- end tuning -->)", re.S)
    page = path.read_text(encoding="utf-8")
    if not marks.search(page):
        raise errors.UserError(f"{path} has no place <!-- tuning --> to <!-- end tuning -->")
    page = marks.sub(lambda found: f"{found[1]}\n{text.rstrip()}\n\n{found[2]}", page)
    files.write_bytes(path, page.encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--problem", action="append", choices=PROBLEMS)
    parser.add_argument("--arm", action="append", choices=ARMS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--rows", type=Path, default=ROWS, help=f"default: {ROWS}")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help="the table's page")
    arguments = parser.parse_args()
    logging.getLogger("pipeline").setLevel(logging.WARNING)
    commit = lineage.git_facts()["git_commit"][:8]  # of the code that runs, whatever comes after
    path = arguments.rows.resolve()
    rows: list[dict[str, Any]] = files.read_json(path) if path.exists() else []
    wanted = {}
    for arms in (ARMS[:-1], ARMS[-1:]):  # `today` last: it answers no question of the design
        for seed in range(FIRST, FIRST + arguments.seeds):  # all problems with one seed, and so on
            for problem in arguments.problem or DESIGN:
                for arm in arms:
                    values = settings(problem, arm, seed, arguments.trials)
                    wanted[problem, arm, seed, key(arm, values)] = values

    def name(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["problem"], row["arm"], row["seed"], row["key"]

    for (problem, arm, seed, own), values in wanted.items():
        if (
            arguments.table
            or arm not in (arguments.arm or ARMS)
            or (problem, arm, seed, own) in {name(row) for row in rows}
        ):
            continue
        with project(values):
            found = run(problem, arm, values)
        about = {"problem": problem, "arm": arm, "seed": seed, "key": own, "commit": commit}
        about |= {"date": str(datetime.date.today()), "machine": processor()}
        rows.append({**about, **found})
        files.write_json(path, rows)
        print(problem, arm, seed, found["value"], found["seconds"], flush=True)
    text = page([r for r in rows if name(r) in wanted], arguments.seeds, arguments.trials)
    print(text)
    if arguments.out:
        write(arguments.out, text)


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
