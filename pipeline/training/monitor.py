"""Figures of a generator in training, on `val` and by the data set's own extractor."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline import extractor, parallel, paths
from pipeline.datasets.prepared import Prepared
from pipeline.reference import benchmark_of, build_reference, monitor
from pipeline.sampling import class_labels, sample_images


class Monitor:
    """Called with a generator, the figures of `reference.monitor` on its samples.

    They are held to the reals of `split`; only measurements of a benchmark may take another than
    `val`.

    The same `n` latent vectors each time, drawn from `seed`; a conditional generator gets the
    classes in their proportions in training. Several processes sample a part each; the first
    computes the figures, and all get the same.
    """

    def __init__(
        self,
        data: Prepared,
        *,
        n: int,
        seed: int,
        conditional: bool,
        device: torch.device,
        split: str = "val",
    ) -> None:
        counts = data.manifest["splits"]["train"]["class_counts"]
        self.extractor = extractor.load().to(device)
        self.reference = build_reference(
            np.load(paths.FEATURES / f"{split}.npy"),
            np.load(paths.FEATURES / f"{split}_logits.npy"),
            extractor.as_seen(data)["splits"]["train"]["class_counts"],
            benchmark_of(data.manifest),
        )
        self.n, self.seed, self.device = n, seed, device
        self.labels = class_labels(counts, n, seed) if conditional else None

    def __call__(self, generator: nn.Module) -> dict[str, float]:
        samples = sample_images(
            generator, n=self.n, seed=self.seed, labels=self.labels, device=self.device
        )
        seen = extractor.extract(self.extractor, samples, device=self.device)
        first = parallel.rank() == 0
        return parallel.broadcast_object(monitor(*seen, self.reference) if first else None)
