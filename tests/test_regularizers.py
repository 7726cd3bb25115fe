"""Penalties against critics whose gradient is known."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.regularizers import gradient_penalty, r1, r2

SLOPE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
REAL = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
FAKE = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
MIX = torch.tensor([0.0, 0.3, 0.7, 1.0])


def linear(images: Tensor) -> Tensor:
    return (SLOPE * images).sum(dim=(1, 2, 3))


def quadratic(images: Tensor) -> Tensor:
    return 0.5 * images.square().sum(dim=(1, 2, 3))


def test_r1_of_a_linear_critic_is_half_its_squared_slope() -> None:
    expected = 0.5 * SLOPE.square().sum().item()
    assert r1(linear, REAL, FAKE, MIX).item() == pytest.approx(expected, rel=1e-5)


def test_r1_looks_at_reals_only() -> None:
    expected = 0.5 * REAL.square().sum(dim=(1, 2, 3)).mean().item()
    assert r1(quadratic, REAL, FAKE * 100, MIX).item() == pytest.approx(expected, rel=1e-5)


def test_r2_looks_at_fakes_only() -> None:
    expected = 0.5 * FAKE.square().sum(dim=(1, 2, 3)).mean().item()
    assert r2(quadratic, REAL * 100, FAKE, MIX).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("penalty", [r1, r2, gradient_penalty])
def test_penalties_of_points_are_those_of_images_of_as_many_numbers(penalty: Any) -> None:
    points = penalty(lambda x: 0.5 * x.square().sum(dim=1), REAL.flatten(1), FAKE.flatten(1), MIX)
    torch.testing.assert_close(points, penalty(quadratic, REAL, FAKE, MIX))


def test_gradient_penalty_of_a_linear_critic_is_the_squared_distance_of_its_norm_from_one() -> None:
    expected = (SLOPE.norm().item() - 1) ** 2
    assert gradient_penalty(linear, REAL, FAKE, MIX).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_penalty_is_zero_for_unit_slope() -> None:
    unit = SLOPE / SLOPE.norm()

    def critic(images: Tensor) -> Tensor:
        return (unit * images).sum(dim=(1, 2, 3))

    assert gradient_penalty(critic, REAL, FAKE, MIX).item() == pytest.approx(0, abs=1e-9)


def test_gradient_penalty_looks_between_fake_and_real() -> None:
    between = FAKE + MIX.view(-1, 1, 1, 1) * (REAL - FAKE)
    norms = between.square().sum(dim=(1, 2, 3)).sqrt()
    expected = (norms - 1).square().mean().item()
    assert gradient_penalty(quadratic, REAL, FAKE, MIX).item() == pytest.approx(expected, rel=1e-5)


def test_penalties_reach_the_critics_weights() -> None:
    weight = torch.ones(1, 3, 8, 8, requires_grad=True)
    r1(lambda images: (weight * images).sum(dim=(1, 2, 3)), REAL, FAKE, MIX).backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.ones_like(weight))
