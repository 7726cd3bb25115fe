"""Convolutions at another side than their maps are, and the range of what comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks.scales import (
    FLATTEST,
    bounded,
    conv_of_doubled,
    doubled,
    halved,
    halved_conv,
)


def values_and_gradients(of: Callable[[], Tensor], maps: Tensor, conv: nn.Conv2d) -> list[Tensor]:
    """The result, its gradients, and those of a penalty on the maps' gradient (as R1 takes them)."""
    result = of()
    first = torch.autograd.grad(result.square().sum(), maps, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), [maps, *conv.parameters()])
    return [result, first, *second]


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("side", [6, 14, 15, 16, 28])
def test_a_convolution_joined_with_a_change_of_side_gives_the_same(
    side: int, spectral_norm: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, 1, 1).double()
    if spectral_norm:
        nn.utils.parametrizations.spectral_norm(conv).eval()
    small, large = (
        torch.randn(2, 3, n, n, dtype=torch.double, requires_grad=True)
        for n in ((side + 1) // 2, side)
    )
    for maps, joined, apart in (
        (small, lambda: conv_of_doubled(conv, small, side), lambda: conv(doubled(small, side))),
        (large, lambda: halved_conv(conv, large), lambda: halved(conv(large))),
    ):
        found, expected = (values_and_gradients(of, maps, conv) for of in (joined, apart))
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y)


def test_an_output_is_a_tanh_wherever_it_is_not_saturated() -> None:
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.double, requires_grad=True)
    found, expected = bounded(x, training=True), torch.tanh(x)
    torch.testing.assert_close(found, expected)
    for _ in range(2):  # gradients, and theirs
        found, expected = (
            torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
            for y in (found, expected)
        )
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(bounded(x, training=False), torch.tanh(x))


def test_where_it_is_saturated_a_gradient_leads_back_and_its_gradient_does_not_blow_up() -> None:
    x = torch.tensor([-20.0, 20.0], dtype=torch.double, requires_grad=True)
    for sign, slope in ((-1, 0.0), (1, FLATTEST)):  # towards the ends, and away from them
        y = bounded(x, training=True)
        (first,) = torch.autograd.grad(sign * y.square().sum() / 2, x, create_graph=True)
        torch.testing.assert_close(first.abs(), torch.full_like(x, slope))
        (second,) = torch.autograd.grad(first.square().sum(), x)
        assert second.isfinite().all()
