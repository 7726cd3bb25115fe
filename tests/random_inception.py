"""A file of weights with the shapes of torch-fidelity's Inception, and images to show it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn


def write(path: Path, seed: int = 0) -> Path:
    """Weights that torch draws, with the batch norms fitted to a few images.

    Without that the activations of 94 random layers would hardly tell one image from another.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            """Keep what torch drew."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Unloaded("inception", ["2048"], feature_extractor_weights_path=nothing)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over what is shown, of nothing else
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(pictures(4, 99)).permute(0, 3, 1, 2))
    torch.save(network.state_dict(), path)
    return path


def pictures(n: int, seed: int, channels: int = 3) -> np.ndarray:
    """Patches of colour, uint8 (n, 12, 12, channels)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 3, 3, channels), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)
