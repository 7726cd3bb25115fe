"""Two processes that share a batch train as one with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

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
