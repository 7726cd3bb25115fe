"""Classification accuracy score: what a classifier that has seen only fakes knows of reals.

Ravuri & Vinyals 2019, arXiv:1905.10887.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pipeline import extractor
from pipeline.extractor_training import train_extractor


def score(
    fakes: np.ndarray,
    requested: np.ndarray,
    reals: np.ndarray,
    labels: np.ndarray,
    *,
    training: dict[str, Any],
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    device: str | torch.device = "cpu",
) -> float:
    """Accuracy in [0, 1] on `reals` of a classifier trained on `fakes` with the classes asked for.

    fakes, reals: uint8 (N, H, W, C), (M, H, W, C); requested, labels: int64 (N,), (M,).
    `training` are `train_extractor`'s n_classes, dim, epochs, batch_size, lr and seed: those by
    which the data set's own extractor learnt make its accuracy on `reals` the score of real
    training images, to hold this one against.
    """
    classifier = train_extractor(fakes, requested, **training, on_epoch=on_epoch, device=device)
    return extractor.accuracy(classifier, reals, labels, device=device)
