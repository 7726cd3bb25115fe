"""Two processes that share a batch train as one with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.augment import AUGMENTATIONS, Augment
from pipeline.losses import LOSSES
from pipeline.networks import NETWORKS
from pipeline.regularizers import TERMS
from pipeline.training import checkpoints
from pipeline.training.state import State

from ..together import torchrun
from . import parallel_cases


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What two processes made of every case, and where."""
    folder = tmp_path_factory.mktemp("two")
    saved = tmp_path_factory.mktemp("one")

    def save(state: State) -> None:
        if state.step == 4:
            checkpoints.save(state, saved)

    parallel_cases.trained("r1_r2", save=save, checkpoint_every=2)
    torchrun(parallel_cases.__name__, folder / "out", saved)
    return folder, torch.load(folder / "out", weights_only=True)


def assert_alike(one: Any, two: Any, where: str = "") -> None:
    """To float tolerance, through dictionaries and lists."""
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_alike(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for i, pair in enumerate(zip(one, two, strict=True)):
            assert_alike(*pair, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(
            two, one, rtol=1e-3, atol=2e-5, msg=lambda text: f"{where}: {text}"
        )
    else:
        assert two == pytest.approx(one, rel=1e-3, abs=2e-5), where


def test_every_loss_term_network_and_augmentation_is_in_a_case() -> None:
    makes, runs = zip(*parallel_cases.CASES.values(), strict=True)
    losses = [run["loss"] for run in runs if "loss" in run]
    penalties = [term.penalty for run in runs for term in run.get("terms", [])]
    networks = [make["name"] for make in makes if "name" in make]
    # ADA's share of the images hardly leaves zero in so few steps.
    augments = [make["augment"] for make in makes if type(make.get("augment")) is Augment]
    steps = [step for augment in augments for step in augment.steps]
    missing = [
        *(name for name, loss in LOSSES.items() if not any(loss is one for one in losses)),
        *(name for name, term in TERMS.items() if term(1.0).penalty not in penalties),
        *(name for name in NETWORKS if name not in networks),
        *(name for name, step in AUGMENTATIONS.items() if step not in steps),
    ]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize("case", parallel_cases.CASES)
def test_two_processes_train_as_one(case: str, two: tuple[Path, dict[str, Any]]) -> None:
    assert_alike(parallel_cases.told(parallel_cases.trained(case)), two[1][case])


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_in_two_and_back(
    two: tuple[Path, dict[str, Any]],
) -> None:
    folder, found = two
    whole = parallel_cases.told(parallel_cases.trained("r1_r2"))
    assert_alike(whole, found["resumed"])
    assert_alike(whole, parallel_cases.told(parallel_cases.trained("r1_r2", restore=folder)))
