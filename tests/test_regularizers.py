"""Penalties against critics whose gradient is known."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.regularizers import (
    bcr,
    cr,
    dragan,
    drift,
    feature_matching,
    gradient_penalty,
    label_smoothing,
    lecam,
    path_length,
    r1,
    r2,
)

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


def test_dragan_of_unit_slope_is_zero_and_looks_around_reals() -> None:
    unit = SLOPE / SLOPE.norm()
    mix = torch.rand(REAL.shape, generator=torch.Generator().manual_seed(3))
    assert dragan(lambda x: (unit * x).sum(dim=(1, 2, 3)), REAL, FAKE, mix).item() < 1e-9
    around = REAL + 0.5 * REAL.std() * mix
    expected = (around.square().sum(dim=(1, 2, 3)).sqrt() - 1).square().mean().item()
    assert dragan(quadratic, REAL, FAKE * 9, mix).item() == pytest.approx(expected, rel=1e-5)


def test_consistency_asks_for_the_same_verdict_of_shifted_images() -> None:
    corners = torch.rand(4, 2, generator=torch.Generator().manual_seed(4))
    assert cr(lambda x: x.new_ones(len(x)), REAL, FAKE, corners) == 0
    flat = torch.ones_like(REAL)
    assert cr(linear, flat, FAKE, corners).item() == pytest.approx(0, abs=1e-6)
    assert cr(linear, REAL, FAKE, corners) > 0
    assert bcr(linear, REAL, FAKE, corners) > cr(linear, REAL, FAKE, corners)


def test_lecam_pulls_each_side_to_the_running_mean_of_the_other() -> None:
    memory: dict[str, Tensor] = {}
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-2.0, -2.0])
    assert lecam(real, fake, memory).item() == pytest.approx((9 + 25) / 2 + 16)
    assert memory["lecam_real"] == 2
    lecam(real + 10, fake, memory)
    assert memory["lecam_real"].item() == pytest.approx(2.1)


def test_drift_is_the_mean_squared_logit_of_reals() -> None:
    assert drift(torch.tensor([1.0, 3.0]), torch.tensor([9.0, 9.0]), {}).item() == 5


def test_label_smoothing_is_cross_entropy_to_the_lower_target() -> None:
    logits, s = torch.linspace(-3, 3, 7), 0.1
    smooth = F.binary_cross_entropy_with_logits(logits, torch.full((7,), 1 - s))
    plain = F.binary_cross_entropy_with_logits(logits, torch.ones(7))
    torch.testing.assert_close(plain + s * label_smoothing(logits, logits, {}), smooth)


def test_feature_matching_is_the_squared_distance_of_means() -> None:
    real, fake = torch.zeros(4, 3), torch.ones(4, 3)
    assert feature_matching(real, fake).item() == pytest.approx(3)


def test_penalties_reach_the_critics_weights() -> None:
    weight = torch.ones(1, 3, 8, 8, requires_grad=True)
    r1(lambda images: (weight * images).sum(dim=(1, 2, 3)), REAL, FAKE, MIX).backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.ones_like(weight))


class Stretch(nn.Module):
    """Images (N, 1, 4, 4) that are `by` times their style: each number's slope is `by`."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def styles(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return latents[:, None]

    def synthesise(self, styles: Tensor) -> Tensor:
        return self.by * styles.unflatten(2, (4, 4))


def test_path_lengths_are_held_to_their_running_mean_from_the_first_on() -> None:
    memory: dict[str, Tensor] = {}
    latents = torch.randn(6, 16, requires_grad=True)

    def penalty(by: float) -> float:
        return path_length(Stretch(by), latents, None, torch.ones, memory).item()

    assert penalty(3.0) == pytest.approx(0, abs=1e-9)
    assert memory["path_length"].item() == pytest.approx(3.0)
    assert penalty(5.0) == pytest.approx((5 - 3.02) ** 2, rel=1e-4)
    assert memory["path_length"].item() == pytest.approx(3.02)
