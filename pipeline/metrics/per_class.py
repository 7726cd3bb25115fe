"""Distance per class of a conditional generator: a good mean may hide a class that is bad."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.metrics import frechet

# Of fewer images the distance says more about their number than about them.
FEWEST = 10


@dataclass(frozen=True)
class ClassFigures:
    """Fréchet distance of one class's fakes to its reals, and of as many training reals.

    `fd_floor` has the same numbers of images as `fd` where the class has so many training images;
    `accuracy` is the share of its fakes that the extractor takes for this class.
    """

    label: int
    n_fake: int
    n_real: int
    fd: float
    fd_floor: float
    accuracy: float


def table(
    fakes: tuple[np.ndarray, np.ndarray],
    reals: tuple[np.ndarray, np.ndarray],
    train: tuple[np.ndarray, np.ndarray],
    seen: np.ndarray,
) -> list[ClassFigures]:
    """A row for each class that has at least 10 fakes, reals and training reals.

    `fakes`, `reals` and `train` are each features (N, d) with labels (N,): the classes asked for,
    and the true ones. `seen` (N,) is the class that the extractor sees in each fake.
    """
    rows = []
    for label in np.unique(fakes[1]):
        chosen = fakes[1] == label
        fake, real, learnt = (f[y == label] for f, y in (fakes, reals, train))
        if min(len(fake), len(real), len(learnt)) < FEWEST:
            continue
        rows.append(
            ClassFigures(
                label=int(label),
                n_fake=len(fake),
                n_real=len(real),
                fd=frechet.distance(fake, real),
                fd_floor=frechet.distance(learnt[: len(fake)], real),
                accuracy=float((seen[chosen] == label).mean()),
            )
        )
    return rows


def summary(rows: list[ClassFigures]) -> dict[str, float]:
    """Mean over classes (intra-FID, Miyato & Koyama 2018) and the class farthest above its floor.

    Keys fd_per_class, fd_per_class_floor, fd_worst_class, fd_worst_class_floor, worst_class;
    nothing where no class has enough images.
    """
    if not rows:
        return {}
    worst = max(rows, key=lambda row: row.fd - row.fd_floor)
    return {
        "fd_per_class": float(np.mean([row.fd for row in rows])),
        "fd_per_class_floor": float(np.mean([row.fd_floor for row in rows])),
        "fd_worst_class": worst.fd,
        "fd_worst_class_floor": worst.fd_floor,
        "worst_class": worst.label,
    }
