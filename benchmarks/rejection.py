"""What `gan sample --reject` and `--truncation` do to the figures of the trained model here.

Samples of models/generator as they come, kept by its discriminator at several thresholds, and
truncated, all measured against the test split in the data set's own features: as many samples as
`evaluate.samples` asks for, each way.

    python benchmarks/rejection.py [--which best] [--bootstraps 50]
"""

from __future__ import annotations

import argparse

import numpy as np

from pipeline import errors, evaluation, extractor, logs, paths, rejection
from pipeline.config import load_params
from pipeline.datasets import prepared
from pipeline.networks.build import load_generator
from pipeline.reference import benchmark_of, build_reference
from pipeline.sampling import class_labels, sample_images

SHARES = (0.5, 0.8, 0.95)
TRUNCATIONS = (0.9, 0.7)
HEAD = (
    "samples",
    "accepted",
    "fd",
    "floor",
    "precision",
    "recall",
    "density",
    "coverage",
    "label KL",
)
KEYS = ("fd", "fd_floor", "precision", "recall", "density", "coverage", "label_kl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--which", default="best", choices=["best", "last"])
    parser.add_argument("--bootstraps", type=int, default=20)
    arguments = parser.parse_args()
    config = load_params().evaluate
    data = prepared.load()
    counts = data.manifest["splits"]["train"]["class_counts"]
    generator, trained = load_generator(paths.GENERATOR, which=arguments.which)
    n = min(config.samples, len(data.split("train")))
    labels = class_labels(counts, n, config.seed) if trained["n_classes"] else None
    judge = extractor.load()
    reference = build_reference(
        np.load(paths.FEATURES / "test.npy"),
        np.load(paths.FEATURES / "test_logits.npy"),
        counts,
        benchmark_of(data.manifest),
    )
    train = np.load(paths.FEATURES / "train.npy")

    def row(name: str, accepted: str, images: np.ndarray) -> tuple[str, ...]:
        features, logits = extractor.extract(judge, images)
        figures = evaluation.evaluate(
            evaluation.Fakes(features, logits, images, labels),
            reference,
            evaluation.Space(features, reference.features, train, None),
            evaluation.Settings(
                neighbours=config.neighbours, bootstraps=arguments.bootstraps, seed=config.seed
            ),
        )
        return (name, accepted, *(f"{figures[key]:.3g}" for key in KEYS))

    def show(cells: tuple[str, ...]) -> None:
        print("| " + " | ".join(cells) + " |", flush=True)

    show(HEAD)
    show(tuple("---" for _ in HEAD))
    show(row("as they come", "all", sample_images(generator, n=n, seed=config.seed, labels=labels)))
    for share in SHARES:
        images, accepted = rejection.of_training(
            generator, paths.GENERATOR, n=n, seed=config.seed, labels=labels, share=share
        )
        show(row(f"rejected, gamma at {share:.0%}", f"{accepted:.1%}", images))
    for psi in TRUNCATIONS:
        images = sample_images(generator, n=n, seed=config.seed, labels=labels, truncation=psi)
        show(row(f"truncated to {psi}", "all", images))


if __name__ == "__main__":
    logs.setup()
    errors.run(main)
