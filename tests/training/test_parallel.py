"""Two processes that share a batch train as one with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training import checkpoints
from pipeline.training.state import State

from . import parallel_cases

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What two processes made of every case, and where."""
    folder = tmp_path_factory.mktemp("two")
    saved = tmp_path_factory.mktemp("one")

    def save(state: State) -> None:
        if state.step == 4:
            checkpoints.save(state, saved)

    parallel_cases.trained("r1_r2", save=save, checkpoint_every=2)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=localhost:0", "--local-addr=127.0.0.1"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", parallel_cases.__name__, str(folder / "out"), str(saved)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
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
