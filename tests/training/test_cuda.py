"""What only a GPU can show: updates replayed as graphs, and checks that the host hears of later."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.augment import AUGMENTATIONS, Adaptive
from pipeline.losses import LOSSES
from pipeline.regularizers import TERMS, Regularizer, gradient_penalty, r1
from pipeline.training import checkpoints, graphs, numerics, tasks
from pipeline.training.balance import Adaptive as AdaptiveBalance
from pipeline.training.guard import Guard
from pipeline.training.state import State
from tests.training.test_guard import HELD_OUT, Ear
from tests.training.test_loop import assert_resumes, make, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

STEPS = 16
# name -> what `make` and `run` are given
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "bf16": ({}, {"precision": torch.bfloat16}),
    "ratio": ({"d_steps": 3, "g_steps": 2}, {}),
    "lazy_r1": ({}, {"terms": [Regularizer(r1, 1.0, every=4)]}),
    "ratio_and_lazy_r1": ({"g_steps": 2}, {"terms": [Regularizer(r1, 1.0, every=4)]}),
    "wgan_gp": (
        {"d_steps": 2},
        {"loss": LOSSES["wgan_gp"], "terms": [Regularizer(gradient_penalty, 10.0)]},
    ),
    "ada": ({"augment": Adaptive([*AUGMENTATIONS])}, {}),
    "auxiliary": ({"head": {"conditioning": "auxiliary", "minibatch": "discrimination"}}, {}),
    "lecam": ({}, {"terms": [TERMS["lecam"](0.1), TERMS["cr"](1.0)], "clip_grad": 1.0}),
    "noise": ({"instance_noise": 0.1}, {}),
    "resnet": ({"name": "resnet"}, {"loss": LOSSES["hinge"]}),
    "relativistic": ({}, {"loss": LOSSES["rpgan"], "terms": [TERMS["feature_matching"](1.0)]}),
}


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    numerics.prepare(torch.device("cuda"), deterministic=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that trainings make."""
    made: list[Any] = []
    inner = graphs.runner
    monkeypatch.setattr(graphs, "runner", lambda *given: made.append(inner(*given)) or made[-1])
    return made


def weights(state: State) -> list[Tensor]:
    modules = (state.generator, state.discriminator, state.ema)
    return [value.clone() for module in modules for value in module.state_dict().values()]


def rows(state: State) -> list[dict[str, float]]:
    timings = ("seconds", "images_per_second", "memory_mb")
    return [{k: v for k, v in row.items() if k not in timings} for row in state.history]


@pytest.mark.parametrize("recipe", RECIPES)
def test_replayed_updates_give_the_same_bits(recipe: str, runners: list[Any]) -> None:
    of_make, changes = RECIPES[recipe]
    plain, replayed = (
        run(*make(device="cuda", **of_make), steps=STEPS, **{**changes, "cuda_graphs": on})
        for on in (False, True)
    )
    assert runners[0].captured
    pairs = zip(weights(plain), weights(replayed), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert rows(plain) == rows(replayed)


@pytest.mark.filterwarnings("default")  # of its compilers, which no user can mend
def test_compiled_networks_are_replayed_as_they_run(runners: list[Any]) -> None:
    terms = [Regularizer(r1, 1.0, every=4)]
    plain, eager, replayed = (
        run(
            *make(device="cuda", spectral_norm=False),
            steps=STEPS,
            terms=terms,
            compile=compiled,
            cuda_graphs=on,
        )
        for compiled, on in ((False, False), (True, False), (True, True))
    )
    assert runners[0].captured
    assert all(torch.equal(a, b) for a, b in zip(weights(eager), weights(replayed), strict=True))
    for ours, theirs in zip(weights(plain), weights(eager), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("default")
def test_images_too_many_for_the_device_are_replayed_alike(
    compiled: bool, monkeypatch: pytest.MonkeyPatch, runners: list[Any]
) -> None:
    changes = {"steps": STEPS, "cuda_graphs": True, "compile": compiled}
    resident = run(*make(device="cuda", spectral_norm=False), **changes)
    monkeypatch.setattr(tasks, "RESIDENT_SHARE", 0)
    state, task = make(device="cuda", spectral_norm=False)
    assert task.images is None
    read = run(state, task, **changes)
    assert all(runner.captured for runner in runners)
    assert all(torch.equal(a, b) for a, b in zip(weights(resident), weights(read), strict=True))


@pytest.mark.parametrize("recipe", ["plain", "ratio", "ada", "lecam"])
def test_a_training_killed_and_resumed_is_bit_identical(tmp_path: Path, recipe: str) -> None:
    of_make, changes = RECIPES[recipe]
    assert_resumes(tmp_path, {**of_make, "device": "cuda"}, {**changes, "cuda_graphs": True})


def test_a_resumed_training_keeps_its_best_and_healthy_weights_off_the_gpu(tmp_path: Path) -> None:
    state, task = make(device="cuda", augment=Adaptive(["flip"]))
    state.guard = Guard("rollback")
    checkpoints.save(run(state, task, steps=4), tmp_path)
    state, task = make(device="cuda", augment=Adaptive(["flip"]))
    state.guard = Guard("rollback")
    assert checkpoints.restore(state, tmp_path)
    run(state, task, steps=6)
    assert state.best_weights is not None
    assert state.guard.healthy is not None
    aside = [*state.best_weights.values(), *state.guard.healthy["generator"].values()]
    assert {value.device.type for value in aside} == {"cpu"}
    assert {value.device.type for value in state.memory.values()} == {"cuda"}


@pytest.mark.parametrize("balance", [False, True], ids=["fixed", "adaptive"])
def test_nan_is_skipped_on_the_device_and_taken_back(runners: list[Any], balance: bool) -> None:
    """A poisoned number among the inputs, as no graph could hold a host's decision."""
    state, task = make(device="cuda", held_out=HELD_OUT)
    state.guard = Guard("rollback", max_rollbacks=2)
    if balance:
        state.balance = AdaptiveBalance(d_steps=1, g_steps=1)
        state.balance.every = 2
    inner = task.drawn

    def poisoned(counter: int) -> Any:
        (latents, *others), draws = inner(counter)
        return ((latents * float("nan") if counter == 10 else latents), *others), draws

    task.drawn = poisoned  # type: ignore[method-assign]
    ear = Ear()
    run(state, task, steps=STEPS, cuda_graphs=True, callbacks=[ear])
    kinds = [kind for _, kind in ear.events if kind != "balance"]
    assert kinds == ["not_finite", "rollback"]
    assert runners[0].captured
    assert all(value.isfinite().all() for value in weights(state))
    assert state.step == STEPS


def test_what_cannot_be_captured_is_told_with_the_way_out() -> None:
    """In a process of its own, which such an error leaves unfit for more."""
    script = """
import dataclasses
from pipeline import errors
from pipeline.losses import LOSSES
from tests.training.test_loop import make, run

plain = LOSSES["non_saturating"]

def looks(real, fake):
    float(real.mean())  # the host waits: no graph can hold that
    return plain.discriminator(real, fake)

loss = dataclasses.replace(plain, discriminator=looks)
errors.run(lambda: run(*make(device="cuda"), steps=9, loss=loss, cuda_graphs=True))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "cannot be captured as a CUDA graph" in done.stderr
    assert "set train.cuda_graphs: false" in done.stderr


def test_sgd_runs_as_it_is(runners: list[Any]) -> None:
    state = run(*make(device="cuda", optimizer="sgd"), steps=4, cuda_graphs=True)
    assert not isinstance(runners[0], graphs.Graphs)
    assert state.step == 4
