"""The balance of D and G: bounds, directions, signals."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import load_params
from pipeline.training import balance
from pipeline.training.balance import BALANCES, MOST_HANDICAP, Adaptive, Fixed
from pipeline.training.loop import Callback
from pipeline.training.recipe import make_state
from pipeline.training.state import State

from .test_loop import IMAGES, LABELS, make, run


@pytest.mark.parametrize("d_steps", [1, 2, 5, 8])
@pytest.mark.parametrize("g_steps", [1, 2, 6])
@pytest.mark.parametrize("policy", BALANCES)
def test_ratio_and_rates_are_the_given_ones_until_something_moves(
    policy: str, d_steps: int, g_steps: int
) -> None:
    untouched = BALANCES[policy](d_steps=d_steps, g_steps=g_steps)
    assert untouched.ratio() == (d_steps, g_steps)
    assert untouched.rates() == (1.0, 1.0)


@pytest.mark.parametrize("given", [(1, 1), (5, 1), (1, 4), (3, 2)])
def test_moves_are_monotone_and_bounded(given: tuple[int, int]) -> None:
    seen = []
    for handicap in range(-MOST_HANDICAP, MOST_HANDICAP + 1):
        moved = Fixed(d_steps=given[0], g_steps=given[1])
        moved.handicap = handicap
        d_steps, g_steps = moved.ratio()
        rate_g, rate_d = moved.rates()
        assert 1 <= d_steps <= max(5, given[0])
        assert 1 <= g_steps <= max(4, given[1])
        assert 1 / 4.01 <= rate_g <= 16.01
        assert 1 / 64 <= rate_d <= 64
        seen.append((d_steps / g_steps, rate_d, -rate_g))
    for before, after in itertools.pairwise(seen):
        assert all(a <= b or math.isclose(a, b) for a, b in zip(after, before, strict=True))


def test_a_strong_d_is_held_back_and_a_weak_one_helped() -> None:
    strong, weak, fair, learnt = (Adaptive(d_steps=1, g_steps=1) for _ in range(4))
    for _ in range(100):
        assert "accuracy 1.00" in (strong.adapt(1.0, 0.0) or "accuracy 1.00")
        weak.adapt(0.4, 0.0)
        assert fair.adapt(0.8, 0.1) is None
        assert fair.adapt(0.5, 0.1) is None  # the end of a good training
        assert fair.adapt(0.6, 0.9) is None  # a share of next to nothing is noise
        learnt.adapt(0.8, 0.9)  # by heart
    assert strong.handicap == learnt.handicap == MOST_HANDICAP
    assert weak.handicap == -MOST_HANDICAP
    assert fair.handicap == 0
    assert strong.adapt(1.0, 0.0) is None  # at the bound nothing changes, and nothing is told


@pytest.mark.parametrize("policy", BALANCES)
@pytest.mark.parametrize(("d_steps", "d_rate"), [(5, 100.0), (5, 10.0), (1, 1e-3), (1, 1 / 200)])
def test_a_rollback_gives_d_and_g_about_the_same_speed(
    policy: str, d_steps: int, d_rate: float
) -> None:
    tempered = BALANCES[policy](d_steps=d_steps, g_steps=1, d_rate=d_rate)
    lead = tempered.lead()
    tempered.temper(diverged=False)
    rate_g, rate_d = tempered.rates()
    assert abs(tempered.lead()) < 3 < abs(lead)
    assert (rate_d < 1 < rate_g) if lead > 0 else (rate_g < 1 < rate_d)


def test_a_rollback_halves_both_rates_where_the_speeds_are_about_the_same() -> None:
    tempered = Fixed(d_steps=2, g_steps=1)
    for times in (1, 2):
        tempered.temper(diverged=False)
        assert tempered.ratio() == (2, 1)
        assert tempered.rates() == (0.5**times, 0.5**times)


def test_a_second_rollback_never_repeats_the_first() -> None:
    tempered = Fixed(d_steps=1, g_steps=1, d_rate=2.0**-20)
    seen = {(tempered.ratio(), tempered.rates())}
    for times in (2, 3, 4):
        tempered.temper(diverged=False)
        seen.add((tempered.ratio(), tempered.rates()))
        assert len(seen) == times


def test_a_rollback_after_nan_lowers_the_faster_rate_most() -> None:
    tempered = Fixed(d_steps=1, g_steps=1, d_rate=64.0)
    tempered.temper(diverged=True)
    rate_g, rate_d = tempered.rates()
    assert rate_d < 0.5 < rate_g
    assert tempered.halvings == 1


def test_signals_are_what_they_say() -> None:
    memory: dict[str, torch.Tensor] = {}
    assert balance.heard(memory) == (0.5, 0.0)
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([3.0, -1.0])
    for _ in range(3):
        balance.hear(memory, real, fake)
    assert balance.heard(memory) == (0.5, 0.0)  # one pair of two; no held-out reals
    balance.hear_held_out(memory, torch.tensor([2.0]))
    assert balance.heard(memory)[1] == pytest.approx((3 - 2) / (3 - 1))
    for _ in range(200):
        balance.hear(memory, fake, real)
    accuracy, gap = balance.heard(memory)
    assert accuracy == pytest.approx(0.5, abs=1e-3)
    assert gap == 0.0  # D ranks fakes above reals: a share of that says nothing


def adaptive(**changes: Any) -> tuple[State, Any]:
    state, task = make(held_out=(IMAGES[:20], LABELS[:20]), **changes)
    state.balance = Adaptive(d_steps=1, g_steps=1)
    state.balance.every = 4
    return state, task


def test_every_move_is_told_and_in_the_history() -> None:
    moves: list[int] = []

    class Ear(Callback):
        def on_event(self, state: State, event: Any) -> None:
            assert event.kind == "balance"
            moves.append(event.step)

    state, task = adaptive()
    assert task.images is not None
    task.images.fill_(250)  # plain to tell from what G makes
    run(state, task, steps=40, lr_d=5e-3, lr_g=1e-6, log_every=4, callbacks=[Ear()])
    assert state.balance.handicap > 0
    assert moves
    handicaps = [row["d_handicap"] for row in state.history]
    changed = [
        row["step"]
        for row, before in zip(state.history, [0, *handicaps], strict=False)
        if row["d_handicap"] != before
    ]
    assert changed == moves
    assert [event["step"] for event in state.events] == moves


def test_what_is_logged_changes_no_adaptive_number() -> None:
    ends = []
    for log_every in (1, 7):
        state, task = adaptive()
        run(state, task, steps=24, log_every=log_every, lr_d=5e-3)
        ends.append([p.detach().numpy() for p in state.generator.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))


def test_held_out_reals_are_never_shown_for_training() -> None:
    _, task = make(held_out=(IMAGES[:20] // 2, LABELS[:20]))
    batch = task.held_out(3)
    assert batch is not None
    assert batch.images.shape == (8, 1, 28, 28)
    assert float(batch.images.max()) <= 0
    assert batch.labels is not None
    assert make()[1].held_out(0) is None


def test_a_trainings_balance_knows_how_much_faster_d_is_set() -> None:
    """A rollback evens the speeds, which it could not without the rates."""
    params = load_params()
    given = {"lr_g": 1e-4, "lr_d": 1e-2, "d_steps": 5}
    params = params.model_copy(update={"train": params.train.model_copy(update=given)})
    state = make_state(params, shape=(28, 28, 1), n_classes=10, device=torch.device("cpu"))
    before = state.balance.lead()
    state.balance.temper(diverged=False)
    assert before == pytest.approx(math.log2(500))
    assert state.balance.lead() < before / 2
