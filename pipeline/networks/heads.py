"""The end of every discriminator, where features become a verdict, and how it learns of classes.

Conditioning: `concat` puts the class beside what D sees (Mirza & Osindero 2014, arXiv:1411.1784);
`projection` adds the inner product of features and a class embedding to the logit (Miyato & Koyama
2018, arXiv:1802.05637); `auxiliary` has D name the class, which both networks are trained to get
right (AC-GAN, Odena et al. 2017, arXiv:1610.09585).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from pipeline import parallel
from pipeline.networks.draws import Dropout

KERNELS, KERNEL_DIM = 16, 8  # of minibatch discrimination
GROUP = 4  # samples whose deviation is taken together


@dataclass(frozen=True)
class Verdict:
    """What D says of samples."""

    logits: Tensor  # (N,), high for real
    features: Tensor  # (N, F)
    classes: Tensor | None  # (N, K) logits; None but for an auxiliary classifier


class Head(nn.Module):
    """Features (N, F) [and classes (N,)] -> Verdict.

    `minibatch`: `stddev` or `discrimination` lets D see how alike the samples of a batch are.
    `dropout` is the share of features dropped in training.
    """

    def __init__(
        self,
        n_features: int,
        *,
        n_classes: int,
        norm: Callable[[nn.Module], nn.Module],
        conditioning: str,
        minibatch: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        seen = MINIBATCH[minibatch](n_features)
        self.minibatch = seen
        self.dropout = Dropout(dropout) if dropout else None
        self.linear = norm(nn.Linear(n_features + seen.n_more, 1))
        projects = n_classes and conditioning == "projection"
        self.embedding = norm(_projection(n_classes, n_features)) if projects else None
        names = n_classes and conditioning == "auxiliary"
        self.classifier = norm(nn.Linear(n_features, n_classes)) if names else None

    def forward(self, features: Tensor, labels: Tensor | None) -> Verdict:
        kept = features if self.dropout is None else self.dropout(features)
        logits = self.linear(self.minibatch(kept)).squeeze(1)
        if self.embedding is not None:
            logits = logits + (kept * self.embedding(labels)).sum(dim=1)
        classes = None if self.classifier is None else self.classifier(kept)
        return Verdict(logits, features, classes)


class Discriminator(nn.Module):
    """What every discriminator is: `features`, and a head that judges them.

    Called with samples [and classes (N,)] it gives its Verdict.
    """

    head: Head

    def features(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        """Images (N, C, H, W) or points (N, D) [and classes (N,)] -> (N, F)."""
        raise NotImplementedError

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Verdict:
        return self.head(self.features(samples, labels), labels)


class OfVectors(Discriminator):
    """A discriminator that sees its samples as vectors, the class beside them where asked for.

    A network makes its `body`, of rows (N, D + `n_beside`), with `norm` on each layer, then calls
    `judged_by` with the number of features that come out. Its own `vectors` makes rows of samples.
    """

    body: nn.Module

    def __init__(
        self, *, n_classes: int, spectral_norm: bool, conditioning: str = "concat", **head: Any
    ) -> None:
        super().__init__()
        self.norm = normalised(spectral_norm)
        self.n_beside = n_classes if conditioning == "concat" else 0
        self.making = {"n_classes": n_classes, "conditioning": conditioning, **head}

    def judged_by(self, n_features: int) -> None:
        self.head = Head(n_features, norm=self.norm, **self.making)

    def vectors(self, samples: Tensor) -> Tensor:
        return samples.flatten(1)

    def features(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        return self.body(one_hot_beside(self.vectors(samples), labels, self.n_beside))


class ClassPlane(nn.Module):
    """Images (N, C, S, S) and classes (N,) -> (N, C + 1, S, S): a learnt picture of the class."""

    def __init__(self, n_classes: int, image_size: int) -> None:
        super().__init__()
        self.size = image_size
        self.embedding = nn.Embedding(n_classes, image_size**2)

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        plane = self.embedding(labels).view(-1, 1, self.size, self.size)
        return torch.cat([images, plane.to(images.dtype)], dim=1)


def one_hot_beside(vectors: Tensor, labels: Tensor | None, n_classes: int) -> Tensor:
    """Vectors (N, D) and classes (N,) -> (N, D + n_classes); of no classes, the vectors."""
    if not n_classes:
        return vectors
    assert labels is not None
    return torch.cat([vectors, F.one_hot(labels, n_classes).to(vectors.dtype)], dim=1)


def plane_beside(n_classes: int, conditioning: str, image_size: int) -> ClassPlane | None:
    """The picture of the class beside images where D learns of it so, else None."""
    return ClassPlane(n_classes, image_size) if n_classes and conditioning == "concat" else None


def normal_weights(module: nn.Module) -> None:
    """N(0, 0.02), as in DCGAN's paper, for what spectral normalisation does not rescale anyway."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def normalised(spectral_norm: bool) -> Callable[[nn.Module], nn.Module]:
    """What is done to each layer of D: spectral normalisation (Miyato et al. 2018), or nothing."""
    return with_spectral_norm if spectral_norm else _unchanged


class Nothing(nn.Module):
    n_more = 0

    def __init__(self, n_features: int) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return features


class StandardDeviation(nn.Module):
    """One more feature: the mean deviation of all features over a group (Karras et al. 2018)."""

    n_more = 1

    def __init__(self, n_features: int) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, deviation(features)], dim=1)


class Discrimination(nn.Module):
    """More features: how near the others are in learnt projections (Salimans et al. 2016)."""

    n_more = KERNELS

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_features, KERNELS * KERNEL_DIM, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        rows = self.project(features).float().unflatten(1, (KERNELS, KERNEL_DIM))
        differences = rows[:, None] - parallel.all_gather(rows)[None]
        distances = differences.abs().sum(dim=3)  # (N, N, KERNELS)
        near = (-distances).exp().sum(dim=1) - 1  # without itself
        return torch.cat([features, near.to(features.dtype)], dim=1)


def _projection(n_classes: int, n_features: int) -> nn.Embedding:
    """Of a size that keeps the logit's: without spectral normalisation it would be all of it."""
    embedding = nn.Embedding(n_classes, n_features)
    embedding.weight.data *= n_features**-0.5
    return embedding


def deviation(features: Tensor) -> Tensor:
    """(N, ...) -> (N, 1): the standard deviation over groups of samples, mean over all features."""
    everything = parallel.all_gather(features.float())
    n = len(everything)
    size = next(size for size in (GROUP, 3, 2, 1) if n % size == 0)
    # Strided groups: samples beside each other may be alike by their order.
    groups = everything.reshape(size, n // size, -1)
    # By hand: torch's var over the outermost dimension is many times slower.
    variances = (groups - groups.mean(dim=0)).square().mean(dim=0)
    deviations = (variances + 1e-8).sqrt().mean(dim=1)
    return parallel.shard(deviations.repeat(size))[:, None].to(features.dtype)


MINIBATCH: dict[str, type[Nothing | StandardDeviation | Discrimination]] = {
    "none": Nothing,
    "stddev": StandardDeviation,
    "discrimination": Discrimination,
}


def _unchanged(module: nn.Module) -> nn.Module:
    return module
