"""Stacked digits: three random digits as the channels of one image, 1,000 modes in all.

The benchmark of Metz et al. (2017, arXiv:1611.02163) in VEEGAN's form (Srivastava et al. 2017,
arXiv:1705.07761). Both draw their digits from MNIST's train and test together; here those of each
split come from that split of the digits alone, so that nothing that is evaluated was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.datasets import splits
from pipeline.datasets.records import SPLITS, Record, Source
from pipeline.errors import UserError

CHANNELS = 3


class Stacks:
    """`draws` stacks of the single gray digits of `digits`, a stream of the same order each time.

    The label of digits a, b, c is 100a + 10b + c. The digits are split as `splits.assign` does, and
    the fractions hold for the stacks too. Digits are in memory, the stacks are made one by one.
    """

    def __init__(
        self,
        digits: Source,
        *,
        draws: int,
        val_fraction: float,
        test_fraction: float,
        seed: int,
    ) -> None:
        records = list(digits.records())
        n_classes = len(digits.class_names or [])
        if n_classes != 10:
            raise UserError("stacked digits need a source of ten classes")
        self.pixels = np.stack([_gray(record) for record in records])
        self.labels = np.array([record.label for record in records], np.int64)
        published = [-1 if r.split is None else SPLITS.index(r.split) for r in records]
        self.parts = splits.assign(
            np.array(published, np.int8),
            self.labels,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
        held_out = {"val": round(draws * val_fraction), "test": round(draws * test_fraction)}
        self.sizes = {"train": draws - sum(held_out.values()), **held_out}
        self.seed = seed
        self.class_names: list[str] | None = [f"{mode:03d}" for mode in range(n_classes**CHANNELS)]

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def records(self) -> Iterator[Record]:
        for i, split in enumerate(SPLITS):
            own, rng = self.parts[split], np.random.default_rng((self.seed, i))
            for chosen in own[rng.integers(len(own), size=(self.sizes[split], CHANNELS))]:
                a, b, c = self.labels[chosen]
                yield Record(
                    f"{split}:" + "+".join(str(row) for row in chosen),
                    int(100 * a + 10 * b + c),
                    split,
                    np.moveaxis(self.pixels[chosen], 0, 2),
                )


def _gray(record: Record) -> np.ndarray:
    if not isinstance(record.payload, np.ndarray) or record.payload.ndim != 2:
        raise UserError(f"{record.name} cannot be stacked: it is no gray picture in memory")
    return record.payload
