"""Samples from a trained generator: a function of weights, seed and labels alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import parallel
from pipeline.errors import ConfigError


def latents(n: int, latent_dim: int, seed: int) -> Tensor:
    """Standard normal vectors (n, latent_dim), drawn on the CPU: equal on every device."""
    return torch.randn(n, latent_dim, generator=torch.Generator().manual_seed(seed))


def class_labels(class_counts: list[int], n: int, seed: int) -> np.ndarray:
    """`n` labels (int64) in the proportions of `class_counts`, shuffled by `seed`.

    Proportions are met exactly up to rounding (largest remainder), not only in expectation.
    """
    shares = np.asarray(class_counts, dtype=float) / sum(class_counts) * n
    counts = np.floor(shares).astype(int)
    largest = np.argsort(-(shares - counts), kind="stable")[: n - counts.sum()]
    counts[largest] += 1
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] -> uint8 (N, H, W, C), rounded."""
    pixels = images.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def as_stored(samples: Tensor) -> np.ndarray:
    """Samples of a generator as data sets hold them: uint8 (N, H, W, C), or points (N, D)."""
    return to_uint8(samples) if samples.dim() == 4 else samples.float().cpu().numpy()


@torch.inference_mode()
def generate(
    generator: nn.Module,
    vectors: Tensor,
    labels: np.ndarray | None,
    *,
    batch_size: int = 500,
    truncation: float = 1.0,
    on_batch: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Images uint8 (N, H, W, C), or points (N, D), of the given latent vectors and classes.

    `on_batch` hears how many samples of each batch are done.
    """
    parts = []
    for start in range(0, len(vectors), batch_size):
        piece = slice(start, start + batch_size)
        classes = None if labels is None else labels[piece]
        parts.append(as_stored(draw(generator, vectors[piece], classes, truncation=truncation)))
        on_batch(len(parts[-1]))
    return np.concatenate(parts)


@torch.inference_mode()
def draw(
    generator: nn.Module, vectors: Tensor, labels: np.ndarray | None, *, truncation: float = 1.0
) -> Tensor:
    """Samples as networks see them, of latent vectors (N, latent_dim) and classes (N,).

    `truncation` below 1 trades variety for likely samples: of a network with styles, these come
    nearer to their mean (Karras et al. 2019); of any other, latent vectors nearer to zero.
    """
    device = next(generator.parameters()).device
    vectors = vectors.to(device)
    classes = None if labels is None else torch.from_numpy(labels).to(device)
    if truncation == 1:
        return generator(vectors, classes)
    if not hasattr(generator, "styles"):
        return generator(truncation * vectors, classes)
    styles = generator.styles(vectors, classes)  # type: ignore[operator]
    nearer = torch.lerp(generator.style_mean.expand_as(styles), styles, truncation)  # type: ignore[operator]
    return generator.synthesise(nearer)  # type: ignore[operator]


def sample_images(
    generator: nn.Module,
    *,
    n: int,
    seed: int,
    labels: np.ndarray | None = None,
    batch_size: int = 500,
    device: str | torch.device = "cpu",
    truncation: float = 1.0,
    on_batch: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """`n` images uint8 (n, H, W, C), or points (n, D), of the seed's latent vectors.

    Several processes draw a part each, and all get them all.
    """
    vectors = latents(n, generator.latent_dim, seed)  # type: ignore[arg-type]
    mine = parallel.rows(n)
    samples = generate(
        generator.to(device),
        vectors[mine],
        None if labels is None else labels[mine],
        batch_size=batch_size,
        truncation=truncation,
        on_batch=lambda done: on_batch(done * parallel.size()),
    )
    return parallel.all_gather_rows(samples, n)


def requested_labels(
    n: int, n_classes: int, class_names: list[str] | None, label: str | None
) -> np.ndarray | None:
    """`n` labels of the class called `label` (or numbered so), of all classes in turn for None.

    None for an unconditional model. Raises ConfigError for a class that does not exist.
    """
    if not n_classes:
        if label is not None:
            raise ConfigError("--label: this model was trained without classes")
        return None
    if label is None:
        return np.arange(n) % n_classes
    names = class_names or [str(k) for k in range(n_classes)]
    if label in names:
        return np.full(n, names.index(label))
    if label.isdigit() and int(label) < n_classes:
        return np.full(n, int(label))
    raise ConfigError(f"--label {label}: no such class; choose from {', '.join(names)}")
