"""Work is counted, not timed: closed forms."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline import config, presets
from pipeline.config import Params
from pipeline.tuning import objective, studies, work

from .conftest import plain

CPU = torch.device("cpu")
SHAPE, LATENT, WIDTH, BATCH = (8, 8, 1), 3, 5, 16


def cost(**changes: Any) -> float:
    """Of an MLP on 8 x 8 images."""
    values = plain()
    small = {
        "model": {"name": "mlp", "latent_dim": LATENT, "width": WIDTH, "spectral_norm": False},
        "train": {"batch_size": BATCH},
    }
    params = config.check(presets.merged(presets.merged(values, small), changes))
    return work.per_step(params, shape=SHAPE, n_classes=10)


def multiplications(*sizes: int) -> int:
    """Of one image through linear layers of these sizes, a multiplication and an addition as two."""
    return 2 * sum(a * b for a, b in itertools.pairwise(sizes))


def test_the_work_of_linear_layers_is_their_multiplications() -> None:
    """Forward once; backward once for the weights, and once for the inputs of all but the first."""
    generator = multiplications(LATENT, WIDTH, WIDTH, 64)
    discriminator = multiplications(64, WIDTH, WIDTH, 1)
    of_g = 3 * generator - multiplications(LATENT, WIDTH)  # noise needs no gradient
    update_d = 2 * (3 * discriminator - multiplications(64, WIDTH))  # real and fake
    # G's update: through a frozen D forward and back to the images, no gradients of its weights.
    through_d = 2 * discriminator
    assert cost() == BATCH * (of_g + update_d + through_d)


def test_each_further_update_of_d_costs_the_same() -> None:
    one, two, five = (cost(train={"d_steps": n}) for n in (1, 2, 5))
    assert five - one == pytest.approx(4 * (two - one))
    assert two > 1.3 * one


def test_a_lazy_penalty_costs_its_share() -> None:
    plain = cost()
    every, eighth = (cost(loss={"r1_gamma": 1.0, "r1_every": n}) for n in (1, 8))
    assert eighth - plain == pytest.approx((every - plain) / 8)


def test_a_lazy_penalty_beside_several_updates_of_d_costs_its_share() -> None:
    plain = cost(train={"d_steps": 3})
    every, fourth = (
        cost(train={"d_steps": 3}, loss={"r1_gamma": 1.0, "r1_every": n}) for n in (1, 4)
    )
    assert fourth - plain == pytest.approx((every - plain) / 4)


def test_work_is_in_proportion_to_the_batch() -> None:
    assert cost(train={"batch_size": 64}) == pytest.approx(4 * cost())


def test_equal_work_is_fewer_steps_of_dearer_ones() -> None:
    assert work.equal_steps(1000, work=2.0, other=5.0) == 400
    assert work.equal_steps(1000, work=5.0, other=5.0) == 1000
    assert work.equal_steps(1, work=1.0, other=100.0) == 1


def test_the_keys_said_to_cost_nothing_do() -> None:
    """Whatever they are: a bench counts settings once that differ in these alone."""
    other = {
        "lr_g": 0.1,
        "lr_decay": "cosine",
        "lr_warmup": 2,
        "optimizer_g": "adamw",
        "weight_decay_d": 0.1,
        "clip_grad": 1.0,
        "augment_p": 0.5,
        "instance_noise": 0.1,
        "ema_decay": 0.5,
    }
    assert set(other) < set(work.COSTLESS)
    assert cost(train=other) == cost()


def test_settings_that_differ_in_rates_alone_are_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[Params] = []
    monkeypatch.setattr(work, "per_step", lambda params, **_: float(counted.append(params) or 1))
    values = plain()
    data: Any = SimpleNamespace(shape=SHAPE, n_classes=10)
    params = [
        config.check(presets.merged(values, {"train": changes}))
        for changes in ({}, {"lr_g": 0.1}, {"d_steps": 3}, {"d_steps": 3, "lr_d": 1e-5})
    ]
    bench = objective.Bench(studies.Definition("", {}, {}, {}, {}), params[0], data, CPU)
    for one in params:
        bench.cost(one)
    assert [one.train.d_steps for one in counted] == [1, 3]
