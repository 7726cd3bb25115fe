"""Modulation, noise, mixing and styles."""

import torch
from torch.nn import functional as F

from pipeline.networks.build import build
from pipeline.networks.stylegan2 import STYLE_DIM, Modulated


def generator():
    return build(
        "stylegan2", shape=(28, 28, 1), latent_dim=4, n_classes=0, width=4, spectral_norm=False, seed=0
    )[0]  # fmt: skip


def test_modulation_is_a_convolution_with_each_samples_own_weights() -> None:
    layer = Modulated(3, 5, 3, demodulate=True)
    x, style = torch.randn(2, 3, 8, 8), torch.randn(2, STYLE_DIM)
    for i in range(2):
        weight = layer.conv.weight * layer.conv.scale * layer.affine(style)[i][None, :, None, None]
        weight = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        expected = F.conv2d(x[i : i + 1], weight, padding=1)
        torch.testing.assert_close(layer(x, style)[i : i + 1], expected, atol=1e-5, rtol=1e-4)


def test_noise_is_fresh_in_training_and_fixed_in_use() -> None:
    network, latents = generator(), torch.randn(3, 4)
    for layer in network.layers:
        layer.strength.data.fill_(0.5)
    assert not torch.equal(network.train()(latents), network(latents))
    assert torch.equal(network.eval()(latents), network(latents))


def test_some_batches_mix_two_styles_coarse_before_fine() -> None:
    network = generator()
    styles = network.styles(torch.randn(3, 4), None)
    mixed = [network._mixed(styles, None) for _ in range(40)]
    changed = torch.stack([(one != styles).any(dim=2).any(dim=0) for one in mixed])
    assert 25 < changed.any(dim=1).sum() < 40
    assert not changed[:, 0].any()
    assert (changed[:, 1:] >= changed[:, :-1]).all()  # once another, another to the end


def test_the_mean_style_follows_the_styles() -> None:
    network = generator().train()
    for _ in range(3):
        network(torch.randn(8, 4))
    assert network.style_mean.abs().sum() > 0
