"""Does the collapse monitor see what it should? A zoo of failing trainings, and healthy ones.

Each kind of failure in presets/failing, and the sound recipe, is trained small on digits, the ring
and the grid with several seeds. A judge that is not the monitor labels each by its final samples:
of digits a LeNet trained on all 60,000 of MNIST (benchmarks/judge.py), of points the mixture.
The same trainings with `train.balance: adaptive` and with `train.on_collapse: rollback` show what
these save.

The zoo has two halves, by seeds. On the calibration half the monitor's bounds (`--fit` looks for
them), the judge's, and the rules of balance and rollback were chosen. The report half is trained
after all of them are settled; hit rate, false-alarm rate and what is saved are its figures.

    python -m benchmarks.collapse_monitor --mnist PATH/mnist.parquet [--half calibration]
        [--seconds 240] [--out FILE]

What is done is kept in .cache/benchmarks/collapse with the commit that trained it, by its settings
and the code of the rules that it goes by, so that the same command goes on; `--seconds` ends it
early, with the table of what there is.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import datetime
import itertools
import logging
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks import judge
from pipeline import config, files, grids, lineage, logs, paths, presets
from pipeline.benchmark import runs
from pipeline.datasets import prepared
from pipeline.metrics import mixture
from pipeline.sampling import sample_images
from pipeline.scatter import scatter
from pipeline.training import balance, callbacks, collapse, guard, recipe
from pipeline.training.finite import Diverged
from pipeline.training.loop import Callback
from pipeline.training.monitor import Monitor
from pipeline.training.state import State
from pipeline.training.tasks import Generate

log = logging.getLogger(__name__)

KINDS = (
    "healthy",
    "d_too_strong",
    "d_too_weak",
    "g_rate_too_high",
    "minimax_many_d_steps",
    "narrow_g",
    "lost_classes",
    "tiny_set",
)
# What makes a training small.
SMALL: dict[str, dict[str, Any]] = {
    "digits": {
        "model": {"width": 8},
        "train": {"steps": 1000, "batch_size": 32, "precision": "fp32", "ema_decay": 0.98},
    },
    "ring": {"model": {"width": 64}, "train": {"steps": 1500, "batch_size": 128}},
    "grid": {"model": {"width": 64}, "train": {"steps": 1500, "batch_size": 128}},
}
# The first seed of each half, and how many each kind gets by arm: of digits, of ring and of grid.
# Of the sound recipes under `fixed` there are more: false alarms are counted on them.
HALVES = {"calibration": 0, "report": 100}
SEEDS: dict[str, dict[str, tuple[int, int, int]]] = {
    "calibration": {
        "sound": (8, 16, 16),
        "fixed": (4, 6, 6),
        "adaptive": (2, 4, 4),
        "rollback": (1, 2, 2),
    },
    "report": {
        "sound": (8, 8, 8),
        "fixed": (3, 3, 3),
        "adaptive": (3, 3, 3),
        "rollback": (3, 3, 3),
    },
}
LOOKS, SAMPLES, JUDGED = 10, 500, 1000
ARMS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "adaptive": {"balance": "adaptive"},
    "rollback": {"on_collapse": "rollback"},
}
# The code that a training goes by beside what every training does: with other rules it is another.
RULES: dict[str, list[Any]] = {
    "fixed": [],
    "adaptive": [balance],
    "rollback": [balance, collapse, guard],
}
DOCS = Path("docs/collapse.md")
PICTURES = {
    "healthy": "healthy_digits_100_fixed",
    "collapsing": "g_rate_too_high_digits_100_fixed",
    "rescued": "g_rate_too_high_digits_100_adaptive",
}
# The judge's bounds: found by looking at its figures and at the pictures, see docs/collapse.md.
FEWEST_MODES = 0.9  # of the classes or modes, each with a fifth of its share or more
LEAST_CONFIDENCE, LEAST_VARIETY = 0.8, 0.6  # of digits
LEAST_NEAR = 0.5  # of points; these lie closer together than reals wherever modes were learnt well


def settings(kind: str, problem: str, seed: int, arm: str) -> dict[str, Any]:
    """All params of one training, nested."""
    name = name_of(kind, problem)
    values = presets.merged(presets.overlay("default"), presets.overlay("dcgan"))
    if name != "healthy":
        values = presets.merged(values, presets.overlay(name))
    width = values["model"]["width"]
    values = presets.merged(values, SMALL[problem])
    if kind == "narrow_g":
        values = presets.merged(values, {"model": {"width": min(width, values["model"]["width"])}})
    if problem != "digits" and kind != "tiny_set":
        values = presets.merged(values, {"data": {"draws": 20_000}})
    every = SMALL[problem]["train"]["steps"] // LOOKS
    size = {"device": "cpu", "eval_samples": SAMPLES, "eval_every": every, "log_every": every}
    return presets.merged(values, {"seed": seed, "train": {**size, **ARMS[arm]}})


def key(kind: str, problem: str, seed: int, arm: str) -> str:
    """Of the settings of a training, and of the rules that it goes by, comments aside."""
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in RULES[arm]]
    rules = [ast.dump(ast.parse(source)) for source in sources]
    values = settings(kind, problem, seed, arm)
    values["train"].pop("cuda_graphs")  # changes no number
    return files.json_hash([values, rules])[:8]


def half_of(seed: int) -> str:
    return "report" if seed >= HALVES["report"] else "calibration"


def planned(half: str, seeds: int | None = None) -> list[tuple[int, str, str, str]]:
    """(seed, arm, problem, kind) of a half, in the order of training.

    That is in turns of one seed of each, the sound ones spread over them, so that what was cut off
    has something of everything. At most `seeds` of each, where given.
    """
    cells = []
    for arm, problem, kind in itertools.product(ARMS, SMALL, KINDS):
        row = SEEDS[half]["sound" if (kind, arm) == ("healthy", "fixed") else arm]
        count = min(row[list(SMALL).index(problem)], seeds or max(row))
        turns = SEEDS[half]["fixed"][list(SMALL).index(problem)]
        cells += [
            (number % turns, (HALVES[half] + number, arm, problem, kind)) for number in range(count)
        ]
    cells.sort(key=lambda cell: (cell[0], KINDS.index(cell[1][3])))  # stable: arms stay in order
    return [cell for _, cell in cells]


def commit() -> str:
    """The commit of this code, in short."""
    facts = lineage.git_facts()
    return facts["git_commit"][:7] + ("+changes" if facts["git_dirty"] == "true" else "")


def name_of(kind: str, problem: str) -> str:
    """The preset that this training is made of."""
    if kind == "healthy":
        return kind if problem == "digits" else problem
    return f"failing/{kind if problem == 'digits' else f'{problem}_{kind}'}"


@contextlib.contextmanager
def project(values: dict[str, Any], problem: str, kind: str) -> Any:
    """Work in a folder where data and features are ready."""
    data = f"{problem}_tiny" if kind == "tiny_set" else problem
    folder = paths.benchmarks() / "collapse" / data
    folder.mkdir(parents=True, exist_ok=True)
    runs.prepare({**values, "seed": 0}, folder)
    with contextlib.chdir(folder):
        yield


def trained(
    kind: str, problem: str, seed: int, arm: str, judged: Judge
) -> tuple[dict[str, Any], Film]:
    """One training: its looks, what it told, what it took, and what the judge says."""
    values = settings(kind, problem, seed, arm)
    params = config.check(values)
    with project(values, problem, kind):
        data, device = prepared.load(), torch.device("cpu")
        train, val = data.split("train"), data.split("val")
        watch = Timed(Monitor(data, n=SAMPLES, seed=99, conditional=False, device=device))
        state = recipe.make_state(params, shape=data.shape, n_classes=0, device=device)
        task = recipe.make_task(
            params, train.images, train.labels, device, (val.images, val.labels)
        )
        film = Film(params.train.steps, train.images[:1500], task)
        ended = "done"
        try:
            recipe.run(
                params,
                state,
                task,
                precision=torch.float32,
                evaluate=watch,
                save=lambda state: None,
                callbacks=[callbacks.StopOnDivergence(), film],
            )
        except Diverged as error:
            ended = str(error)
        samples = sample_images(state.ema, n=JUDGED, seed=1, labels=None, device=device)
        looks = [
            {
                key.removeprefix("eval_"): value
                for key, value in row.items()
                if key == "step" or "eval_" in key
            }
            for row in state.history
            if "eval_fd" in row
        ]
        figures = judged.figures(problem, samples, data)
    return {
        "kind": kind, "problem": problem, "seed": seed, "arm": arm, "ended": ended,
        "steps": params.train.steps, "looks": looks, "events": state.events,
        "stands": film.stands,
        "history": [{k: row[k] for k in ("step", "d_real", "d_fake", "d_acc_real", "d_acc_fake")}
                    for row in state.history],
        "seconds": state.seconds, "seconds_looking": watch.seconds, "judge": figures,
    }, film  # fmt: skip


class Timed:
    """A monitor that knows how long it took."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.seconds = monitor, 0.0

    def __call__(self, generator: torch.nn.Module) -> dict[str, float]:
        began = time.perf_counter()
        figures = self.monitor(generator)
        self.seconds += time.perf_counter() - began
        return figures


class Judge:
    """Labels final samples; shares nothing with the monitor but the samples."""

    def __init__(self, mnist: Path, *, digits: bool) -> None:
        if not digits:
            return
        splits = judge.read_mnist(mnist)
        self.net = judge.the_judge(splits, 0)  # its weights are kept in .cache here
        images, labels = splits["train"]
        self.frequencies = np.bincount(labels, minlength=10) / len(labels)
        reals, _ = judge.look(self.net, images[:JUDGED])
        self.spread = judge.median_neighbour(reals)

    def figures(
        self, problem: str, samples: np.ndarray, data: prepared.Prepared
    ) -> dict[str, float]:
        """`modes` (share of all), `confidence` or `near`, and `variety`."""
        if problem == "digits":
            features, probabilities = judge.look(self.net, samples)
            shares = np.bincount(probabilities.argmax(1), minlength=10) / len(samples)
            return {
                "modes": float((shares > 0.2 * self.frequencies).mean()),
                "confidence": float(probabilities.max(1).mean()),
                "variety": judge.median_neighbour(features) / self.spread,
            }
        centres, sigma = np.array(data.manifest["centres"]), data.manifest["sigma"]
        wide = 0.2 if problem == "ring" else 0.5  # a quarter of the way to the next mode
        modes, near = mixture.nearest(samples, centres, wide / mixture.DEVIATIONS)
        _, good = mixture.nearest(samples, centres, sigma)
        shares = np.bincount(modes[near], minlength=len(centres)) / len(samples)
        reals = data.split("test").images[: len(samples)]
        ratio = judge.median_neighbour(samples[: len(reals)]) / judge.median_neighbour(reals)
        return {
            "modes": float((shares > 0.2 / len(centres)).mean()),
            "near": float(near.mean()),
            "variety": ratio,
            "hq": float(good.mean()),
        }


class Film(Callback):
    """Samples at four moments, side by side; and how D stands at every look."""

    def __init__(self, steps: int, reals: np.ndarray, task: Generate) -> None:
        self.moments = [steps * k // 4 // 10 * 10 for k in (1, 2, 3, 4)]
        self.reals, self.task = reals, task
        self.frames: list[np.ndarray] = []
        self.stands: list[dict[str, float]] = []

    def on_eval(self, state: State, row: dict[str, float]) -> None:
        self.stands.append(self.stand(state))
        if len(self.frames) < 4 and state.step >= self.moments[len(self.frames)]:
            self.frames.append(self.frame(state))

    @torch.no_grad()
    def stand(self, state: State) -> dict[str, float]:
        """What an adaptive balance would hear of D: accuracy, and gap on held-out reals."""
        heard: list[torch.Tensor] = []
        state.discriminator.eval()  # or its power iteration would move
        for counter in range(state.batches, state.batches + 3):
            batch, held_out = self.task.batch_at(counter), self.task.held_out(counter)
            assert held_out is not None
            shown = (batch.images, held_out.images, self.task.fake(state.ema, batch))
            heard += [self.task.judge(state.discriminator, x, batch).logits for x in shown]
        state.discriminator.train()
        real, held, fake = (torch.cat(heard[i::3]) for i in range(3))
        told = float(real.mean() - fake.mean())
        gap = float(real.mean() - held.mean()) / told if told > 1e-3 else 0.0
        return {"accuracy": float((real > fake).float().mean()), "gap": gap}

    def frame(self, state: State) -> np.ndarray:
        points = self.reals.ndim == 2
        device = torch.device("cpu")
        n = 1500 if points else 64
        samples = sample_images(state.ema, n=n, seed=2, labels=None, device=device)
        return scatter(samples, self.reals, size=224) if points else grids.grid(samples, 8)

    def save(self, path: Path) -> None:
        width = max(frame.shape[1] for frame in self.frames)
        blank = np.full((self.frames[0].shape[0], 12, self.frames[0].shape[2]), 255, np.uint8)
        assert width
        row: list[np.ndarray] = []
        for frame in self.frames:
            row += [frame, blank]
        grids.save_png(path, np.hstack(row[:-1]))


def failed(figures: dict[str, float]) -> bool:
    """The judge's label: classes or modes are gone, or variety, or the samples are none."""
    if figures["modes"] < FEWEST_MODES:
        return True
    if "near" in figures:
        return figures["near"] < LEAST_NEAR
    return figures["confidence"] < LEAST_CONFIDENCE or figures["variety"] < LEAST_VARIETY


def first_alarm(result: dict[str, Any]) -> float | None:
    """The share of a training at which the alarm, with its present bounds, first sounds."""
    alarm = collapse.CollapseAlarm()
    for look in result["looks"]:
        share = look["step"] / result["steps"]
        if alarm.hears(look, share) is not None:
            return float(share)
    return None if result["ended"] == "done" else result["looks"][-1]["step"] / result["steps"]


def alarmed(result: dict[str, Any]) -> bool:
    return first_alarm(result) is not None


def fit(results: list[dict[str, Any]]) -> str:
    """The bounds that serve these trainings best: of what is equally good, where it lies."""
    found = []
    grid = itertools.product(
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
        (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    )
    kept = dict(collapse.HIGHEST), dict(collapse.LOWEST)
    try:
        for kl, jsd, variety in grid:
            collapse.HIGHEST.update(label_kl=kl, ndb_jsd=jsd)
            collapse.LOWEST.update(selfnn_ratio=variety)
            hits, alarms = rates(results)
            found.append(
                (hits[0] / max(hits[1], 1) - alarms[0] / max(alarms[1], 1), kl, jsd, variety)
            )
    finally:
        collapse.HIGHEST.update(kept[0])
        collapse.LOWEST.update(kept[1])
    best = max(found)[0]
    ties = [row[1:] for row in found if row[0] == best]
    middle = [float(np.median([tie[i] for tie in ties])) for i in range(3)]
    return (
        f"hit rate less false-alarm rate {best:.3f} with {len(ties)} of {len(found)} (label_kl, "
        f"ndb_jsd, selfnn_ratio): middle {middle}, lowest {min(ties)}, highest {max(ties)}"
    )


def rates(results: list[dict[str, Any]]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(hits, failed trainings), (false alarms, sound trainings)."""
    bad = [alarmed(r) for r in results if failed(r["judge"])]
    good = [alarmed(r) for r in results if not failed(r["judge"])]
    return (sum(bad), len(bad)), (sum(good), len(good))


def share(part: tuple[int, int]) -> str:
    """As "38 of 40, 95% (83 to 99%)", with Wilson's interval."""
    k, n = part
    if not n:
        return "none"
    interval = stats.binomtest(k, n).proportion_ci(method="wilson")
    return f"{k} of {n}, {k / n:.0%} ({interval.low:.0%} to {interval.high:.0%})"


def table(results: list[dict[str, Any]]) -> list[str]:
    """What the page shows: both halves under `fixed`, then kind by kind, then arm by arm."""
    halves = {half: [r for r in results if half_of(r["seed"]) == half] for half in HALVES}
    fixed = {half: [r for r in rows if r["arm"] == "fixed"] for half, rows in halves.items()}
    lines = [
        "| half | failed trainings that it saw | false alarms in sound ones |",
        "| --- | --- | --- |",
    ]
    for half, rows in fixed.items():
        hits, alarms = rates(rows)
        seeds = f"seeds from {HALVES[half]}"
        lines.append(f"| {half} ({seeds}) | {share(hits)} | {share(alarms)} |")
    lines += [
        "",
        "Report half, `fixed`:",
        "",
        "| zoo | trained | judged failed | of these seen | false alarms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, problem in itertools.product(KINDS, SMALL):
        rows = of_cell(fixed["report"], kind, problem)
        if not rows:
            continue
        hits, alarms = rates(rows)
        counts = f"{len(rows)} | {hits[1]} | {hits[0]} | {alarms[0]}"
        lines.append(f"| {kind}, {problem} | {counts} |")
    lines += [
        "",
        "How many failed (and their seeds) in the report half; beside it in the calibration half:",
        "",
        "| zoo | fixed | adaptive | rollback | calibration: fixed | adaptive | rollback |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, problem in itertools.product(KINDS, SMALL):
        rows = {half: of_cell(halves[half], kind, problem) for half in HALVES}
        if not any(rows.values()):
            continue
        cells = [lost([r for r in rows["report"] if r["arm"] == arm], tell=True) for arm in ARMS]
        cells += [lost([r for r in rows["calibration"] if r["arm"] == arm]) for arm in ARMS]
        lines.append(f"| {kind}, {problem} | " + " | ".join(cells) + " |")
    rows = [r for r in halves["report"] if r["kind"] != "healthy"]
    cells = [lost([r for r in rows if r["arm"] == arm]) for arm in ARMS]
    rows = [r for r in halves["calibration"] if r["kind"] != "healthy"]
    cells += [lost([r for r in rows if r["arm"] == arm]) for arm in ARMS]
    lines.append("| all that are not healthy | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"Report half, {arm}: {against_fixed(halves['report'], arm)}" for arm in ARMS][1:]
    lines.append("")
    for half, rows in halves.items():
        made = sorted({(r["arm"], r.get("commit", "one not recorded")) for r in rows})
        told = ", ".join(f"{arm} by {by}" for arm, by in made) or "none"
        minutes = sum(r["seconds"] + r["seconds_looking"] for r in rows) / 60
        lines.append(
            f"{half.capitalize()}: {len(rows)} trainings, {minutes:.0f} minutes; commits: {told}."
        )
    return lines


def of_cell(results: list[dict[str, Any]], kind: str, problem: str) -> list[dict[str, Any]]:
    return [r for r in results if (r["kind"], r["problem"]) == (kind, problem)]


def against_fixed(results: list[dict[str, Any]], arm: str) -> str:
    """What became under `arm` of the trainings that failed under `fixed`, and of the sound ones."""
    by = {(r["kind"], r["problem"], r["seed"], r["arm"]): bad(r) for r in results}
    pairs = [
        (by[(*cell, "fixed")], failed_too)
        for (*cell, own), failed_too in by.items()
        if own == arm and (*cell, "fixed") in by
    ]
    saved = [not after for before, after in pairs if before]
    broken = [after for before, after in pairs if not before]
    return (
        f"{sum(saved)} of the {len(saved)} that failed under fixed are sound, and {sum(broken)} of "
        f"the {len(broken)} that were sound failed. Of the failing recipes' trainings, by `fd` of "
        f"the last look {distances(results, arm, last=True)}; by the best look's, which is the one "
        f"that is kept, {distances(results, arm, last=False)}."
    )


def distances(results: list[dict[str, Any]], arm: str, *, last: bool) -> str:
    """In how many trainings of the failing recipes `fd` is half of `fixed`'s or less, or double."""

    def fd(result: dict[str, Any]) -> float:
        values = [look["fd"] for look in result["looks"]]
        return values[-1] if last else min(values)

    by = {
        (r["kind"], r["problem"], r["seed"], r["arm"]): fd(r)
        for r in results
        if r["kind"] != "healthy" and r["looks"]
    }
    ratios = [
        value / by[(*cell, "fixed")]
        for (*cell, own), value in by.items()
        if own == arm and (*cell, "fixed") in by
    ]
    better, worse = sum(r <= 0.5 for r in ratios), sum(r >= 2 for r in ratios)
    return f"{better} of {len(ratios)} are at least twice as near, {worse} twice as far"


def bad(result: dict[str, Any]) -> bool:
    return failed(result["judge"]) or result["ended"] != "done"


def lost(results: list[dict[str, Any]], *, tell: bool = False) -> str:
    """How many of them failed: as "2 of 3", and their seeds where asked."""
    if not results:
        return "-"
    seeds = sorted(r["seed"] for r in results if bad(r))
    told = f" ({', '.join(map(str, seeds))})" if seeds and tell else ""
    return f"{len(seeds)} of {len(results)}{told}"


def write_docs(text: str, results: Path) -> None:
    """The table between the marks in docs/collapse.md, and its pictures beside it."""
    before, mark, rest = DOCS.read_text(encoding="utf-8").partition("<!-- zoo -->\n")
    _, end, after = rest.partition("<!-- end -->")
    files.write_bytes(DOCS, f"{before}{mark}{text}\n{end}{after}".encode())
    for name, source in PICTURES.items():
        picture = results / f"{source}.png"
        if picture.exists():
            files.write_bytes(DOCS.with_name(f"collapse_{name}.png"), picture.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True, help="parquet file of all of MNIST")
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--problem", action="append", choices=SMALL)
    parser.add_argument("--arm", action="append", choices=ARMS)
    parser.add_argument("--half", choices=HALVES, default="report")
    parser.add_argument("--seeds", type=int, help="at most so many of each kind")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after")
    parser.add_argument(
        "--fit", action="store_true", help="look for bounds on the calibration half"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--docs", action="store_true", help="write table and pictures into docs/")
    arguments = parser.parse_args()
    logs.setup()
    logging.getLogger("pipeline").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    folder = (paths.benchmarks() / "collapse" / "results").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    problems = arguments.problem or list(SMALL)
    judged, began = Judge(arguments.mnist.resolve(), digits="digits" in problems), time.monotonic()
    code = commit()
    asked = arguments.arm or ARMS, problems, arguments.kind or KINDS
    for seed, arm, problem, kind in planned(arguments.half, arguments.seeds):
        if arm not in asked[0] or problem not in asked[1] or kind not in asked[2]:
            continue
        path = folder / f"{kind}_{problem}_{seed}_{arm}.json"
        own = key(kind, problem, seed, arm)
        if path.exists() and files.read_json(path).get("key") == own:
            continue
        if time.monotonic() - began > arguments.seconds:
            break
        result, film = trained(kind, problem, seed, arm, judged)
        if film.frames:
            film.save(path.with_suffix(".png"))
        files.write_json(path, result | {"key": own, "commit": code})
        told = {k: round(v, 3) for k, v in result["judge"].items()}
        print(path.stem, "FAILED" if failed(result["judge"]) else "sound",
              "alarm" if alarmed(result) else "-", told, flush=True)  # fmt: skip
    results = [
        result
        for result in (files.read_json(path) for path in sorted(folder.glob("*.json")))
        if result["key"] == key(*(result[name] for name in ("kind", "problem", "seed", "arm")))
    ]
    if arguments.fit:
        print(
            fit([r for r in results if r["arm"] == "fixed" and half_of(r["seed"]) == "calibration"])
        )
    head = (
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, one thread; "
        f"torch {torch.__version__}."
    )
    text = "\n".join([head, "", *table(results)])
    print(text)
    if arguments.out:
        files.write_bytes(arguments.out, text.encode())
    if arguments.docs:
        made = {(r["seed"], r["arm"], r["problem"], r["kind"]) for r in results}
        missing = [cell for cell in planned("report") if cell not in made]
        if missing:
            raise SystemExit(f"error: {len(missing)} trainings of the report half are missing")
        write_docs(text, folder)


if __name__ == "__main__":
    main()
