"""Terms added to the losses of D and G: pure functions of samples (N, ...) or logits to scalars."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline import parallel
from pipeline.augment import shifted

Critic = Callable[[Tensor], Tensor]  # images (N, C, H, W) or points (N, D) -> logits (N,)
# Running values of a training by name, kept in checkpoints. They change in place: an update that is
# replayed as a CUDA graph knows their memory, not their names.
Memory = MutableMapping[str, Tensor]

DRAGAN_SPREAD = 0.5  # of the deviation of the reals
CONSISTENCY_SHIFT = 1 / 8  # of the side, as CR's paper shifts 32 pixels by up to 4
LECAM_DECAY = 0.99
PATH_DECAY = 0.99


def per_sample(real: Tensor) -> tuple[int, ...]:
    """One random number for each sample."""
    return (len(real),)


def per_axis(real: Tensor) -> tuple[int, ...]:
    """Two for each sample."""
    return (len(real), 2)


def per_number(real: Tensor) -> tuple[int, ...]:
    """One for each number of each sample."""
    return tuple(real.shape)


@dataclass(frozen=True)
class Regularizer:
    """`weight * penalty` of D, computed at every `every`-th D update and scaled by `every`.

    `penalty(critic, real, fake, mix)`, where `mix` holds uniform numbers of the shape `random`, or
    none where that is None.
    """

    penalty: Callable[[Critic, Tensor, Tensor, Tensor], Tensor]
    weight: float
    every: int = 1
    random: Callable[[Tensor], tuple[int, ...]] | None = per_sample


@dataclass(frozen=True)
class LogitTerm:
    """`weight * penalty(real logits, fake logits, memory)`, added to D's loss."""

    penalty: Callable[[Tensor, Tensor, Memory], Tensor]
    weight: float


@dataclass(frozen=True)
class FeatureTerm:
    """`weight * penalty(D's features of reals, of fakes)`, added to G's loss."""

    penalty: Callable[[Tensor, Tensor], Tensor]
    weight: float


@dataclass(frozen=True)
class GeneratorTerm:
    """`weight * penalty` of G, computed at every `every`-th G update and scaled by `every`.

    `penalty(generator, latents, labels, normal, memory)`, where `normal(shape)` draws.
    """

    penalty: Callable[
        [nn.Module, Tensor, Tensor | None, Callable[[tuple[int, ...]], Tensor], Memory], Tensor
    ]
    weight: float
    every: int = 1


Term = Regularizer | LogitTerm | FeatureTerm | GeneratorTerm


def r1(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Half the mean squared gradient norm on reals (Mescheder et al. 2018, arXiv:1801.04406)."""
    return 0.5 * _squared_norms(_gradient(critic, real)).mean()


def r2(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Half the mean squared gradient norm on fakes (Mescheder et al. 2018, arXiv:1801.04406)."""
    return 0.5 * _squared_norms(_gradient(critic, fake)).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Mean squared distance of the gradient norm from 1 between real and fake samples.

    `mix` (N,) in [0, 1] says where between (Gulrajani et al. 2017, arXiv:1704.00028).
    """
    between = torch.lerp(fake, real, mix.view(-1, *[1] * (real.dim() - 1)))
    return _distance_from_one(_gradient(critic, between))


def dragan(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Mean squared distance of the gradient norm from 1 around real samples.

    Reals plus half their deviation times `mix`, uniform and shaped like them (Kodali et al. 2017,
    arXiv:1705.07215).
    """
    spread = DRAGAN_SPREAD * parallel.all_gather(real).std()
    return _distance_from_one(_gradient(critic, real + spread * mix))


def cr(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Mean squared change of D's logits when reals are shifted by some pixels.

    Consistency regularization (Zhang et al. 2020, arXiv:1910.12027). `mix` (N, 2) says how far.
    Without the paper's mirroring, which makes another character of many.
    """
    return (critic(real) - critic(_shifted(real, mix))).square().mean()


def bcr(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """The same of reals and of fakes (Zhao et al. 2021, arXiv:2002.04724)."""
    return cr(critic, real, fake, mix) + cr(critic, fake, real, mix.flip(1))


def lecam(real: Tensor, fake: Tensor, memory: Memory) -> Tensor:
    """Squared distance of each logit from the running mean of the other kind.

    Tseng et al. 2021, arXiv:2104.03310: for D not to be surer than few data allow.
    """
    for name, logits in (("lecam_real", real), ("lecam_fake", fake)):
        mean = parallel.mean(logits.detach().mean())
        memory.setdefault(name, mean.clone()).lerp_(mean, 1 - LECAM_DECAY)
    of_real, of_fake = memory["lecam_real"], memory["lecam_fake"]
    return (real - of_fake).square().mean() + (fake - of_real).square().mean()


def drift(real: Tensor, fake: Tensor, memory: Memory) -> Tensor:
    """Mean squared logit of reals, which keeps a Wasserstein critic's free mean near zero.

    PGGAN's, with a weight of 0.001 (Karras et al. 2018, arXiv:1710.10196).
    """
    return real.square().mean()


def label_smoothing(real: Tensor, fake: Tensor, memory: Memory) -> Tensor:
    """The mean of the reals' logits; with weight s, D's target for reals is 1 - s, not 1.

    One-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498). For cross-entropy and, up to
    a constant, for least squares the target moves by exactly this term.
    """
    return real.mean()


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Squared distance of the mean features (Salimans et al. 2016, arXiv:1606.03498)."""
    return parallel.mean(fake.mean(dim=0) - real.mean(dim=0)).square().sum()


def path_length(
    generator: nn.Module,
    latents: Tensor,
    labels: Tensor | None,
    normal: Callable[[tuple[int, ...]], Tensor],
    memory: Memory,
) -> Tensor:
    """Squared distance of the image's change per step in w from its running mean.

    Karras et al. 2020, arXiv:1912.04958. The generator must have `styles` and `synthesise`. On
    every second sample, half of the batch as in the paper: the same ones in however many parts.
    The mean starts at the first lengths, not at the paper's 0, which a short training would take
    for its aim: an image that does not change.
    """
    latents, labels = latents[::2], None if labels is None else labels[::2]
    styles = generator.styles(latents, labels)  # type: ignore[operator]
    images = generator.synthesise(styles)  # type: ignore[operator]
    noise = normal(tuple(images.shape)) / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    mean = parallel.mean(lengths.detach().mean())
    memory.setdefault("path_length", mean.clone()).lerp_(mean, 1 - PATH_DECAY)
    return (lengths - memory["path_length"]).square().mean()


# name in loss.terms -> the term of this weight
TERMS: dict[str, Callable[[float], Term]] = {
    "dragan": lambda weight: Regularizer(dragan, weight, random=per_number),
    "cr": lambda weight: Regularizer(cr, weight, random=per_axis),
    "bcr": lambda weight: Regularizer(bcr, weight, random=per_axis),
    "lecam": lambda weight: LogitTerm(lecam, weight),
    "drift": lambda weight: LogitTerm(drift, weight),
    "label_smoothing": lambda weight: LogitTerm(label_smoothing, weight),
    "feature_matching": lambda weight: FeatureTerm(feature_matching, weight),
    "path_length": lambda weight: GeneratorTerm(path_length, weight, every=4),
}


def _gradient(critic: Critic, samples: Tensor) -> Tensor:
    samples = samples.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(samples).sum(), samples, create_graph=True)
    return gradient


def _squared_norms(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).square().sum(dim=1)


def _distance_from_one(gradient: Tensor) -> Tensor:
    norms = _squared_norms(gradient).add(1e-12).sqrt()
    return (norms - 1).square().mean()


def _shifted(images: Tensor, mix: Tensor) -> Tensor:
    """Images (N, C, H, W) moved by whole pixels, their border repeated; `mix` (N, 2) in [0, 1)."""
    height, width = images.shape[2:]
    reach = max(1, round(height * CONSISTENCY_SHIFT))
    moves = (mix * (2 * reach + 1)).floor().long() - reach
    rows = torch.arange(height, device=images.device) - moves[:, :1]
    columns = torch.arange(width, device=images.device) - moves[:, 1:]
    return shifted(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
