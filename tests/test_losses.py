"""Losses against values worked out by hand."""

import math

import pytest
import torch

from pipeline.losses import LOSSES

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


BY_HAND = {
    "non_saturating": (
        (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
        (softplus(-0.5) + softplus(3)) / 2,
    ),
    "minimax": (
        (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(-3)) / 2,
        -(softplus(0.5) + softplus(-3)) / 2,
    ),
    "lsgan": (0.5 * ((1 + 4) / 2 + (0.25 + 9) / 2), 0.5 * (0.25 + 16) / 2),
    "wgan": (-1.25 - 0.5, 1.25),
    "wgan_gp": (-1.25 - 0.5, 1.25),
    "hinge": ((0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
    "rpgan": ((softplus(-1.5) + softplus(-2)) / 2, (softplus(1.5) + softplus(2)) / 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_value_computed_by_hand(name: str) -> None:
    d, g = BY_HAND[name]
    assert LOSSES[name].discriminator(REAL, FAKE).item() == pytest.approx(d, rel=1e-6)
    assert LOSSES[name].generator(FAKE, REAL).item() == pytest.approx(g, rel=1e-6)


def test_non_saturating_discriminator_at_chance_is_log_four() -> None:
    zeros = torch.zeros(5)
    assert LOSSES["non_saturating"].discriminator(zeros, zeros).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("name", ["non_saturating", "hinge", "rpgan"])
def test_stays_finite_at_extreme_logits(name: str) -> None:
    far = torch.tensor([1e4])
    assert torch.isfinite(LOSSES[name].discriminator(-far, far))
    assert torch.isfinite(LOSSES[name].generator(-far, far))
