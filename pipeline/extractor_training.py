"""How the feature extractor is taught: classes where there are labels, else rotations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline import parallel
from pipeline.extractor import CHANNELS, ROTATIONS, Extractor, Stacked, on_device, rotate
from pipeline.precision import full_float32


def train_extractor(
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    n_classes: int | None,
    dim: int,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    device: str | torch.device = "cpu",
) -> Extractor:
    """Train on uint8 images (N, H, W, C): to tell the classes, or without labels the rotations.

    `lr` is the peak of Adam's one-cycle schedule. Labelled images are shifted by up to 1/14 of
    their size (2 pixels of a digit's 28). `on_epoch(epoch, mean loss)` is called after each epoch.
    The global random state is left alone; on a CPU the same arguments give the same weights.
    """
    if labels is not None and n_classes is None:
        raise ValueError("labelled images need n_classes")
    n, image_size, _, channels = images.shape
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        extractor = Extractor(
            image_size=image_size,
            channels=channels,
            n_outputs=ROTATIONS if labels is None else int(n_classes or 0),
            dim=dim,
        )
    extractor.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parallel.normalise_together(extractor)
    batches = max(1, n // batch_size)
    optimizer = torch.optim.Adam(extractor.parameters(), lr=lr)
    for epoch in range(epochs):
        total = 0.0
        for batch, index in enumerate(np.array_split(rng.permutation(n), batches)):
            index.sort()  # a memory-mapped array is read fastest in order
            done = (epoch + (batch + 0.5) / batches) / epochs
            optimizer.param_groups[0]["lr"] = lr * _one_cycle(done)
            x, y = _task_batch(images[index], None if labels is None else labels[index], rng)
            mine = parallel.rows(len(x))
            _, logits = extractor(x[mine].to(device))
            loss = F.cross_entropy(logits, y[mine].to(device))
            if parallel.size() > 1:  # parts may differ by one image
                loss = loss * ((mine.stop - mine.start) * parallel.size() / len(x))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            told = parallel.average_gradients(list(extractor.parameters()), loss.detach())
            optimizer.step()
            total += float(told)
        on_epoch(epoch, total / batches)
    extractor.eval()
    extractor.standardise(_raw_features(extractor, images, device=device))
    return extractor.requires_grad_(False)


def train_stacked(
    images: np.ndarray, labels: np.ndarray | None, *, n_classes: int | None, **settings: Any
) -> Stacked:
    """Train on stacks uint8 (N, H, W, 3) of `n_classes` = K³ triples: to tell a single image's K.

    A third of each stack is enough, its first image: stacks are drawn anew from the same images.
    The rest as for `train_extractor`.
    """
    assert labels is not None
    assert n_classes is not None
    k = round(n_classes ** (1 / CHANNELS))
    first = np.ascontiguousarray(images[..., :1])
    single = train_extractor(first, labels // k**2, n_classes=k, **settings)
    stacked = Stacked(**single.kwargs)
    stacked.single = single
    return stacked.eval().requires_grad_(False)


def _task_batch(
    images: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    if labels is None:
        turns = rng.integers(ROTATIONS, size=len(images))
        return torch.from_numpy(rotate(images, turns)), torch.from_numpy(turns)
    return torch.from_numpy(shift(images, rng, images.shape[1] // 14)), torch.from_numpy(labels)


def shift(images: np.ndarray, rng: np.random.Generator, limit: int) -> np.ndarray:
    """Each image (N, H, W, C) moved by up to `limit` pixels either way, its edge repeated."""
    n, height, width, _ = images.shape
    rows = rng.integers(-limit, limit + 1, size=(n, 1)) + np.arange(height)
    columns = rng.integers(-limit, limit + 1, size=(n, 1)) + np.arange(width)
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


@torch.no_grad()  # buffers made in inference mode could not be part of a graph later
def _raw_features(
    extractor: Extractor, images: np.ndarray, *, device: str | torch.device
) -> Tensor:
    """All penultimate units (N, dim) of images (N, H, W, C); several processes take a part each."""
    n, images = len(images), images[parallel.rows(len(images))]
    raw = np.empty((len(images), extractor.kwargs["dim"]), np.float32)
    with full_float32():
        for i in range(0, len(images), 500):
            part = extractor.raw_features(on_device(images[i : i + 500], device))
            raw[i : i + 500] = part.cpu().numpy()
    return torch.from_numpy(parallel.all_gather_rows(raw, n)).to(device)


def _one_cycle(done: float) -> float:
    """Share of the peak rate at the share `done` of all steps: up in a fifth, down as a cosine."""
    return done / 0.2 if done < 0.2 else (1 + math.cos(math.pi * (done - 0.2) / 0.8)) / 2
