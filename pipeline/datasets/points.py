"""Points in the plane: the mixtures of equally likely Gaussians on which modes are counted.

The published benchmarks of mode coverage (VEEGAN, Srivastava et al. 2017, arXiv:1705.07761;
PacGAN, Lin et al. 2018, arXiv:1712.04086).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.datasets import splits
from pipeline.datasets.records import SPLITS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """Equally likely round Gaussians: centres (K, 2) and their common deviation."""

    centres: np.ndarray
    sigma: float

    def draw(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """`n` points float32 (n, 2) and the modes int64 (n,) that they come from."""
        rng = np.random.default_rng(seed)
        modes = rng.integers(len(self.centres), size=n)
        points = self.centres[modes] + self.sigma * rng.normal(size=(n, 2))
        return points.astype(np.float32), modes


def ring() -> Mixture:
    """8 modes of deviation 0.01 on a circle of radius 1."""
    angles = 2 * np.pi * np.arange(8) / 8
    return Mixture(np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.01)


def grid() -> Mixture:
    """25 modes of deviation 0.05 at {-4, -2, 0, 2, 4} x {-4, -2, 0, 2, 4}."""
    places = np.arange(-4.0, 5, 2)
    return Mixture(np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2), 0.05)


MIXTURES = {"ring": ring(), "grid": grid()}


def prepare_points(
    mixture: Mixture,
    *,
    out: Path,
    name: str,
    source_name: str,
    draws: int,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
) -> dict[str, Any]:
    """Draw `draws` points and write them as the prepared folder `out`; return its manifest.

    Splits and labels (the modes) are as for images; {split}.npy holds float32 (n, 2), and the
    manifest has the mixture in place of an image's form. `split_seed` decides the points too.
    """
    points, modes = mixture.draw(draws, split_seed)
    parts = splits.assign(
        np.full(draws, -1, np.int8),
        modes,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=split_seed,
    )
    with files.atomic_folder(out) as folder:
        written = {}
        for split, rows in parts.items():
            own, labels = points[rows], modes[rows].astype("<i8")
            np.save(folder / f"{split}.npy", own)
            np.save(folder / f"{split}_labels.npy", labels)
            written[split] = {
                "n": len(rows),
                "sha256": hashlib.sha256(own.tobytes()).hexdigest(),
                "labels_sha256": hashlib.sha256(labels.tobytes()).hexdigest(),
                "class_counts": np.bincount(labels, minlength=len(mixture.centres)).tolist(),
            }
        manifest = {
            "name": name,
            "source": source_name,
            "kind": "points",
            "shape": [2],
            "centres": mixture.centres.tolist(),
            "sigma": mixture.sigma,
            "class_names": [str(mode) for mode in range(len(mixture.centres))],
            "split_seed": split_seed,
            "splits": written,
            "refused": 0,
            "duplicates": {"within": {}, "across": {}},
            "digest": files.json_hash(
                [[written[split]["sha256"], written[split]["labels_sha256"]] for split in SPLITS]
            ),
        }
        files.write_json(folder / "manifest.json", manifest)
    sizes = ", ".join(f"{split} {entry['n']}" for split, entry in written.items())
    log.info("%s: %s", name, sizes)
    return manifest
