"""Draws that depend on their counter alone."""

import torch

from pipeline.training import randomness


def test_noise_is_a_function_of_seed_and_counter() -> None:
    first = randomness.normal((4, 3), 0, 5)
    assert torch.equal(first, randomness.normal((4, 3), 0, 5))
    assert not torch.equal(first, randomness.normal((4, 3), 0, 6))
    assert not torch.equal(first, randomness.normal((4, 3), 1, 5))


def test_streams_are_independent() -> None:
    noise = randomness.normal((2000,), 0, 0)
    uniform = randomness.Draws(0, 0).uniform((2000,))
    assert abs(torch.corrcoef(torch.stack([noise, uniform]))[0, 1]) < 0.1


def test_an_epoch_holds_every_image_once_though_batches_span_epochs() -> None:
    n, batch_size = 10, 4
    stream = torch.cat([randomness.batch_indices(n, batch_size, 0, i) for i in range(10)])
    for epoch in range(4):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_epochs_are_in_different_order() -> None:
    first, second = (randomness.batch_indices(100, 100, 0, i) for i in range(2))
    assert not torch.equal(first, second)


def test_a_batch_may_be_larger_than_the_set() -> None:
    indices = randomness.batch_indices(3, 8, 0, 0)
    assert torch.bincount(indices).min() >= 2
