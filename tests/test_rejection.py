"""Rejection by a discriminator whose verdict is known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline import rejection
from pipeline.errors import UserError
from pipeline.networks.heads import Verdict

RNG = np.random.default_rng(0)


class Ratio(nn.Module):
    """The log density ratio of N(0, 1) to N(0, 2^2), times 3: right, but not calibrated."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, points: Tensor, labels: Tensor | None = None) -> Verdict:
        logits = self.factor * (np.log(2) - points[:, 0].square() * (1 / 2 - 1 / 8))
        return Verdict(logits, points, None)


def wide(latents: Tensor, labels: np.ndarray | None) -> Tensor:
    return 2 * latents


def accepted(n: int = 1500, share: float = 0.8, labels: np.ndarray | None = None):
    return rejection.sample(
        wide,
        Ratio(),
        torch.randn(4000, 1, generator=torch.Generator().manual_seed(1)),
        None if labels is None else np.zeros(4000, dtype=np.int64),
        n=n,
        latent_dim=1,
        seed=0,
        labels=labels,
        share=share,
    )


def test_calibration_finds_the_density_ratio() -> None:
    real, fake = RNG.normal(size=20_000), 2 * RNG.normal(size=20_000)
    logits = [3 * (np.log(2) - x**2 * 3 / 8) for x in (real, fake)]
    found = rejection.calibrate(*logits)
    assert found.slope == pytest.approx(1 / 3, rel=0.05)
    assert found.offset == pytest.approx(0, abs=0.05)


def test_a_discriminator_that_is_wrong_accepts_all_alike() -> None:
    chances = rejection.calibrate(RNG.normal(-1, 1, 400), RNG.normal(1, 1, 400))(np.arange(3.0))
    assert chances == pytest.approx(chances[0])


def test_the_likelier_real_the_likelier_accepted() -> None:
    found = rejection.calibrate(RNG.normal(1, 1, 4000), RNG.normal(-1, 1, 4000))
    chances = found(np.linspace(-4, 4, 20))
    assert (np.diff(chances) >= 0).all()
    assert chances[0] < 0.05 < 0.5 < chances[-1]
    assert np.quantile(chances, 1) <= 1


def test_accepted_samples_are_nearer_to_the_data() -> None:
    points, share = accepted()
    assert points.shape == (1500, 1)
    assert 0.05 < share < 0.6
    assert points.std() < 1.3  # of the data 1, of the samples 2


def test_a_function_of_its_seed_and_labels_are_kept() -> None:
    labels = np.arange(300) % 2
    first, second = accepted(300, labels=labels), accepted(300, labels=labels)
    assert np.array_equal(first[0], second[0])


class Counting(Ratio):
    """Says what it does of a whole batch alone."""

    def forward(self, points: Tensor, labels: Tensor | None = None) -> Verdict:
        assert len(points) == 50
        return super().forward(points)


def test_d_sees_whole_batches_only() -> None:
    """As one that compares the samples of a batch takes the last few of a round for fakes."""
    points, _ = rejection.sample(
        wide, Counting(), torch.randn(203, 1), None, n=7, latent_dim=1, seed=0, labels=None,
        batch_size=50,
    )  # fmt: skip
    assert points.shape == (7, 1)


def test_a_discriminator_that_accepts_next_to_nothing_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(rejection, "ROUNDS", 1)
    with pytest.raises(UserError, match="without --reject"):
        accepted()


def test_a_discriminator_from_before_batch_sizes_were_kept_judges_each_by_itself() -> None:
    assert rejection.batch_size_of({"batch_size": 32, "discriminator": {}}) == 32
    assert rejection.batch_size_of({"discriminator": {"name": "dcgan"}}) == 64
    assert rejection.batch_size_of({"discriminator": {"name": "dcgan", "minibatch": "none"}}) == 64


@pytest.mark.parametrize(
    "compares", [{"name": "dcgan", "minibatch": "discrimination"}, {"name": "stylegan2"}]
)
def test_one_that_compares_samples_must_say_how_many(compares: dict[str, str]) -> None:
    with pytest.raises(UserError, match="dvc repro --force train"):
        rejection.batch_size_of({"discriminator": compares})
