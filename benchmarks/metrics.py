"""Our metrics beside torch-fidelity's, pytorch-fid's, clean-fid's and prdc's, on the same features.

Each contender has a process of its own, in which it is called round by round, all in turn. Time is
that of the call alone: features are loaded, modules imported and threads started before it. Memory
is the peak of the process during its first call, less what it held before. Features are made here:
rectified mixtures of 64 factors, as correlated and as far from the origin as Inception's are.

The peers live in an environment of their own, .cache/peers, made on the first run: their pinned
versions and a SciPy that has what they call (1.18 has not), and after them on its path the
packages of the interpreter that runs this, so that torch is there once and the same for all.

    python benchmarks/metrics.py                # 5,000 x 128 and 10,000 x 2048, on one core
    python benchmarks/metrics.py --all-cores    # the same, with as many threads as they like
    python benchmarks/metrics.py --full         # ours: 50,000 x 50,000 at d = 2048
    python benchmarks/metrics.py --evaluation   # what `evaluate` costs for 10,000 images
    python benchmarks/metrics.py --signals      # what the collapse alarm costs

`--out docs/metrics_peers.md` replaces the sections measured in that file and keeps the others.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

PEERS = Path(".cache/peers")
PINS = [
    "clean-fid==0.1.35",
    "prdc==0.2",
    "pytorch-fid==0.3.0",
    "scipy==1.17.1",
    "torch-fidelity==0.4.0",
]
SIZES = ["5000x128", "10000x2048"]
FULL = (50_000, 2048)
K = 5
SHARED = 0.5  # load average from which the machine is not idle
Figures = dict[str, float]
Data = dict[str, np.ndarray]


# The contenders: `real` and `fake` (N, d) and fakes' `logits` (N, K), all float32, to figures.


def our_frechet(data: Data) -> Figures:
    from pipeline.metrics import frechet

    return {"fd": frechet.distance(data["real"], data["fake"])}


def our_kid(data: Data) -> Figures:
    from pipeline.metrics import kernel

    return {"kid": kernel.kid(data["fake"], data["real"])}


def our_prdc(data: Data) -> Figures:
    from pipeline.metrics import neighbours

    return neighbours.precision_recall(data["real"], data["fake"], k=K)


def our_is(data: Data) -> Figures:
    from pipeline.metrics import scores

    return {"is_mean": scores.inception_score(data["logits"])[0]}


def torch_fidelity_frechet(data: Data) -> Figures:
    from torch import from_numpy
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(from_numpy(data[x])) for x in ("real", "fake")]
    return {"fd": fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]}


def torch_fidelity_kid(data: Data) -> Figures:
    from torch import from_numpy
    from torch_fidelity.metric_kid import kid_features_to_metric

    fake, real = from_numpy(data["fake"]), from_numpy(data["real"])
    result = kid_features_to_metric(fake, real, verbose=False)
    return {"kid": result["kernel_inception_distance_mean"]}


def torch_fidelity_prdc(data: Data, save_cpu_ram: bool = False) -> Figures:
    from torch import from_numpy
    from torch_fidelity.metric_prc import prc_features_to_metric

    return prc_features_to_metric(
        from_numpy(data["fake"]),
        from_numpy(data["real"]),
        prc_neighborhood=K,
        save_cpu_ram=save_cpu_ram,
        verbose=False,
    )


def torch_fidelity_is(data: Data) -> Figures:
    from torch import from_numpy
    from torch_fidelity.metric_isc import isc_features_to_metric

    return {"is_mean": isc_features_to_metric(from_numpy(data["logits"]))["inception_score_mean"]}


def pytorch_fid_frechet(data: Data) -> Figures:
    from pytorch_fid.fid_score import calculate_frechet_distance

    return {"fd": float(calculate_frechet_distance(*_moments(data)))}


def clean_fid_frechet(data: Data) -> Figures:
    from cleanfid.fid import frechet_distance

    return {"fd": float(frechet_distance(*_moments(data)))}


def _moments(data: Data) -> tuple[np.ndarray, ...]:
    """Means and covariances as both projects compute them, in functions that also read images."""
    real, fake = data["real"], data["fake"]
    covariances = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    return np.mean(real, axis=0), covariances[0], np.mean(fake, axis=0), covariances[1]


def clean_fid_kid(data: Data) -> Figures:
    from cleanfid.fid import kernel_distance

    np.random.seed(2020)  # then its subsets are ours and torch-fidelity's
    return {"kid": kernel_distance(data["real"], data["fake"])}


def prdc_prdc(data: Data) -> Figures:
    from prdc import compute_prdc

    figures = compute_prdc(data["real"], data["fake"], nearest_k=K)
    return {name: float(value) for name, value in figures.items()}


CONTENDERS: dict[str, dict[str, Callable[[Data], Figures]]] = {
    "Fréchet distance": {
        "ours": our_frechet,
        "torch-fidelity": torch_fidelity_frechet,
        "pytorch-fid": pytorch_fid_frechet,
        "clean-fid": clean_fid_frechet,
    },
    "KID, 100 subsets of 1,000": {
        "ours": our_kid,
        "torch-fidelity": torch_fidelity_kid,
        "clean-fid": clean_fid_kid,
    },
    "precision, recall, density, coverage": {
        "ours": our_prdc,
        "prdc": prdc_prdc,
        "torch-fidelity (first two)": torch_fidelity_prdc,
        "torch-fidelity, save_cpu_ram": functools.partial(torch_fidelity_prdc, save_cpu_ram=True),
    },
    "inception score": {"ours": our_is, "torch-fidelity": torch_fidelity_is},
}


# What runs in a process of its own.


def make_features(folder: str, n: str, d: str) -> Iterator[dict[str, Any]]:
    """Write real, fake (n, d) and logits (n, 10, or 1,008 from d = 2048) to `folder`."""
    rows, columns = int(n), int(d)
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(64, columns)).astype(np.float32) / 8
    classes = 1008 if columns >= 2048 else 10
    head = rng.normal(size=(columns, classes)).astype(np.float32) / np.sqrt(columns / 4)
    for name, spread, shift in (("real", 1.0, 0.0), ("fake", 0.9, 0.1)):
        features = rng.normal(scale=spread, size=(rows, 64)).astype(np.float32) @ factors
        features += rng.standard_normal((rows, columns), np.float32) / 4
        features = np.maximum(features + np.float32(shift), 0)
        np.save(f"{folder}/{name}.npy", features)
    np.save(f"{folder}/logits.npy", features @ head)
    yield {}


def contend(metric: str, contender: str, folder: str) -> Iterator[dict[str, Any]]:
    """Figures, CPU and wall seconds of a call, and peak MB: over what was held, and in all."""
    function = CONTENDERS[metric][contender]
    function(_warm_up())
    names = ["logits"] if metric == "inception score" else ["real", "fake"]
    data = {name: np.load(f"{folder}/{name}.npy") for name in names}
    ctypes.CDLL(None).malloc_trim(0)  # or what the warm-up freed would hide what the call takes
    repeats = 1
    while True:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _megabytes("VmRSS")
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            figures = function(data)
        cpu, wall = (time.process_time() - cpu) / repeats, (time.perf_counter() - wall) / repeats
        peak = _megabytes("VmHWM")
        yield {"figures": figures, "cpu": cpu, "wall": wall, "mb": peak - before, "peak_mb": peak}
        repeats = max(1, int(0.2 / cpu))


def _warm_up() -> Data:
    draw = np.random.default_rng(0).standard_normal
    return {name: draw((1000, 8), np.float32) for name in ("real", "fake", "logits")}


def _megabytes(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def evaluation_seconds() -> Iterator[dict[str, Any]]:
    """CPU seconds of each step of an evaluation: 10,000 fakes, as many reals, 10 classes.

    The model is conditional, so that the distance per class is among them.
    """
    import torch

    from pipeline import audit, evaluation, extractor, sampling
    from pipeline.datasets.prepared import Split
    from pipeline.networks.build import build
    from pipeline.reference import build_reference

    n, n_train, size, classes = 10_000, 50_000, 32, 10
    rng = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        """Noise of all scales, the coarse ones strongest, as photographs have it: how long the
        search for near copies takes depends on that."""
        total = np.full((count, size, size, 3), 120, np.float32)
        for cells, deviation in ((2, 40), (4, 35), (8, 28), (16, 18), (32, 8)):
            noise = deviation * rng.standard_normal((count, cells, cells, 3), np.float32)
            total += noise.repeat(size // cells, axis=1).repeat(size // cells, axis=2)
        return total.clip(0, 255).astype(np.uint8)

    def labels(count: int) -> np.ndarray:
        return rng.permutation(np.arange(count) % classes)

    # Not timed: what the stages before have written. Weights do not change what an extractor costs;
    # this one keeps all of its 128 features, the most that there can be.
    torch.manual_seed(0)
    judge = extractor.Extractor(image_size=size, channels=3, n_outputs=classes).eval()
    with torch.inference_mode():
        raw = judge.raw_features(torch.from_numpy(images(500)))
        judge.mean, judge.std = raw.mean(dim=0), raw.std(dim=0)
    judge.to(memory_format=torch.channels_last)  # as `extractor.load` does
    train = Split(images(n_train), labels(n_train))
    held_out = Split(images(n), labels(n))
    train_features, _ = extractor.extract(judge, train.images)
    reals, real_logits = extractor.extract(judge, held_out.images)
    shown, requested = images(n), labels(n)  # a trained generator's, whose samples are no noise
    generator, _ = build(
        "dcgan", shape=(size, size, 3), latent_dim=64, n_classes=classes, width=32,
        spectral_norm=True, seed=0,
    )  # fmt: skip

    seconds: Figures = {}
    began = time.process_time()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = time.process_time() - began
        began = time.process_time()

    sampling.sample_images(generator.eval(), n=n, seed=0, labels=requested)
    lap("sampling (the default DCGAN)")
    features, logits = extractor.extract(judge, shown)
    lap("features")
    reference = build_reference(reals, real_logits, [n_train // classes] * classes)
    lap("reference")
    space = evaluation.Space(features, reals, train_features, logits)
    evaluation.evaluate(
        evaluation.Fakes(features, logits, shown, requested),
        reference,
        space,
        evaluation.Settings(),
        on_family=lambda name: lap(f"metrics: {name}"),
    )
    audit.copies(shown, train, held_out, seed=0)
    lap("copies of 50,000 training images, in pixels, and the controls")
    assert held_out.labels is not None
    assert train.labels is not None
    audit.classes(
        space, requested, logits.argmax(axis=1), reals=held_out.labels, train=train.labels
    )
    lap("distance per class")
    yield {"seconds": seconds, "features": features.shape[1]}


def signals_milliseconds() -> Iterator[dict[str, Any]]:
    """CPU milliseconds of the four signals of collapse of 1,000 samples, beside 1,000 reals."""
    from pipeline.reference import build_reference, collapse

    n, d, classes = 1000, 128, 10
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(classes, d))

    def draw() -> tuple[np.ndarray, np.ndarray]:
        features = centres[rng.integers(classes, size=n)] + rng.normal(size=(n, d))
        return features.astype(np.float32), features[:, :classes].astype(np.float32)

    reference, fakes = build_reference(*draw(), [n // classes] * classes), draw()
    taken = []
    for _ in range(50):
        began = time.process_time()
        collapse(*fakes, reference)
        taken.append(1000 * (time.process_time() - began))
    yield {"milliseconds": median(taken)}


# The environment and the processes.


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made where it is missing or out of date.

    Its path has its own packages first, then those of the interpreter that runs this. A plain line
    of a .pth file: editable installs there are not followed, `pipeline` is that of this folder.
    """
    python = PEERS / "bin" / "python"
    wanted = "\n".join([*PINS, sys.version, sysconfig.get_path("purelib")])
    stamp = PEERS / "made_of"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {PEERS}: {', '.join(PINS)}", flush=True)
    shutil.rmtree(PEERS, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PINS], check=True)
    (own,) = PEERS.glob("lib/python*/site-packages")
    (own / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp.write_text(wanted)
    return python


class Process:
    """A process that does one job and says the next result, as JSON, whenever it is asked."""

    def __init__(self, job: list[str], *, one_core: bool, python: Path | str) -> None:
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {name: value for name, value in os.environ.items() if name not in variables}
        environment["PYTHONPATH"] = str(Path.cwd())
        if one_core:
            environment |= dict.fromkeys(variables, "1")
        self.name = " ".join(job)
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self.process = subprocess.Popen(
            [python, __file__, "--job", json.dumps({"job": job, "one_core": one_core})],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("next\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            sys.exit(f"{self.name} ended with {self.process.wait()}:\n{self.errors.read()}")
        return json.loads(line)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def work(text: str) -> None:
    """The process's side: a result to each line of standard input."""
    task = json.loads(text)
    answers, sys.stdout = sys.stdout, sys.stderr  # prdc prints
    if task["one_core"]:  # and starts eight threads whatever the environment says
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    kind, *arguments = task["job"]
    results: dict[str, Callable[..., Iterator[dict[str, Any]]]]
    results = {
        "features": make_features,
        "contend": contend,
        "evaluation": evaluation_seconds,
        "signals": signals_milliseconds,
    }
    for _, result in zip(sys.stdin, results[kind](*arguments), strict=False):
        print(json.dumps(result), file=answers, flush=True)


# The tables. Each is a section of the document: its heading, then its lines.


def peers_section(n: int, d: int, rounds: int, one_core: bool) -> str:
    python = peers_python()
    seconds = "cpu" if one_core else "wall"
    lines = [
        f"## {n:,} reals and {n:,} fakes, d = {d:,}, {'one core' if one_core else 'all cores'}",
        f"{stamp()} {'One round' if rounds == 1 else f'Medians of {rounds} rounds'}.",
        "",
        f"| | difference from ours | {'CPU s' if one_core else 's'} | times ours | peak MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        job = ["features", folder, str(n), str(d)]
        with Process(job, one_core=one_core, python=python) as process:
            process.ask()
        for metric, contenders in CONTENDERS.items():
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
            with contextlib.ExitStack() as stack:
                processes = {}
                for name in contenders:
                    job = ["contend", metric, name, folder]
                    process = Process(job, one_core=one_core, python=python)
                    processes[name] = stack.enter_context(process)
                for _ in range(rounds):
                    for name, process in processes.items():
                        runs[name].append(process.ask())
                        print(f"{metric}, {name}: {runs[name][-1][seconds]:.3f} s", flush=True)
            ours = runs["ours"]
            figures = ", ".join(f"{value:.6g}" for value in ours[0]["figures"].values())
            lines.append(f"| **{metric}**: {figures} | | | | |")
            for name, theirs in runs.items():
                ratio = median(a[seconds] / b[seconds] for a, b in zip(theirs, ours, strict=True))
                off = "" if theirs is ours else difference(theirs[0]["figures"], ours[0]["figures"])
                lines.append(
                    f"| {name} | {off} "
                    f"| {median(run[seconds] for run in theirs):.3g} | {ratio:.1f} "
                    f"| {theirs[0]['mb']:,.0f} |"
                )
    return "\n".join(lines) + "\n"


def difference(theirs: Figures, ours: Figures) -> str:
    """Largest relative difference of the figures that both have."""
    shared = theirs.keys() & ours.keys()
    return f"{max(abs(theirs[name] / ours[name] - 1) for name in shared):.0e}"


def full_section() -> str:
    n, d = FULL
    began = stamp()
    PEERS.parent.mkdir(exist_ok=True)
    metric = "precision, recall, density, coverage"
    with tempfile.TemporaryDirectory(dir=PEERS.parent) as folder:
        job = ["features", folder, str(n), str(d)]
        with Process(job, one_core=True, python=sys.executable) as process:
            process.ask()
        job = ["contend", metric, "ours", folder]
        with Process(job, one_core=True, python=sys.executable) as process:
            run = process.ask()
    figures = ", ".join(f"{name} {value:.4f}" for name, value in run["figures"].items())
    return (
        f"## {n:,} x {n:,} at d = {d:,}\n{began} One run on one core.\n\n"
        f"Ours: {run['cpu']:.0f} CPU seconds ({run['wall']:.0f} s on the clock), peak memory of "
        f"the process {run['peak_mb']:,.0f} MB, interpreter and both sets of features "
        f"({2 * n * d * 4 / 2**20:,.0f} MB) included; {run['mb']:,.0f} MB of it beyond them. "
        f"{figures}.\nOne float32 matrix of {n:,} x {n:,} would take {n * n * 4 / 2**20:,.0f} MB; "
        "prdc and torch-fidelity's default hold several.\n"
    )


def evaluation_section() -> str:
    began = stamp()
    with Process(["evaluation"], one_core=True, python=sys.executable) as process:
        run = process.ask()
    seconds = run["seconds"]
    lines = [
        "## What `evaluate` costs",
        f"{began} 10,000 fakes and 10,000 reals of 32 x 32 x 3 pixels, the domain extractor "
        f"({run['features']} features), 200 resamples; one core. CAS, a training, is not included.",
        "",
        "| step | CPU s |",
        "| --- | --- |",
        *(f"| {name} | {value:.2f} |" for name, value in seconds.items()),
        f"| **all** | **{sum(seconds.values()):.1f}** (asked: at most 40) |",
    ]
    return "\n".join(lines) + "\n"


def signals_section() -> str:
    began = stamp()
    with Process(["signals"], one_core=True, python=sys.executable) as process:
        run = process.ask()
    return (
        f"## The four signals of collapse\n{began} Median of 50 rounds on one core.\n\n"
        "label_kl, ndb_jsd, selfnn_ratio and within_var_ratio of 1,000 samples beside 1,000 reals, "
        f"128 features, beyond their extraction: {run['milliseconds']:.1f} CPU milliseconds "
        "(asked: at most 5).\n"
    )


def stamp() -> str:
    """Date, machine, versions, and how much else ran there when the measuring began."""
    from importlib.metadata import version

    load = os.getloadavg()[0]
    shared = f"shared with other work (load {load:.1f})" if load > SHARED else "else idle"
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{datetime.date.today()}, {cpu[1] if cpu else platform.machine()}, "
        f"{os.cpu_count()} cores, {shared}, torch {version('torch')}, numpy {version('numpy')}."
    )


def write(path: Path, sections: list[str]) -> None:
    """Replace or add sections of the document by their headings."""
    head, *kept = path.read_text().split("\n## ") if path.exists() else ["# Metrics beside peers\n"]
    named = {section.split("\n")[0]: "## " + section.rstrip() + "\n" for section in kept}
    named |= {section.removeprefix("## ").split("\n")[0]: section for section in sections}
    path.write_text("\n".join([head.rstrip() + "\n", *named.values()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", action="append", help="N x d, such as 5000x128; may be repeated")
    parser.add_argument("--all-cores", action="store_true", help="seconds on all cores")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="50,000 x 50,000 at d = 2048, ours")
    parser.add_argument("--evaluation", action="store_true", help="the cost of an evaluation")
    parser.add_argument("--signals", action="store_true", help="the cost of the collapse alarm")
    parser.add_argument("--out", type=Path, help="document whose sections are replaced")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        work(arguments.job)
        return
    sizes = arguments.size or []
    if not (sizes or arguments.full or arguments.evaluation or arguments.signals):
        sizes = SIZES
    sections = []
    for size in sizes:
        n, d = (int(x) for x in size.split("x"))
        sections.append(peers_section(n, d, arguments.rounds, not arguments.all_cores))
    if arguments.full:
        sections.append(full_section())
    if arguments.evaluation:
        sections.append(evaluation_section())
    if arguments.signals:
        sections.append(signals_section())
    print("\n" + "\n".join(sections))
    if arguments.out:
        write(arguments.out, sections)


if __name__ == "__main__":
    main()
