"""Figures that need images and labels themselves, not only what an extractor makes of them.

Memorization of training images; and of a conditional model, each class by itself and what a
classifier learns from its samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pipeline import cas
from pipeline.datasets.prepared import Split
from pipeline.evaluation import Space
from pipeline.metrics import memorization, per_class
from pipeline.metrics.intervals import wilson
from pipeline.metrics.per_class import ClassFigures
from pipeline.metrics.threads import single_threaded


def copies(fakes: np.ndarray, train: Split, held_out: Split, *, seed: int) -> dict[str, float]:
    """The four detectors in pixels and their controls (keys control_*: 1 passed, 0 failed).

    fakes: uint8 (N, H, W, C).
    """
    with single_threaded():
        controls = memorization.control(train.images, held_out.images, seed=seed)
        return {
            **memorization.audit(fakes, train.images, held_out.images, seed=seed),
            **{f"control_{name}": float(passed) for name, passed in controls.items()},
        }


def classes(
    space: Space,
    requested: np.ndarray,
    seen: np.ndarray,
    *,
    reals: np.ndarray,
    train: np.ndarray,
) -> tuple[dict[str, float], list[ClassFigures]]:
    """Distance per class: its summary, and a row for each class with enough images.

    `requested` (N,) are the classes asked for and `seen` (N,) those that the extractor sees in the
    fakes; `reals` and `train` the labels of `space.reals` and `space.train`.
    """
    with single_threaded():
        rows = per_class.table(
            (space.fakes, requested), (space.reals, reals), (space.train, train), seen
        )
    figures = per_class.summary(rows)
    if space.key != "fd":
        figures = {
            name.replace("fd_", f"{space.key}_", 1): value for name, value in figures.items()
        }
    return figures, rows


def accuracy_score(
    fakes: np.ndarray,
    requested: np.ndarray,
    reals: Split,
    *,
    of_reals: float,
    training: dict[str, Any],
    on_epoch: Callable[[int, float], None],
    device: torch.device,
) -> dict[str, float]:
    """The classification accuracy score with its 95% interval, beside `of_reals`.

    That is the test accuracy of the classifier that learnt from the training images.
    """
    assert reals.labels is not None
    score = cas.score(
        fakes,
        requested,
        reals.images,
        reals.labels,
        training=training,
        on_epoch=on_epoch,
        device=device,
    )
    low, high = wilson(score * len(reals), len(reals))
    return {"cas": score, "cas_ci_low": low, "cas_ci_high": high, "cas_real": of_reals}
