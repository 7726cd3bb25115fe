"""What of replayed updates needs no GPU: when, on which numbers, and which trainings have none.

A capture is CUDA's own, and test_cuda.py's to show: here the computation is run again instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline import parallel
from pipeline.training import graphs
from pipeline.training.randomness import Draws

from .test_loop import make

CPU = torch.device("cpu")


class Done:
    """An event of copies that the host has waited for."""

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without page-locked memory, streams and events."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *n, pin_memory=False, **how: empty(*n, **how))
    monkeypatch.setattr(torch.cuda, "Event", Done)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)


class Again:
    """As a graph: the same computation on the same memory, and its result in the same place."""

    def __init__(self, update: Callable[..., Tensor], memory: list[Tensor], n: int) -> None:
        self.update, self.drawn, self.numbers = update, tuple(memory[:n]), memory[n:]
        self.result = update(self.drawn, graphs._Given(self.numbers))

    def replay(self) -> None:
        self.result.copy_(self.update(self.drawn, graphs._Given(self.numbers)))


class Repeats(graphs.Graphs):
    def _aside(self, update: Any, drawn: Any, draws: Any) -> Any:
        return self._run(update, drawn, draws)

    def _capture(self, update: Any, drawn: Any, heard: Any) -> Any:
        inputs = graphs._Inputs([*drawn, *heard.numbers], self.device)
        again = Again(update, inputs.memory, len(drawn))
        return graphs._Captured(again, inputs, heard.kinds, again.result, [])  # type: ignore[arg-type]


def numbers(seed: int) -> list[Tensor]:
    """Of several types, whose bytes are no multiples of each other; one is empty."""
    of = torch.Generator().manual_seed(seed)
    return [
        torch.randn(3, 5, generator=of),
        torch.randint(256, (7, 1, 3), generator=of, dtype=torch.uint8),
        torch.randint(9, (6,), generator=of),
        torch.randn(0, 4, generator=of),
        torch.randn(33, generator=of).to(torch.bfloat16),
        torch.rand(1, generator=of),
    ]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_inputs_lie_apart_in_one_block_and_are_as_what_fills_them() -> None:
    inputs = graphs._Inputs(numbers(0), CPU)
    for seed in (1, 2, 3):
        inputs.fill(numbers(seed))
        assert same(inputs.memory, numbers(seed))
    start = inputs.flat.data_ptr()
    places = [x.data_ptr() - start for x in inputs.memory if len(x)]
    assert all(place % inputs.ALIGNED == 0 for place in places)
    assert max(places) < len(inputs.flat)


def test_the_host_fills_one_block_while_the_device_may_read_the_other() -> None:
    inputs = graphs._Inputs(numbers(0), CPU)
    for seed in (1, 2, 3):
        inputs.fill(numbers(seed))
    newer, older = (views for _, views, _ in reversed(inputs.staged))
    assert same(newer, numbers(3))
    assert same(older, numbers(2))


def computed(drawn: tuple[Tensor, ...], draws: Draws) -> Tensor:
    """Of what is drawn before and meanwhile, of either kind and in an order that counts."""
    (latents,) = drawn
    shift = draws.normal((4, 3))
    return latents * draws.uniform((4, 1)) + shift - draws.normal((4, 3))


def of_counter(counter: int) -> tuple[tuple[Tensor, ...], Draws]:
    latents = torch.randn(4, 3, generator=torch.Generator().manual_seed(counter))
    return (latents,), Draws(0, counter)


def test_what_is_replayed_is_what_would_be_run() -> None:
    run, eager = Repeats(CPU, []), graphs.Eager(CPU)
    for counter in range(8):
        expected = eager("key", computed, *of_counter(counter))
        assert torch.equal(run("key", computed, *of_counter(counter)), expected)
    assert run.captured


def test_an_update_of_each_kind_is_run_some_times_before_it_is_replayed() -> None:
    """And again once what it works on was replaced."""
    run, ran = Repeats(CPU, []), []

    def learn(key: str) -> bool:
        """Whether it was run as it is: not by its capture, nor replayed."""

        def update(drawn: tuple[Tensor, ...], draws: Draws) -> Tensor:
            ran.append(isinstance(draws, graphs._Heard))
            return computed(drawn, draws)

        ran.clear()
        run(key, update, *of_counter(0))
        return any(ran)

    for _ in range(2):
        run.prepare([])
        assert [learn("d") for _ in range(6)] == [True] * graphs.WARM_UP + [False] * 3
        assert [learn("g") for _ in range(6)] == [True] * graphs.WARM_UP + [False] * 3
        assert not learn("d")


def test_a_replay_gives_back_the_gradients_that_the_capture_made() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    inputs, gradient = graphs._Inputs(of_counter(0)[0], CPU), torch.full((2,), 7.0)
    again = Again(lambda drawn, draws: drawn[0].clone(), inputs.memory, 1)
    captured = graphs._Captured(again, inputs, [], again.result, [(weight, gradient)])  # type: ignore[arg-type]
    weight.grad = torch.zeros(2)  # of another update
    captured.replay(*of_counter(1))
    assert weight.grad is gradient


def test_rates_are_tensors_where_updates_are_replayed_and_numbers_where_not() -> None:
    """Whichever of the two a checkpoint comes from."""
    state, _ = make()
    (group,) = state.optimizer_d.param_groups
    Repeats(CPU, []).prepare([state.optimizer_d])
    assert isinstance(group["lr"], Tensor)
    assert group["capturable"]
    graphs.Eager(CPU).prepare([state.optimizer_d])
    assert group["lr"] == pytest.approx(1e-3)
    assert not isinstance(group["lr"], Tensor)
    assert not group["capturable"]


@pytest.mark.parametrize(
    ("of_make", "why"),
    [
        ({}, None),
        ({"optimizer": "adamw", "name": "resnet"}, None),
        ({"optimizer": "sgd"}, "only adam and adamw"),
        ({"optimizer": "rmsprop"}, "only adam and adamw"),
        ({"name": "progressive"}, "the networks grow"),
        ({"name": "stylegan2"}, "draws its own numbers"),
        ({"head": {"dropout": 0.5}}, "Dropout draws its own numbers"),
    ],
)
def test_what_cannot_be_replayed_is_told(of_make: dict[str, Any], why: str | None) -> None:
    state, _ = make(**of_make)
    networks, optimizers = (
        (state.generator, state.discriminator),
        (state.optimizer_d, state.optimizer_g),
    )
    told = graphs.hindrance(torch.device("cuda"), networks, optimizers)
    assert (told is None) if why is None else (why in str(told))
    assert graphs.hindrance(CPU, networks, optimizers) == "they need CUDA"


def test_several_processes_replay_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "size", lambda: 2)
    assert graphs.hindrance(torch.device("cuda"), [], []) == "several processes"


def test_updates_run_as_they_are_where_they_cannot_be_replayed() -> None:
    assert type(graphs.runner(CPU, [], [])) is graphs.Eager
