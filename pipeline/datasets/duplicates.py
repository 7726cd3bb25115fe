"""Images whose decoded pixels are the same, within a split and across splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.datasets.records import SPLITS

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Duplicates:
    """`groups`: the (split, index in the split) of each set of equal images, by digest in hex.

    `within`: by split, images that repeat an earlier one of the same split.
    `across`: by pair of splits ("train/test"), different images that are in both.
    """

    groups: dict[str, list[tuple[str, int]]]
    within: dict[str, int]
    across: dict[str, int]


def digest(pixels: bytes) -> bytes:
    """What equal images have in common: BLAKE2b of the pixels, DIGEST_BYTES long."""
    return hashlib.blake2b(pixels, digest_size=DIGEST_BYTES).digest()


def find(digests: bytes | bytearray, splits: dict[str, np.ndarray]) -> Duplicates:
    """Group equal images. `digests`: DIGEST_BYTES for each row. `splits`: their row numbers."""
    column = np.frombuffer(digests, f"S{DIGEST_BYTES}")
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    groups: dict[str, list[tuple[str, int]]] = {}
    for split in SPLITS:
        rows = splits[split]
        for index in np.flatnonzero(counts[inverse[rows]] > 1):
            start = int(rows[index]) * DIGEST_BYTES
            key = bytes(digests[start : start + DIGEST_BYTES]).hex()
            groups.setdefault(key, []).append((split, int(index)))
    held = [[split for split, _ in members] for members in groups.values()]
    return Duplicates(
        groups=groups,
        within={s: sum(max(splits_of.count(s) - 1, 0) for splits_of in held) for s in SPLITS},
        across={
            f"{a}/{b}": sum(a in splits_of and b in splits_of for splits_of in held)
            for a, b in combinations(SPLITS, 2)
        },
    )
