"""The sides of feature maps from coarse to fine, for images of any size, and their values' range.

A side is half of the next finer one, rounded up; what is doubled is cut to the side it should have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COARSEST = 7  # largest side at which halving ends
FLATTEST = 0.01  # least slope of `bounded` in training


def sides(image_size: int) -> list[int]:
    """Sides from the coarsest to the image's: 28 -> [7, 14, 28], 100 -> [7, 13, 25, 50, 100]."""
    found = [image_size]
    while found[0] > COARSEST:
        found.insert(0, (found[0] + 1) // 2)
    return found


def widths(n: int, finest: int, most: int) -> list[int]:
    """Channels at `n` sides from the coarsest on: `finest` at the last, doubling to `most`."""
    return [min(most, finest * 2**i) for i in reversed(range(n))]


def doubled(maps: Tensor, side: int, mode: str = "nearest") -> Tensor:
    """(N, C, s, s) -> (N, C, side, side), where side is 2s or 2s - 1."""
    smooth = None if mode == "nearest" else False
    larger = F.interpolate(maps, scale_factor=2, mode=mode, align_corners=smooth)
    return larger if larger.shape[2] == side else larger[:, :, :side, :side]


def halved(maps: Tensor) -> Tensor:
    """(N, C, s, s) -> (N, C, ceil(s / 2), ceil(s / 2)): means of 2 x 2, of less at the border."""
    return F.avg_pool2d(maps, 2, ceil_mode=True)


def conv_of_doubled(conv: nn.Conv2d, maps: Tensor, side: int) -> Tensor:
    """A 3 x 3 convolution of `doubled(maps, side)`, with four ninths of its products.

    Of the nine pixels under the kernel at most four differ: the weights of the equal ones are added
    once, and a transposed convolution takes them to the small map.
    """
    # Of the smallest maps the transposed convolution costs more than it saves.
    if side != 2 * maps.shape[2] or side < 16:
        return conv(doubled(maps, side))
    kernel = _over_pairs(conv.weight.flip(2, 3)).transpose(0, 1)
    return F.conv_transpose2d(maps, kernel, conv.bias, stride=2, padding=1)


def halved_conv(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """`halved` of a 3 x 3 convolution of maps, with four ninths of its products.

    The mean of four neighbouring results is one result of their mean kernel, at every second pixel.
    """
    if maps.shape[2] % 2:
        return halved(conv(maps))
    return F.conv2d(maps, _over_pairs(conv.weight) / 4, conv.bias, stride=2, padding=1)


def _over_pairs(kernel: Tensor) -> Tensor:
    """(O, I, 3, 3) -> (O, I, 4, 4): its sum over the four places of a pair of rows and columns."""
    rows = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


def bounded(images: Tensor, training: bool) -> Tensor:
    """A generator's output to [-1, 1]: tanh, which in training can be left where it is saturated.

    Without a normalisation before it, a tanh is soon saturated where most of an image is black, and
    lets no gradient back; without the tanh, D sees at once that a black is not quite black. The
    numbers are the same either way: a plain tanh is what the exports know.
    """
    result: Tensor = _Bounded.apply(images) if training else torch.tanh(images)
    return result


class _Bounded(torch.autograd.Function):
    """Its slope is at least `FLATTEST` for gradients that lead away from -1 or 1.

    For those that lead on towards them it is tanh's own: what is black is not to grow blacker.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        slope = 1 - y * y
        inwards = gradient * y > 0
        return gradient * torch.where(inwards, slope.clamp(min=FLATTEST), slope)
