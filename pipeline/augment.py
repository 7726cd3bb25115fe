"""Augmentation of what D sees, reals and fakes alike, so that few images last longer.

DiffAugment (Zhao et al. 2020, arXiv:2006.10738): D never sees an image as it is, and G learns
through the transformation, so that its samples do not take it over. Each augmentation is a function
of images (N, C, H, W) in [-1, 1] and uniform numbers u (N, k) in [0, 1), differentiable (twice, for
gradient penalties) in the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline import parallel
from pipeline.training import devices
from pipeline.training.randomness import Draws

SHIFT = 1 / 8  # of the side
HOLE = 1 / 2  # of the side
TURN = math.pi / 12
ZOOM = 1.25
ADA_TARGET, ADA_IMAGES = 0.6, 100_000
CROP = 0.8  # least side of what is cut out, as a share


@dataclass(frozen=True)
class Augmentation:
    """`apply(images, u)`, where u has `draws` numbers for each image."""

    apply: Callable[[Tensor, Tensor], Tensor]
    draws: int


class Augment:
    """Several augmentations in a row, each on a share `p` of the images.

    `p` is a number, or a tensor on the images' device where a controller moves it.
    """

    def __init__(self, names: Sequence[str], p: float | Tensor = 1.0) -> None:
        self.steps = [AUGMENTATIONS[name] for name in names]
        self.p = p

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        # In float32: rounding to half the bits on the way would tell fakes from reals.
        images = images.float()
        for step in self.steps:
            u = devices.moved(draws.uniform((len(images), step.draws + 1)), images.device)
            changed = step.apply(images, u[:, 1:])
            if isinstance(self.p, float) and self.p >= 1:
                images = changed
            else:
                images = torch.where((u[:, :1] < self.p).view(-1, 1, 1, 1), changed, images)
        return images


class Adaptive(Augment):
    """ADA: `p` rises while D is too sure of the reals and falls while it is not.

    Karras et al. 2020, arXiv:2006.06676: the sign of D's logits on reals, mean over a batch, is
    held at ADA_TARGET; p could go from 0 to 1 in ADA_IMAGES images. Its paper takes 500,000, which
    is all that many a training here sees.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, torch.zeros(1))

    def adapt(self, real_logits: Tensor) -> dict[str, Tensor]:
        """Move `p` in place, as it is the training's own; it is what the history shows."""
        assert isinstance(self.p, Tensor)
        sureness = parallel.mean(real_logits.detach().sign().mean())
        seen = len(real_logits) * parallel.size()
        self.p += (sureness - ADA_TARGET).sign() * seen / ADA_IMAGES
        self.p.clamp_(0, 1)
        return {"augment_p": self.p.squeeze(0)}


def colour(images: Tensor, u: Tensor) -> Tensor:
    """Brightness by up to 0.5 either way, saturation by 0 to 2, contrast by 0.5 to 1.5 (paper)."""
    brightness, saturation, contrast = (u[:, i].view(-1, 1, 1, 1) for i in range(3))
    images = images + (brightness - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = torch.lerp(gray, images, 2 * saturation) if images.shape[1] > 1 else images
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def translation(images: Tensor, u: Tensor) -> Tensor:
    """Whole pixels, up to an eighth of the side in each direction; zeros come in (paper)."""
    height, width = images.shape[2:]
    down = _whole(u[:, 0], -round(height * SHIFT), round(height * SHIFT))
    right = _whole(u[:, 1], -round(width * SHIFT), round(width * SHIFT))
    rows = torch.arange(height, device=images.device) - down.view(-1, 1)  # (N, H)
    columns = torch.arange(width, device=images.device) - right.view(-1, 1)
    inside = (_within(rows, height)[:, :, None] & _within(columns, width)[:, None, :])[:, None]
    moved = shifted(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return moved * inside


def cutout(images: Tensor, u: Tensor) -> Tensor:
    """A square of half the side becomes zero, its centre anywhere in the image (paper)."""
    height, width = images.shape[2:]
    top = _whole(u[:, 0], 0, height) - round(height * HOLE / 2)
    left = _whole(u[:, 1], 0, width) - round(width * HOLE / 2)
    rows = torch.arange(height, device=images.device) - top.view(-1, 1)
    columns = torch.arange(width, device=images.device) - left.view(-1, 1)
    hole = (
        _within(rows, round(height * HOLE))[:, :, None]
        & _within(columns, round(width * HOLE))[:, None, :]
    )
    return images * ~hole[:, None]


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Half of the images mirrored, left to right."""
    return torch.where((u[:, 0] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)


def rotation(images: Tensor, u: Tensor) -> Tensor:
    """Up to 15 degrees either way about the centre; the border's reflection comes in."""
    angle = (2 * u[:, 0] - 1) * TURN
    cos, sin = angle.cos(), angle.sin()
    return _warp(images, torch.stack([cos, -sin, sin, cos], dim=1), torch.zeros_like(u[:, :1]))


def scale(images: Tensor, u: Tensor) -> Tensor:
    """Smaller or larger by up to a quarter about the centre; the border's reflection comes in."""
    factor = ZOOM ** (2 * u[:, 0] - 1)
    zero = torch.zeros_like(factor)
    return _warp(images, torch.stack([factor, zero, zero, factor], dim=1), torch.zeros_like(u))


def crop(images: Tensor, u: Tensor) -> Tensor:
    """A square of at least 0.8 of the side, anywhere in the image, brought to full size."""
    share = CROP + (1 - CROP) * u[:, 0]
    zero = torch.zeros_like(share)
    offset = (2 * u[:, 1:3] - 1) * (1 - share)[:, None]
    return _warp(images, torch.stack([share, zero, zero, share], dim=1), offset)


AUGMENTATIONS = {
    "translation": Augmentation(translation, 2),
    "cutout": Augmentation(cutout, 2),
    "colour": Augmentation(colour, 3),
    "flip": Augmentation(flip, 1),
    "rotation": Augmentation(rotation, 1),
    "scale": Augmentation(scale, 1),
    "crop": Augmentation(crop, 3),
}


def _whole(u: Tensor, low: int, high: int) -> Tensor:
    """Whole numbers (int64) from `low` to `high`, both included."""
    return (u * (high - low + 1)).floor().long() + low


def _within(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)


def shifted(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Of each image (N, C, H, W) the pixels at `rows` (N, H') and `columns` (N, W')."""
    return _at(images, rows[:, :, None] * images.shape[3] + columns[:, None])


def _at(images: Tensor, places: Tensor) -> Tensor:
    """Of each image (N, C, H, W) the pixels at `places` (N, H', W'), counted row by row."""
    # Not by indexing, whose gradient sorts the places on CUDA and is slow on a CPU.
    index = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    picked = images.flatten(2).gather(2, index).view(*images.shape[:2], *places.shape[1:])
    return picked.contiguous(memory_format=torch.channels_last)


def _warp(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Each pixel from where `matrix` (N, 4), row by row, and `offset` (N, 1 or 2) send it.

    Places are (y, x) in [-1, 1] from the centre; between pixels bilinear, beyond the border
    reflected. Not by torch's grid_sample, which has no second derivative.
    """
    height, width = images.shape[2:]
    y = torch.linspace(-1, 1, height, device=images.device).view(1, -1, 1)
    x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, -1)
    a, b, c, d = (matrix[:, i].view(-1, 1, 1) for i in range(4))
    from_y = _reflected((a * y + b * x + offset[:, :1, None] + 1) / 2 * (height - 1), height - 1)
    from_x = _reflected((c * y + d * x + offset[:, -1:, None] + 1) / 2 * (width - 1), width - 1)
    top, left = from_y.floor().clamp(max=height - 2), from_x.floor().clamp(max=width - 2)
    down, right = (from_y - top)[:, None], (from_x - left)[:, None]
    corner = top.long() * width + left.long()
    upper = torch.lerp(_at(images, corner), _at(images, corner + 1), right)
    lower = torch.lerp(_at(images, corner + width), _at(images, corner + width + 1), right)
    return torch.lerp(upper, lower, down)


def _reflected(position: Tensor, last: int) -> Tensor:
    """Positions beyond [0, last] as a mirror at each end shows them."""
    return last - (position.abs() % (2 * last) - last).abs()
