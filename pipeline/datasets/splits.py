"""Which image goes to which split."""

from __future__ import annotations

import numpy as np

from pipeline.datasets.records import SPLITS


def assign(
    published: np.ndarray,
    labels: np.ndarray | None,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Row numbers of each split, shuffled, so that the first n of a split are a fair sample.

    `published`: (N,) index into SPLITS, -1 where the source says none. Published val and test
    rows stay there. All other rows are the pool: of it `val_fraction` and `test_fraction` are
    drawn for the splits that the source does not publish, stratified by `labels` (N,), and the
    rest is train. Sizes are exact to the image; each class is within one image of its share, and
    keeps at least one image in train.
    """
    rng = np.random.default_rng(seed)
    rows = {split: [np.flatnonzero(published == i)] for i, split in enumerate(SPLITS)}
    pool = np.flatnonzero((published == -1) | (published == SPLITS.index("train")))
    rows["train"] = [pool[:0]]
    strata = np.zeros(len(pool), np.int64) if labels is None else labels[pool]
    classes, counts = np.unique(strata, return_counts=True)
    free = counts - 1
    drawn = {}
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        takes = np.zeros_like(counts) if len(rows[split][0]) else _shares(counts, fraction)
        drawn[split] = np.minimum(takes, free)
        free = free - drawn[split]
    for i, label in enumerate(classes):
        members = rng.permutation(pool[strata == label])
        ends = np.cumsum([drawn["test"][i], drawn["val"][i]])
        for split, part in zip(("test", "val", "train"), np.split(members, ends), strict=True):
            rows[split].append(part)
    return {split: rng.permutation(np.concatenate(rows[split])) for split in SPLITS}


def _shares(counts: np.ndarray, fraction: float) -> np.ndarray:
    """`fraction` of each count in whole numbers that add up to `fraction` of the sum."""
    exact = counts * fraction
    shares = np.floor(exact + 1e-9).astype(np.int64)
    missing = round(float(exact.sum())) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[: max(missing, 0)]] += 1
    return shares
