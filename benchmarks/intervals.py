"""How often the metrics' 95% intervals hold what they claim to hold, by simulation.

Each row draws reals, fakes and training images anew, so many times, from distributions whose true
figure is known, or is the mean over all draws where a figure belongs to its N and M. Prints the
table of docs/metrics_intervals.md.

    python benchmarks/intervals.py [--draws 400]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.metrics import (
    bins,
    frechet,
    intervals,
    kernel,
    memorization,
    mind,
    modes,
    nearest,
    neighbours,
    scores,
)

# Estimate, low and high end, and the truth; None: the mean of the estimates over all draws.
Outcome = tuple[float, float, float, float | None]
Case = Callable[[np.random.Generator], dict[str, Outcome]]

N_MODES, DIMENSIONS, INNER = 10, 32, 8


def clusters(
    n: int, rng: np.random.Generator, *, spread: float = 1.0, first_mode: int = 0
) -> np.ndarray:
    """n points (n, 32) in ten clusters, each of eight inner dimensions: features with classes."""
    fixed = np.random.default_rng(5)
    centres = 2 * fixed.normal(size=(N_MODES, DIMENSIONS))
    axes = fixed.normal(size=(N_MODES, INNER, DIMENSIONS)) / np.sqrt(INNER)
    labels = rng.integers(first_mode, N_MODES, n)
    within = spread * rng.normal(size=(n, INNER))
    return (centres[labels] + np.einsum("ni,nid->nd", within, axes[labels])).astype(np.float32)


def fd(shift: float) -> Case:
    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        real, fakes = rng.normal(size=(400, 8)), rng.normal(shift, 1, (500, 8))
        low, high = frechet.interval(fakes, real, resamples=100, seed=seed_of(rng))
        return {"fd": (frechet.distance(fakes, real), low, high, 8 * shift**2)}

    return case


def fd_difference(shift_a: float, shift_b: float) -> Case:
    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        real, latents = rng.normal(size=(400, 8)), rng.normal(size=(500, 8))
        own = rng.normal(size=(2, 500, 8))
        a, b = ((2 * latents + x) / np.sqrt(5) for x in own)
        d = frechet.paired_difference(
            a + shift_a, b + shift_b, real, resamples=100, seed=seed_of(rng)
        )
        return {"fd, paired difference": (d.delta, d.low, d.high, 8 * (shift_a**2 - shift_b**2))}

    return case


def kid(shift: float) -> Case:
    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        fakes, real = rng.normal(shift, 1, (800, 16)), rng.normal(size=(400, 16))
        figure = kernel.kid(fakes, real, subsets=10)
        interval = intervals.of_ten_blocks(figure, kernel.kid_se(fakes, real))
        return {"kid": (figure, *interval, None)}

    return case


def sliced(shift: float) -> Case:
    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        fakes, real = rng.normal(shift, 1, (500, 16)), rng.normal(size=(400, 16))
        interval = mind.interval(fakes, real, seed=seed_of(rng))
        return {"mind": (mind.mind(fakes, real), *interval, None)}

    return case


def of_neighbours(**how: float) -> Case:
    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        real, fakes = clusters(500, rng), clusters(500, rng, **how)
        found = neighbours.precision_recall_intervals(real, fakes, seed=seed_of(rng))
        of_selves = neighbours.selfnn_interval(fakes, real, seed=seed_of(rng))
        return {
            **{
                name: (found[name], found[f"{name}_ci_low"], found[f"{name}_ci_high"], None)
                for name in neighbours.FIGURES
            },
            "selfnn_ratio": (neighbours.selfnn_ratio(fakes, real), *of_selves, None),
        }

    return case


def seed_of(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 30))


def label_kl(p: np.ndarray, q: np.ndarray) -> Case:
    seen = p > 0
    truth = float(np.sum(p[seen] * np.log(p[seen] / q[seen])))

    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        labels = rng.choice(len(p), 1000, p=p)
        interval = modes.label_kl_interval(labels, q, seed=seed_of(rng))
        return {"label_kl": (modes.label_kl(labels, q), *interval, truth)}

    return case


def ndb_jsd(**how: float) -> Case:
    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        real, fakes = clusters(500, rng), clusters(1000, rng, **how)
        centres = bins.fit(real, 50)

        def histogram(features: np.ndarray) -> np.ndarray:
            return modes.frequencies(bins.assign(features, centres), len(centres))

        p, q = histogram(fakes), histogram(real)
        truth = modes.jensen_shannon(
            histogram(clusters(40_000, rng, **how)), histogram(clusters(40_000, rng))
        )
        interval = modes.jensen_shannon_interval(p, q, 1000, 500)
        return {"ndb_jsd": (modes.jensen_shannon(p, q), *interval, truth)}

    return case


def within_var_ratio(narrow: float) -> Case:
    """Ten classes, one of `narrow` times the variance of the others among the fakes."""
    centres = 6 * np.random.default_rng(5).normal(size=(N_MODES, INNER))

    def draw(
        n: int, variances: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, N_MODES, n)
        noise = rng.normal(size=(n, INNER))
        return centres[labels] + np.sqrt(variances)[labels, None] * noise, labels

    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        variances = np.ones(N_MODES)
        reals = draw(1000, variances, rng)
        variances[3] = narrow
        fakes = draw(1000, variances, rng)
        ratio = modes.within_var_ratio(
            *(modes.within_variances(*side, N_MODES) for side in (fakes, reals))
        )
        interval = modes.within_var_interval(fakes, reals, N_MODES, seed=seed_of(rng))
        return {"within_var_ratio": (ratio, *interval, None)}

    return case


def inception_score(rng: np.random.Generator) -> dict[str, Outcome]:
    logits = 4 * np.eye(10)[rng.integers(0, 10, 1000)] + rng.normal(size=(1000, 10))
    mean, deviation = scores.inception_score(logits)
    return {"is_mean": (mean, *intervals.of_ten_blocks(mean, deviation / 3), None)}


def audit(copied: float) -> Case:
    """Fakes of the training images' own distribution, some of them noisy copies."""

    def draw_fakes(n: int, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        fakes = clusters(n, rng)
        copies = rng.random(n) < copied
        originals = train[rng.integers(0, len(train), copies.sum())]
        fakes[copies] = originals + 0.05 * rng.normal(size=originals.shape)
        return fakes

    def case(rng: np.random.Generator) -> dict[str, Outcome]:
        train, held_out = clusters(800, rng), clusters(400, rng)
        fakes = draw_fakes(600, train, rng)
        found = memorization.audit(fakes, train, held_out, seed=seed_of(rng))
        # The rate's interval is one given this training set and threshold.
        to_train, _ = nearest.nearest(held_out, train)
        further, _ = nearest.nearest(draw_fakes(20_000, train, rng), train)
        rate = memorization.nearcopy(further, to_train)["nearcopy_rate"]
        truths = {
            "nearcopy": ("nearcopy_rate", rate),
            "nn_share": ("nn_share", None if copied else 0.5),
            "mia_tpr1": ("mia_tpr1", None if copied else 0.01),
        }
        outcomes: dict[str, Outcome] = {
            key: (found[key], found[f"{name}_ci_low"], found[f"{name}_ci_high"], truth)
            for name, (key, truth) in truths.items()
        }
        half = 1.96 * found["ct_z_null_sd"]
        if not copied:
            outcomes["ct_z within 1.96 null_sd"] = (found["ct_z"], -half, half, 0.0)
        return outcomes

    return case


def tilted(strength: float, dropped: int = 0) -> np.ndarray:
    p = np.exp(strength * np.random.default_rng(1).normal(size=10))
    p[:dropped] = 0
    return p / p.sum()


CASES: dict[str, Case] = {
    "fd, equal": fd(0.0),
    "fd, shifted": fd(0.15),
    "fd, equal models": fd_difference(0.15, 0.15),
    "fd, one better": fd_difference(0.1, 0.15),
    "kid, equal": kid(0.0),
    "kid, shifted": kid(0.15),
    "mind, equal": sliced(0.0),
    "mind, shifted": sliced(0.15),
    "k-NN, equal": of_neighbours(),
    "k-NN, narrower": of_neighbours(spread=0.75),
    "k-NN, two modes dropped": of_neighbours(first_mode=2),
    "labels, equal": label_kl(tilted(0), tilted(0)),
    "labels, uneven": label_kl(tilted(0.3), tilted(0)),
    "labels, one class dropped": label_kl(tilted(0, dropped=1), tilted(0)),
    "bins, equal": ndb_jsd(),
    "bins, narrower": ndb_jsd(spread=0.75),
    "classes, equally varied": within_var_ratio(1.0),
    "classes, one narrower": within_var_ratio(0.7),
    "logits": inception_score,
    "no copies": audit(0.0),
    "5% copies": audit(0.05),
}


def measure(case: Case, draws: int) -> Iterator[str]:
    """A row of the table for each figure of a case."""
    rng = np.random.default_rng(0)
    outcomes = [case(rng) for _ in range(draws)]
    for name in outcomes[0]:
        figure, low, high = np.array([o[name][:3] for o in outcomes]).T
        given = [o[name][3] for o in outcomes]
        truth = np.array([figure.mean() if t is None else t for t in given])
        rate = np.mean((low <= truth) & (truth <= high))
        yield (
            f"{name} | {truth.mean():.4g}{' (mean)' if given[0] is None else ''} | "
            f"{figure.mean():.4g} | {figure.std():.2g} | {np.mean(high - low) / 2:.2g} | {rate:.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400)
    draws = parser.parse_args().draws
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    began = time.process_time()
    print("| case | figure | truth | mean | SD | mean half-width | holds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with threadpool_limits(1, user_api="blas"):
        for title, case in CASES.items():
            for row in measure(case, draws):
                print(f"| {title} | {row} |", flush=True)
    error = np.sqrt(0.95 * 0.05 / draws)
    print(
        f"\n{draws} draws a row (of 95% seen so often, the deviation is {error:.1%}), "
        f"{datetime.date.today()}, {cpu[0].split(': ')[1] if cpu else platform.processor()}, "
        f"{time.process_time() - began:.0f} CPU-seconds."
    )


if __name__ == "__main__":
    main()
