"""Augmentations: what each does, that gradients pass, and that draws are the batch's own."""

import pytest
import torch
from torch import Tensor

from pipeline.augment import AUGMENTATIONS, Augment, cutout, flip, rotation, scale, translation
from pipeline.training.randomness import Draws

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_keeps_the_shape_and_changes_images(name: str, channels: int) -> None:
    images = IMAGES[:, :channels]
    changed = Augment([name])(images, Draws(0, 1))
    assert changed.shape == images.shape
    assert torch.isfinite(changed).all()
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_gradients_pass_twice(name: str) -> None:
    images = IMAGES.clone().requires_grad_(True)
    seen = Augment([name])(images, Draws(0, 1))
    (first,) = torch.autograd.grad(seen.pow(3).sum(), images, create_graph=True)
    assert first.abs().sum() > 0
    (second,) = torch.autograd.grad(first.square().sum(), images)
    assert second.abs().sum() > 0


def test_the_same_draws_give_the_same_images_and_later_ones_others() -> None:
    every = Augment(list(AUGMENTATIONS))
    first, again = Draws(0, 7), Draws(0, 7)
    one = every(IMAGES, first)
    assert torch.equal(one, every(IMAGES, again))
    assert not torch.equal(one, every(IMAGES, first))
    assert not torch.equal(one, every(IMAGES, Draws(0, 8)))


def test_a_share_of_the_images_is_changed() -> None:
    many = torch.ones(2000, 1, 8, 8)
    seen = Augment(["cutout"], 0.3)(many, Draws(0, 0))
    changed = (seen != many).any(dim=(1, 2, 3)).float().mean().item()
    assert changed == pytest.approx(0.3, abs=0.04)
    assert torch.equal(Augment(["cutout"], torch.tensor(0.0))(many, Draws(0, 0)), many)


def test_translation_moves_whole_pixels_and_brings_zeros_in() -> None:
    u = torch.tensor([[0.999, 0.5]])  # two pixels down, none to the right
    moved = translation(IMAGES[:1], u)
    assert torch.equal(moved[:, :, 2:], IMAGES[:1, :, :-2])
    assert moved[:, :, :2].abs().max() == 0


def test_cutout_empties_a_square_of_half_the_side() -> None:
    holes = cutout(torch.ones(1, 1, 16, 16), torch.tensor([[0.5, 0.5]]))
    assert (holes == 0).sum() == 64


def test_flip_mirrors_half() -> None:
    u = torch.tensor([[0.1], [0.9]])
    mirrored = flip(IMAGES[:2], u)
    assert torch.equal(mirrored[0], IMAGES[0].flip(2))
    assert torch.equal(mirrored[1], IMAGES[1])


@pytest.mark.parametrize("still", [rotation, scale])
def test_warps_by_nothing_leave_the_image(still) -> None:
    torch.testing.assert_close(still(IMAGES, torch.full((6, 1), 0.5)), IMAGES)


def test_scale_shows_a_smaller_part_larger() -> None:
    """A linear ramp is seen at four fifths of its slope."""
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    larger = scale(ramp, torch.zeros(1, 1))
    torch.testing.assert_close(larger, ramp / 1.25)


def test_reals_keep_their_expected_place_under_translation() -> None:
    """Shifts are symmetric: on average a dot stays where it is."""
    dot = torch.zeros(4000, 1, 16, 16)
    dot[:, :, 8, 8] = 1
    seen: Tensor = Augment(["translation"])(dot, Draws(0, 0)).mean(dim=(0, 1))
    rows = (seen.sum(dim=1) * torch.arange(16)).sum().item()
    assert rows == pytest.approx(8, abs=0.1)
