"""R3GAN's networks at the start: what passes keeps its size, and residual blocks add nothing."""

import math

import pytest
import torch
from torch import nn

from pipeline.networks.build import build
from pipeline.networks.r3gan import BLOCKS, SLOPE, Block


def pair(size: int = 32) -> tuple[nn.Module, nn.Module]:
    return build(
        "r3gan", shape=(size, size, 3), latent_dim=64, n_classes=0, width=16, spectral_norm=False, seed=0
    )  # fmt: skip


def test_blocks_are_the_identity() -> None:
    x = torch.randn(2, 32, 8, 8)
    assert torch.equal(Block(32, 6)(x), x)


@pytest.mark.parametrize("network", pair(), ids=["generator", "discriminator"])
def test_weights_have_the_papers_deviations(network: nn.Module) -> None:
    """1 / sqrt(fan-in), in blocks times the gain of the leaky ReLU and n^(-1/4) of n blocks."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    inside = math.sqrt(2 / (1 + SLOPE**2)) * len(blocks) ** -0.25
    gains = {id(conv): inside for block in blocks for conv in (block.widen, block.spread)}
    ends = {id(block.narrow) for block in blocks}
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        if id(layer) in ends:
            assert not layer.weight.any()
            continue
        n = layer.weight.numel()
        expected = gains.get(id(layer), 1.0) / math.sqrt(n / len(layer.weight))
        assert layer.weight.std(correction=0).item() == pytest.approx(
            expected, rel=4 / math.sqrt(n)
        )
        assert layer.bias is None or not layer.bias.any()
    assert len(blocks) == BLOCKS * (len(network.changes) + 1)


@pytest.mark.parametrize("size", [32, 128])
def test_the_size_of_what_passes_does_not_depend_on_the_number_of_sides(size: int) -> None:
    generator, discriminator = pair(size)
    seen = []
    generator.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator(torch.randn(16, 64))
    assert 0.3 < seen[0].std() < 1.5
    flat = torch.randn(64, 3, 1, 1).expand(-1, -1, size, size)
    assert 0.3 < discriminator.features(flat, None).std() < 1.5
