"""Discriminator rejection sampling: keep the samples that D takes for real.

Azadi et al. 2019, arXiv:1810.06758. An ideal D's logit is the log ratio of the densities of data
and samples; samples accepted in proportion to that ratio would be the data's own. A trained D is no
such thing: it is calibrated first, by logistic regression of real or fake on its logit, with
held-out reals and fakes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import files, paths
from pipeline.compatibility import SEES_DEVIATION
from pipeline.datasets import prepared
from pipeline.errors import UserError
from pipeline.networks.build import load_discriminator
from pipeline.sampling import as_stored, draw
from pipeline.training.tasks import for_networks

log = logging.getLogger(__name__)

BURN_IN = 2000  # samples by which the ratio's maximum and the threshold are set
ROUNDS = 200  # after so many rounds the rest is given up
ANY = 64  # samples at once of a D that judges each by itself
TINY = 1e-6


@dataclass(frozen=True)
class Acceptance:
    """How likely a logit of D is accepted: `slope` and `offset` calibrate it.

    `highest` is the highest calibrated logit seen, `threshold` the paper's gamma: higher accepts
    fewer.
    """

    slope: float
    offset: float
    highest: float
    threshold: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of logits (N,)."""
        return _sigmoid(self.score(logits) - self.threshold)

    def score(self, logits: np.ndarray) -> np.ndarray:
        """The paper's F before gamma is taken off."""
        return _score(self.slope * logits + self.offset, self.highest)


def calibrate(real: np.ndarray, fake: np.ndarray, *, share: float = 0.8) -> Acceptance:
    """From D's logits on held-out reals (N,) and on samples (M,).

    `share` of the samples have less than an even chance to be accepted. A D that tells nothing gets
    a slope of zero, and accepts all alike.
    """
    from sklearn.linear_model import LogisticRegression

    logits = np.concatenate([real, fake])[:, None]
    targets = np.repeat([1, 0], [len(real), len(fake)])
    fitted = LogisticRegression(class_weight="balanced", C=1e6).fit(logits, targets)
    slope, offset = max(0.0, float(fitted.coef_[0, 0])), float(fitted.intercept_[0])
    calibrated = slope * fake + offset
    highest = float(calibrated.max())
    threshold = float(np.quantile(_score(calibrated, highest), share))
    return Acceptance(slope, offset, highest, threshold)


def sample(
    generate: Callable[[Tensor, np.ndarray | None], Tensor],
    discriminator: nn.Module,
    reals: Tensor,
    real_labels: np.ndarray | None,
    *,
    n: int,
    latent_dim: int,
    seed: int,
    labels: np.ndarray | None,
    share: float = 0.8,
    batch_size: int = ANY,
) -> tuple[np.ndarray, float]:
    """`n` accepted samples as data sets hold them, and the share that was accepted.

    D sees whole batches of `batch_size`, which should be that of its training: one that compares
    the samples of a batch says something else of a smaller one.

    `generate(latents, labels)` gives samples as networks see them; `reals` are held-out ones, seen
    like that. A place of class k is filled by class k. A function of weights, reals, seed, labels.
    Raises UserError where D accepts next to nothing.
    """
    vectors = torch.Generator().manual_seed(seed)
    chances = np.random.default_rng(seed)

    def drawn(classes: np.ndarray | None, count: int) -> tuple[Tensor, np.ndarray]:
        parts, logits = [], []
        for places in _batches(count, batch_size):
            latents = torch.randn(batch_size, latent_dim, generator=vectors)
            own = None if classes is None else classes[places]
            parts.append(generate(latents, own))
            logits.append(judged(discriminator, parts[-1], own))
        return torch.cat(parts)[:count], np.concatenate(logits)[:count]

    burn_in = None if labels is None else labels[np.arange(BURN_IN) % len(labels)]
    of_reals = [
        judged(discriminator, reals[places], None if real_labels is None else real_labels[places])
        for places in _batches(len(reals), batch_size)
    ]
    held_out = np.concatenate(of_reals)[: len(reals)]
    accept = calibrate(held_out, drawn(burn_in, BURN_IN)[1], share=share)
    kept: list[np.ndarray | None] = [None] * n
    pending, tried = np.arange(n), 0
    for _ in range(ROUNDS):
        samples, logits = drawn(None if labels is None else labels[pending], len(pending))
        tried += len(pending)
        accepted = chances.random(len(pending)) < accept(logits)
        if accepted.any():
            stored = as_stored(samples[torch.from_numpy(accepted)])
            for place, one in zip(pending[accepted], stored, strict=True):
                kept[place] = one
        pending = pending[~accepted]
        if not len(pending):
            break
    else:
        raise UserError(
            f"D accepted {n - len(pending)} of {tried} samples: too few; sample without --reject"
        )
    return np.stack([one for one in kept if one is not None]), n / tried


def of_training(
    generator: nn.Module,
    model: Path,
    *,
    n: int,
    seed: int,
    labels: np.ndarray | None,
    truncation: float = 1.0,
    share: float = 0.8,
) -> tuple[np.ndarray, float]:
    """`sample` with the discriminator kept beside the `model` folder and the prepared val split.

    Raises UserError where one is missing, is of another training, or judges packs.
    """
    discriminator, config = load_discriminator(model.with_name(paths.DISCRIMINATOR.name))
    trained = files.read_json(model / "config.json")
    if config["train_key"] != trained["train_key"]:
        raise UserError(
            f"{model} and the discriminator beside it are of different trainings: "
            "dvc checkout models/generator models/discriminator"
        )
    if config["discriminator"].get("pack", 1) > 1:
        raise UserError("this discriminator judges packs of samples, and none by itself")
    data = prepared.load()
    if data.digest != trained["data_digest"]:
        raise UserError(f"data/prepared is not the data that {model} learnt from: dvc checkout")
    held_out = data.split("val")
    return sample(
        lambda vectors, classes: draw(generator, vectors, classes, truncation=truncation),
        discriminator,
        for_networks(torch.from_numpy(np.array(held_out.images))),
        held_out.labels if labels is not None else None,
        n=n,
        latent_dim=trained["generator"]["latent_dim"],
        seed=seed,
        labels=labels,
        share=share,
        batch_size=batch_size_of(config),
    )


def batch_size_of(config: dict[str, Any]) -> int:
    """How many samples D saw at once in training, from its config.json.

    Older ones do not say: of no importance, unless D compares the samples of a batch.
    Raises UserError there.
    """
    if "batch_size" in config:
        return config["batch_size"]
    made = config["discriminator"]
    if made["name"] in SEES_DEVIATION or made.get("minibatch", "none") != "none":
        raise UserError(
            "this discriminator compares the samples of a batch and does not say how many it was "
            "trained on: dvc repro --force train, or sample without --reject"
        )
    return ANY


@torch.inference_mode()
def judged(discriminator: nn.Module, samples: Tensor, labels: np.ndarray | None) -> np.ndarray:
    """D's logits (N,) of samples as networks see them."""
    device = next(discriminator.parameters()).device
    classes = None if labels is None else torch.from_numpy(labels).to(device)
    return discriminator(samples.to(device), classes).logits.float().cpu().numpy()


def _batches(count: int, size: int) -> list[np.ndarray]:
    """The places 0 to `count` in batches of `size`, the last filled up from the beginning."""
    whole = -(-count // size) * size
    return list((np.arange(whole) % count).reshape(-1, size))


def _score(calibrated: np.ndarray, highest: float) -> np.ndarray:
    below = np.minimum(calibrated - highest, 0.0)
    return below - np.log1p(-np.exp(below - TINY))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))
