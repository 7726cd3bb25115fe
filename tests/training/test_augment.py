"""Shifting images."""

import torch

from pipeline.training.augment import shift

IMAGES = torch.arange(2 * 3 * 6 * 5, dtype=torch.float32).view(2, 3, 6, 5)


def test_no_offset_changes_nothing() -> None:
    assert torch.equal(shift(IMAGES, torch.zeros(2, 2, dtype=torch.long), 2), IMAGES)


def test_each_image_moves_by_its_own_offset() -> None:
    moved = shift(IMAGES, torch.tensor([[1, 0], [0, -2]]), 2)
    assert torch.equal(moved[0, :, 1:], IMAGES[0, :, :-1])
    assert torch.equal(moved[1, :, :, :-2], IMAGES[1, :, :, 2:])


def test_the_edge_is_repeated() -> None:
    moved = shift(IMAGES, torch.tensor([[2, 0], [0, 0]]), 2)
    assert torch.equal(moved[0, :, 0], IMAGES[0, :, 0])
    assert torch.equal(moved[0, :, 1], IMAGES[0, :, 0])


def test_gradients_flow_through() -> None:
    images = IMAGES.clone().requires_grad_(True)
    shift(images, torch.tensor([[1, 1], [0, 0]]), 1).sum().backward()
    assert images.grad is not None
    assert images.grad[1].eq(1).all()
    assert images.grad.sum() == images.numel()
