"""Alarm, stop and rollback: what becomes of a training that collapses or diverges."""

import functools
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.losses import LOSSES, Loss
from pipeline.training import checkpoints, culprits, finite
from pipeline.training.balance import BALANCES
from pipeline.training.finite import Diverged, NotFinite
from pipeline.training.guard import Event, Guard, alarm_tags
from pipeline.training.loop import Callback
from pipeline.training.state import State

from .test_loop import IMAGES, LABELS, Killed, make, run

HELD_OUT = (IMAGES[:20], LABELS[:20])
GOOD = {"fd": 1.0, "label_kl": 0.01, "ndb_jsd": 0.1, "selfnn_ratio": 1.0}
BAD = {**GOOD, "label_kl": 2.0}


class Ear(Callback):
    """Remembers what was told, and can pull the plug after a step."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at, self.events = kill_at, []

    def on_event(self, state: State, event: Event) -> None:
        self.events.append((event.step, event.kind))

    def on_step(self, state: State, row: dict[str, float]) -> None:
        if state.step == self.kill_at:
            raise Killed


def guarded(on_collapse: str, balance: str = "fixed", **of_make: Any) -> tuple[State, Any]:
    state, task = make(held_out=HELD_OUT, **of_make)
    state.guard = Guard(on_collapse, max_rollbacks=2)
    state.balance = BALANCES[balance](d_steps=1, g_steps=1)
    state.balance.every = 2 if balance == "adaptive" else None
    return state, task


class Figures:
    """A monitor that sees a collapse at the looks whose number is in `bad`, counted from 1.

    `state` tells the look, so that a resumed training sees the same.
    """

    def __init__(self, state: State, bad: set[int]) -> None:
        self.state, self.bad = state, bad

    def __call__(self, generator: nn.Module) -> dict[str, float]:
        return BAD if self.state.step // 4 in self.bad else GOOD


def train(state: State, task: Any, bad: set[int], **changes: Any) -> State:
    return run(state, task, steps=32, evaluate=Figures(state, bad), **changes)


def weights(state: State) -> list[Tensor]:
    modules = (state.generator, state.discriminator, state.ema)
    return [value.clone() for module in modules for value in module.state_dict().values()]


def test_log_tells_of_a_collapse_once_and_changes_nothing() -> None:
    plain = train(*make(), bad=set())
    ear = Ear()
    state = train(*guarded("log"), bad={4, 5, 6}, callbacks=[ear])
    assert ear.events == [(20, "alarm"), (28, "clear")]
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(state), strict=True))
    told = {row["step"]: row["eval_alarm"] for row in state.history if "eval_alarm" in row}
    assert told == {4: 0, 8: 0, 12: 0, 16: 0, 20: 1, 24: 1, 28: 0, 32: 0}


def test_stop_ends_the_training_at_the_alarm() -> None:
    ear = Ear()
    state = train(*guarded("stop"), bad={4, 5}, callbacks=[ear])
    assert state.step == 20
    assert ear.events == [(20, "alarm"), (20, "stop")]


def test_rollback_returns_to_the_last_healthy_look() -> None:
    kept: dict[int, list[Tensor]] = {}

    class Keep(Callback):
        def on_eval(self, state: State, row: dict[str, float]) -> None:
            kept[state.step] = weights(state)

        def on_event(self, state: State, event: Event) -> None:
            if event.kind == "rollback":
                kept[-1] = weights(state)

    state = train(*guarded("rollback"), bad={4, 5}, callbacks=[Keep()])
    assert all(torch.equal(a, b) for a, b in zip(kept[-1], kept[12], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(kept[-1], kept[20], strict=True))
    assert state.step == 32  # the count goes on: no more than train.steps
    assert state.guard.rollbacks == 1
    rates = {row["step"]: row["lr_d"] + row["lr_g"] for row in state.history}
    assert rates[22] < 0.6 * rates[20]
    assert (state.balance.ratio(), state.balance.halvings) == ((1, 1), 1)  # of equal speeds
    assert state.balance.halvings == 1


def test_the_grid_at_the_alarm_shows_what_collapsed() -> None:
    """The callbacks' look comes before the rollback."""
    order: list[str] = []

    class Order(Callback):
        def on_eval(self, state: State, row: dict[str, float]) -> None:
            order.append(f"look {state.step}")

        def on_event(self, state: State, event: Event) -> None:
            order.append(event.kind)

    train(*guarded("rollback"), bad={4, 5}, callbacks=[Order()])
    assert order[4:7] == ["look 20", "alarm", "rollback"]


def test_rollbacks_are_bounded_and_each_starts_from_the_same_healthy_state() -> None:
    ear = Ear()
    state = train(*guarded("rollback"), bad=set(range(3, 9)), callbacks=[ear])
    rollbacks = [step for step, kind in ear.events if kind == "rollback"]
    assert len(rollbacks) == 2
    assert state.guard.rollbacks == 2
    assert state.balance.halvings == 2
    assert state.step == 32


def test_a_training_without_a_healthy_look_goes_back_to_its_start_and_gets_its_warm_up() -> None:
    start, task = guarded("rollback")
    first = weights(start)
    again: list[list[Tensor]] = []

    class Keep(Callback):
        def on_event(self, state: State, event: Event) -> None:
            if event.kind == "rollback":
                again.append(weights(state))

    ear = Ear()
    train(start, task, set(range(1, 9)), callbacks=[Keep(), ear])
    assert all(torch.equal(a, b) for a, b in zip(first, again[0], strict=True))
    steps = [step for step, kind in ear.events if kind == "rollback"]
    # Two looks after a third of the training. The alarm at step 32, which has had the same time, is
    # at the end: networks that were never trained are no result to go back to.
    assert steps == [16]
    assert ear.events[-1] == (32, "alarm")
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(start), strict=True))


def test_at_the_end_a_rollback_returns_to_a_healthy_look() -> None:
    kept: dict[int, list[Tensor]] = {}

    class Keep(Callback):
        def on_eval(self, state: State, row: dict[str, float]) -> None:
            kept[state.step] = weights(state)

    ear = Ear()
    state = train(*guarded("rollback"), bad={7, 8}, callbacks=[Keep(), ear])
    assert ear.events == [(32, "alarm"), (32, "rollback")]
    assert all(torch.equal(a, b) for a, b in zip(kept[24], weights(state), strict=True))


@pytest.mark.parametrize("kill_at", [18, 22, 26])
@pytest.mark.parametrize("balance", ["fixed", "adaptive"])
def test_a_training_killed_around_a_rollback_resumes_bit_identical(
    tmp_path: Path, balance: str, kill_at: int
) -> None:
    whole_state, task = guarded("rollback", balance)
    whole = train(whole_state, task, {4, 5, 7})
    killed, task = guarded("rollback", balance)

    def save(state: State) -> None:
        checkpoints.save(state, tmp_path)

    with pytest.raises(Killed):
        train(killed, task, {4, 5, 7}, save=save, callbacks=[Ear(kill_at)])
    resumed, task = guarded("rollback", balance)
    assert checkpoints.restore(resumed, tmp_path)
    assert resumed.step == kill_at // 4 * 4
    train(resumed, task, {4, 5, 7}, save=save)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert whole.events == resumed.events
    assert [e["kind"] for e in whole.events].count("rollback") == 1
    if balance == "adaptive":
        assert whole.balance.state_dict() == resumed.balance.state_dict()


def test_a_training_that_was_stopped_stops_again_where_its_result_was_not_written(
    tmp_path: Path,
) -> None:
    """Killed between its last step and the writing of what it made."""

    def save(state: State) -> None:
        checkpoints.save(state, tmp_path)

    stopped, task = guarded("stop")
    train(stopped, task, {4, 5}, save=save)
    resumed, task = guarded("stop")
    assert checkpoints.restore(resumed, tmp_path)
    train(resumed, task, {4, 5}, save=save)
    assert resumed.step == stopped.step == 20
    assert resumed.events == stopped.events
    assert all(torch.equal(a, b) for a, b in zip(weights(stopped), weights(resumed), strict=True))


def poisoned(at: set[int], value: float = float("nan")) -> Loss:
    """D's loss, made `value` at the calls whose number is in `at`, counted from 1."""
    plain, calls = LOSSES["non_saturating"], [0]

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        calls[0] += 1
        total = plain.discriminator(real, fake)
        return total * value if calls[0] in at else total

    return Loss(discriminator, plain.generator)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_never_reaches_a_weight(value: float) -> None:
    state, task = make()
    kept: list[list[Tensor]] = []

    class Keep(Callback):
        def on_step(self, state: State, row: dict[str, float]) -> None:
            kept.append([p.detach().clone() for p in state.discriminator.parameters()])

    with pytest.raises(Diverged, match=r"step 4: NaN or inf.*train\.on_collapse: rollback"):
        run(state, task, steps=12, loss=poisoned({5}, value), log_every=1, callbacks=[Keep()])
    now = list(state.discriminator.parameters())
    assert all(torch.equal(a, b) for a, b in zip(kept[-1], now, strict=True))


@pytest.mark.parametrize("deferred", [False, True])
def test_the_maker_of_nan_is_named(monkeypatch: pytest.MonkeyPatch, deferred: bool) -> None:
    check = finite.Check
    monkeypatch.setattr(finite, "Check", lambda device: check(device, deferred))
    state, task = make(conditional=False)
    name, weight = [
        (name, p) for name, p in state.discriminator.named_parameters() if p.dim() == 4
    ][1]
    with torch.no_grad():
        weight.view(-1)[0] = float("inf")
    with pytest.raises(Diverged) as error:
        run(state, task, steps=12)
    module = name.split(".parametrizations")[0].removesuffix(".weight")
    assert f"first made by discriminator.{module} (Conv2d): its weight" in str(error.value)


def test_the_generator_is_named_where_it_made_nan() -> None:
    state, task = make(conditional=False)
    _, weight = next((n, p) for n, p in state.generator.named_parameters() if p.dim() >= 2)
    with torch.no_grad():
        weight.view(-1)[0] = float("nan")
    with pytest.raises(Diverged, match=r"first made by generator\.\w"):
        run(state, task, steps=12)


@pytest.mark.parametrize("deferred", [False, True])
def test_what_a_batch_poisons_is_named_though_gradients_are_bad_already(
    monkeypatch: pytest.MonkeyPatch, deferred: bool
) -> None:
    """The failed update leaves NaN gradients: the healthy batch before it is not to blame."""
    monkeypatch.setattr(
        finite, "Check", functools.partial(finite.Check, deferred=deferred), raising=True
    )
    state, task = make(conditional=False)
    inner = task.drawn

    def drawn(counter: int) -> Any:
        (latents, *others), draws = inner(counter)
        return ((latents * float("nan") if counter == 4 else latents), *others), draws

    task.drawn = drawn  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=r"first made by generator\.project \(Linear\)"):
        run(state, task, steps=12)


def test_the_search_for_the_maker_of_nan_leaves_nothing_behind() -> None:
    """Nodes kept alive would hold activations, and on CUDA the stream of the search."""

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sqrt()

    network = nn.Sequential(nn.Linear(3, 3), Root())

    def mark() -> dict[str, Any]:
        """Of the node that adds up the weight's gradient, which is a new one if none is alive."""
        return network[0].weight.expand_as(network[0].weight).grad_fn.next_functions[0][0].metadata

    def loss() -> Tensor:
        total = network(torch.ones(2, 3)).sum()
        mark()["seen"] = True
        return total

    culprits.in_losses({"net": network}, [("it learnt", loss)])
    gc.collect()
    assert "seen" not in mark()


def test_a_gradient_that_overflows_is_traced_backward() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sqrt()  # of infinite slope at 0

    network = nn.Sequential(nn.Linear(3, 3), Root())
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.zero_()
    told = culprits.in_losses(
        {"net": network}, [("it learnt", lambda: network(torch.ones(2, 3)).sum())]
    )
    assert told == "the backward pass of net.1 (Root) while it learnt"


def test_nan_is_rolled_back_a_bounded_number_of_times() -> None:
    ear = Ear()
    state = train(*guarded("rollback"), bad=set(), loss=poisoned({7}), callbacks=[ear])
    assert ear.events == [(6, "not_finite"), (6, "rollback")]
    assert state.step == 32
    assert all(weight.isfinite().all() for weight in weights(state))
    ear = Ear()
    with pytest.raises(Diverged, match="after 2 rollbacks"):
        train(*guarded("rollback"), bad=set(), loss=poisoned(set(range(7, 99))), callbacks=[ear])
    assert [kind for _, kind in ear.events].count("rollback") == 2


def test_a_deferred_check_skips_the_update_and_raises_a_round_later() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    check = finite.Check(torch.device("cpu"), deferred=True)

    def update(factor: float) -> None:
        optimizer.zero_grad()
        total = (weight * factor).sum()
        total.backward()
        check.step(optimizer, total)

    update(1.0)
    check.settle()
    before = weight.detach().clone()
    update(float("inf"))
    update(1.0)  # skipped as well: nothing moves after the first
    assert torch.equal(weight, before)
    check.settle()
    with pytest.raises(NotFinite):
        check.settle()
    check.clear()
    update(1.0)
    check.settle(now=True)
    assert not torch.equal(weight, before)


def test_both_ways_of_checking_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = run(*make(), steps=8)
    check = finite.Check
    monkeypatch.setattr(finite, "Check", lambda device: check(device, deferred=True))
    later = run(*make(), steps=8)
    assert all(torch.equal(a, b) for a, b in zip(weights(at_once), weights(later), strict=True))


def test_tags_tell_of_the_last_alarm() -> None:
    events = [
        {"step": 5, "kind": "balance", "text": "moved"},
        {"step": 9, "kind": "alarm", "text": "collapse: x"},
        {"step": 9, "kind": "rollback", "text": "back"},
    ]
    assert alarm_tags(events[:1]) == {}
    assert alarm_tags(events) == {"alarm": "step 9: collapse: x", "rollbacks": "1"}
