"""What listens to a training: progress, samples over time, a stop at divergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.datasets.prepared import Split
from pipeline.grids import one_class_a_row, save_grid, save_png
from pipeline.sampling import generate, latents
from pipeline.scatter import scatter
from pipeline.training.finite import Diverged
from pipeline.training.loop import Callback, Row
from pipeline.training.state import State

COLUMNS = 10
GRID_IMAGES = 100
POINTS = 2500  # of a scatter plot


class ShowProgress(Callback):
    """Moves a progress bar that stands at step `start`."""

    def __init__(self, advance: Callable[..., None], start: int) -> None:
        self.advance, self.shown, self.note = advance, start, ""

    def on_step(self, state: State, row: Row) -> None:
        if "eval_fd" in row:
            self.note = f"fd {row['eval_fd']:.3g} on val"
            if "eval_modes" in row:
                self.note += f", {row['eval_modes']:.0f} modes"
        self.advance(state.step - self.shown, note=self.note)
        self.shown = state.step


class StopOnDivergence(Callback):
    """Ends the training with a message at the first figure that is not a number."""

    def on_step(self, state: State, row: Row) -> None:
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            raise Diverged(
                f"the training diverged: {', '.join(bad)} not finite at step {state.step}; "
                "lower train.lr_g and train.lr_d, or set train.precision: fp32"
            )


class Grids(Callback):
    """The same latent vectors through the averaged generator at every evaluation, as PNG files.

    `labels` (n,) are the classes asked for, None for an unconditional model. Points are drawn over
    the real ones `beneath` (m, 2). `on_file(step, path)` hears of each file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        latent_dim: int,
        labels: np.ndarray | None,
        seed: int,
        on_file: Callable[[int, Path], None],
        beneath: np.ndarray | None = None,
    ) -> None:
        self.folder, self.labels, self.beneath, self.on_file = folder, labels, beneath, on_file
        n = GRID_IMAGES if beneath is None else POINTS
        self.latents = latents(n if labels is None else len(labels), latent_dim, seed)
        folder.mkdir(parents=True, exist_ok=True)

    def on_eval(self, state: State, row: Row) -> None:
        self.write(state)

    def write(self, state: State) -> None:
        path = self.folder / f"step_{state.step:06d}.png"
        samples = generate(state.ema, self.latents, self.labels)
        if self.beneath is None:
            save_grid(path, samples, COLUMNS)
        else:
            save_png(path, scatter(samples, self.beneath))
        self.on_file(state.step, path)


def grids_of(
    split: Split,
    folder: Path,
    *,
    latent_dim: int,
    n_classes: int,
    seed: int,
    on_file: Callable[[int, Path], None],
) -> Grids:
    """`Grids` as they suit the samples of a split; `n_classes` 0 for an unconditional model."""
    labels = None
    if n_classes:
        labels = np.arange(POINTS) % n_classes if split.points else grid_labels(n_classes)
    return Grids(
        folder,
        latent_dim=latent_dim,
        labels=labels,
        seed=seed,
        on_file=on_file,
        beneath=split.images[:POINTS] if split.points else None,
    )


def save_reals(split: Split, folder: Path, n_classes: int) -> None:
    """The picture of reals, arranged as `Grids` arranges samples: reals.png."""
    if split.points:
        reals = split.images[:POINTS]
        save_png(folder / "reals.png", scatter(reals, reals))
    else:
        reals = reals_for_grid(split.images, split.labels, n_classes)
        save_grid(folder / "reals.png", reals, COLUMNS)


def grid_labels(n_classes: int, rows: int = 10) -> np.ndarray:
    """Labels (int64) of a grid with one class a row; of more than `rows` classes, the first."""
    return np.repeat(np.arange(min(n_classes, rows)), COLUMNS)


def reals_for_grid(images: np.ndarray, labels: np.ndarray | None, n_classes: int) -> np.ndarray:
    """Of the real images (n, H, W, C) those that fill a grid in the order of `Grids`."""
    if labels is None or not n_classes:
        return images[:GRID_IMAGES]  # `prepare` has shuffled them
    return one_class_a_row(images, labels, COLUMNS)
