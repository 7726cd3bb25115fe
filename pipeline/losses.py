"""Adversarial losses: pure functions of D's logits, real (N,) and fake (N,), to scalars.

G's take the fakes' logits first, then the reals': None but for a relativistic loss, which is the
only one for which the loop computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Loss:
    """What D and G each minimise.

    `boundary`: the logit at which D holds real and fake equally likely; its accuracy counts from
    there. `relativistic`: G's loss compares its fakes with reals.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]  # (real logits, fake logits) -> scalar
    generator: Callable[[Tensor, Tensor | None], Tensor]  # (fake logits, real logits) -> scalar
    boundary: float = 0.0
    relativistic: bool = False


def cross_entropy_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), D the sigmoid of the logit (Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_g(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-log D(G(z)) (Goodfellow et al. 2014)."""
    return F.softplus(-fake).mean()


def saturating_g(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """log(1 - D(G(z))), the minimax game (Goodfellow et al. 2014): no gradient once D is sure."""
    return -F.softplus(fake).mean()


def least_squares_d(real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance to 1 on reals and to 0 on fakes (Mao et al. 2017)."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def least_squares_g(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Half the squared distance to 1 (Mao et al. 2017)."""
    return 0.5 * (fake - 1).square().mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """Minus the critic's estimate of the Wasserstein-1 distance (Arjovsky et al. 2017)."""
    return fake.mean() - real.mean()


def wasserstein_g(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Minus the critic's mean on fakes (Arjovsky et al. 2017; hinge uses it too)."""
    return -fake.mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - real) + max(0, 1 + fake) (Lim & Ye 2017)."""
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x) - D(G(z))) of each real paired with one fake.

    RpGAN (Jolicoeur-Martineau 2019, arXiv:1807.00734). Only differences count, so G has no region
    in which a lone fake scores well whatever the reals beside it do, as when it drops modes (Sun
    et al. 2020, arXiv:2011.04926).
    """
    return F.softplus(fake - real).mean()


def relativistic_g(fake: Tensor, real: Tensor | None) -> Tensor:
    """-log sigmoid(D(G(z)) - D(x)) of each fake paired with one real (arXiv:1807.00734)."""
    assert real is not None
    return F.softplus(real - fake).mean()


LOSSES = {
    "non_saturating": Loss(cross_entropy_d, non_saturating_g),
    "minimax": Loss(cross_entropy_d, saturating_g),
    "lsgan": Loss(least_squares_d, least_squares_g, boundary=0.5),
    "wgan": Loss(wasserstein_d, wasserstein_g),
    "wgan_gp": Loss(wasserstein_d, wasserstein_g),
    "hinge": Loss(hinge_d, wasserstein_g),
    "rpgan": Loss(relativistic_d, relativistic_g, relativistic=True),
}
