"""Heads, and how the scaling of a network's weights reaches them."""

import pytest
import torch
from torch import nn

from pipeline.networks import equalised, heads
from pipeline.networks.build import build


@pytest.mark.parametrize(("n", "size"), [(8, 4), (6, 3), (7, 1)])
def test_deviation_is_that_of_strided_groups(n: int, size: int) -> None:
    features = torch.randn(n, 3, 5)
    groups = features.reshape(size, n // size, 15)
    expected = (groups.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=1).repeat(size)
    torch.testing.assert_close(heads.deviation(features)[:, 0], expected)


@pytest.mark.parametrize("name", ["stylegan2", "progressive"])
@pytest.mark.parametrize("conditioning", ["projection", "auxiliary"])
def test_equalised_learning_rates_reach_the_last_layer(name: str, conditioning: str) -> None:
    _, discriminator = build(
        name, shape=(28, 28, 1), latent_dim=4, n_classes=10, width=16, spectral_norm=False, seed=0,
        conditioning=conditioning,
    )  # fmt: skip
    layers = [module for module in discriminator.modules() if hasattr(module, "weight")]
    assert not any(isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding) for layer in layers)
    assert all(0.8 < layer.weight.std() < 1.2 for layer in layers)


def test_an_equalised_embedding_has_vectors_of_length_near_one() -> None:
    layer = equalised.of_head(nn.Embedding(50, 400))
    lengths = layer(torch.arange(50)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(50), atol=0.2, rtol=0)


def test_spectral_normalisation_starts_from_the_networks_own_weights() -> None:
    """Glorot's, whose bound is that of the layer's own sides; not torch's default."""
    _, discriminator = build(
        "resnet", shape=(28, 28, 1), latent_dim=4, n_classes=0, width=8, spectral_norm=True, seed=0
    )
    conv = discriminator.body[1].convs[0]
    weight = conv.parametrizations.weight.original
    n_out, n_in, height, width = weight.shape
    bound = (6 / ((n_in + n_out) * height * width)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound
