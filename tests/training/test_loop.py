"""The training loop on tiny networks: resume, ratios, clipping, stopping, history."""

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from pipeline.augment import Adaptive, Augment
from pipeline.compatibility import IMAGE_NETWORKS, OWN_SCALING, POINT_NETWORKS
from pipeline.losses import LOSSES
from pipeline.networks.build import build
from pipeline.regularizers import TERMS, FeatureTerm, Regularizer, gradient_penalty, r1
from pipeline.training import checkpoints, loop, tasks
from pipeline.training.balance import Fixed
from pipeline.training.loop import Callback, train
from pipeline.training.optimizers import OPTIMIZERS
from pipeline.training.schedules import SCHEDULES, warmed
from pipeline.training.state import Average, State, average_of, weights_of
from pipeline.training.tasks import Generate, ReadAhead

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 28, 28, 1), dtype=np.uint8)
LABELS = RNG.integers(0, 3, 50)
POINTS = RNG.normal(size=(50, 2)).astype(np.float32)


def samples_for(name: str) -> np.ndarray:
    """What networks of that name are trained on."""
    return POINTS if name in POINT_NETWORKS else IMAGES


def make(
    *,
    conditional: bool = True,
    d_steps: int = 1,
    g_steps: int = 1,
    name: str = "dcgan",
    pack: int = 1,
    head: dict[str, Any] | None = None,
    spectral_norm: bool = True,
    optimizer: str = "adam",
    betas: tuple[float, float] = (0.0, 0.9),
    device: str = "cpu",
    **of_task: Any,
) -> tuple[State, Generate]:
    n_classes = 3 if conditional else 0
    samples = samples_for(name)
    generator, discriminator = build(
        name,
        shape=samples.shape[1:],
        latent_dim=4,
        n_classes=n_classes,
        width=4,
        spectral_norm=spectral_norm and name not in OWN_SCALING,
        seed=0,
        pack=pack,
        **(head or {}),
    )
    for module in (generator, discriminator):
        module.to(device)
    optimizers = [
        OPTIMIZERS[optimizer](module.parameters(), 1e-3, [*betas], 0.0)
        for module in (generator, discriminator)
    ]
    state = State(
        generator,
        discriminator,
        average_of(generator),
        *optimizers,
        Fixed(d_steps=d_steps, g_steps=g_steps),
    )
    task = Generate(
        samples,
        LABELS if conditional else None,
        latent_dim=4,
        batch_size=8,
        seed=0,
        device=torch.device(device),
        pack=pack,
        **of_task,
    )
    return state, task


def run(state: State, task: Generate, steps: int, **changes: Any) -> State:
    arguments: dict[str, Any] = {
        "loss": LOSSES["non_saturating"],
        "terms": [],
        "weight_clip": None,
        "lr_g": 1e-3,
        "lr_d": 1e-3,
        "schedule_g": SCHEDULES["cosine"],
        "schedule_d": SCHEDULES["cosine"],
        "clip_grad": None,
        "ema_warmup": 10.0,
        "ema_decay": 0.9,
        "precision": torch.float32,
        "compile": False,
        "cuda_graphs": False,
        "log_every": 2,
        "eval_every": 4,
        "checkpoint_every": 4,
        "evaluate": lambda generator: {"fd": float(sum(p.sum() for p in generator.parameters()))},
        "save": lambda state: None,
    }
    if "schedule" in changes:
        changes["schedule_g"] = changes["schedule_d"] = changes.pop("schedule")
    train(state, task, steps=steps, **{**arguments, **changes})
    return state


class Killed(Exception):
    pass


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the images on the device: they are read batch by batch."""
    monkeypatch.setattr(tasks, "RESIDENT_BYTES", 0)


@pytest.mark.usefixtures("on_disk")
def test_images_read_from_disk_give_the_same_bits(tmp_path: Path) -> None:
    state, task = make(d_steps=2)
    assert task.images is None
    read = run(state, task, steps=5)
    with pytest.MonkeyPatch.context() as roomy:
        roomy.setattr(tasks, "RESIDENT_BYTES", 2**30)
        resident = run(*make(d_steps=2), steps=5)
    ours, theirs = read.discriminator.state_dict(), resident.discriminator.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert_resumes(tmp_path, {"d_steps": 2}, {})


def test_batches_are_read_ahead_and_any_can_be_asked_for() -> None:
    asked = []
    ahead = ReadAhead(lambda counter: asked.append(counter) or torch.tensor(counter))
    assert [int(ahead(counter)) for counter in (3, 4, 4, 9)] == [3, 4, 4, 9]
    ahead.reader.shutdown()
    assert sorted(asked) == [3, 4, 4, 5, 5, 9, 10]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_resumed_training_is_bit_identical(tmp_path: Path, loss: str, precision: Any) -> None:
    changes: dict[str, Any] = {
        "loss": LOSSES[loss],
        "precision": precision,
        "weight_clip": 0.01 if loss == "wgan" else None,
        "terms": [Regularizer(gradient_penalty, 10.0)] if loss == "wgan_gp" else [],
    }
    assert_resumes(tmp_path, {}, changes)


@pytest.mark.parametrize("d_steps", [1, 2])
def test_a_resumed_training_sees_the_same_augmentations(tmp_path: Path, d_steps: int) -> None:
    augment = Augment(["translation", "cutout", "colour"])
    changes: dict[str, Any] = {"terms": [Regularizer(r1, 1.0, every=3)]}
    assert_resumes(tmp_path, {"augment": augment, "d_steps": d_steps}, changes)


PLAIN_TERMS = sorted(set(TERMS) - {"path_length"})


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd", "adamw"])
def test_everything_at_once_resumes_bit_identical(tmp_path: Path, optimizer: str) -> None:
    of_make = {
        "augment": Adaptive(["flip", "cutout"]),
        "instance_noise": 0.1,
        "head": {"conditioning": "auxiliary", "minibatch": "stddev", "dropout": 0.3},
        "optimizer": optimizer,
    }
    changes: dict[str, Any] = {
        "terms": [TERMS[name](0.1) for name in PLAIN_TERMS],
        "clip_grad": 1.0,
        "schedule_g": warmed(SCHEDULES["late"], 0.5),
    }
    assert_resumes(tmp_path, of_make, changes)


@pytest.mark.parametrize("name", ["stylegan2", "progressive"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_networks_that_draw_or_grow_resume_bit_identical(
    tmp_path: Path, name: str, precision: Any
) -> None:
    terms = [Regularizer(r1, 1.0, every=4)]
    if name == "stylegan2":
        terms.append(TERMS["path_length"](2.0))
    assert_resumes(tmp_path, {"name": name}, {"terms": terms, "precision": precision})


@pytest.mark.parametrize("name", PLAIN_TERMS)
def test_every_term_moves_the_player_it_is_for(name: str) -> None:
    before, after = run(*make(), steps=3), run(*make(), steps=3, terms=[TERMS[name](1.0)])
    player = "generator" if isinstance(TERMS[name](1.0), FeatureTerm) else "discriminator"
    ours, theirs = (getattr(state, player).state_dict() for state in (before, after))
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)


def test_packs_are_judged_together() -> None:
    state, task = make(conditional=False, pack=4)
    verdict = task.judge(state.discriminator, task.batch_at(0).images, task.batch_at(0))
    assert verdict.logits.shape == (2,)
    assert run(state, task, steps=3).step == 3


def test_adaptive_augmentation_follows_how_sure_d_is() -> None:
    state, task = make(augment=Adaptive(["flip"]))
    task.begin(state, 0.0)
    for _ in range(5):
        task.judged(torch.ones(8))
    raised = float(state.memory["augment_p"])
    assert raised == pytest.approx(5 * 8 / 100_000)
    task.judged(torch.tensor([1.0, -1.0]))
    assert float(state.memory["augment_p"]) < raised


def test_instance_noise_falls_to_zero() -> None:
    state, task = make(instance_noise=0.5)
    task.begin(state, 0.75)
    assert task.noise == pytest.approx(0.125)


def test_gradients_are_clipped_to_the_norm() -> None:
    state = run(*make(), steps=2, clip_grad=1e-3)
    assert state.history[-1]["grad_norm_d"] <= 1.01e-3
    assert state.history[-1]["grad_norm_g"] <= 1.01e-3


def assert_resumes(tmp_path: Path, of_make: dict[str, Any], changes: dict[str, Any]) -> None:
    """Killed after step 10 and continued from step 8, a training of 12 steps ends the same."""
    whole = run(*make(**of_make), steps=12, **changes)

    class Kill(Callback):
        def on_step(self, state: State, row: dict[str, float]) -> None:
            if state.step == 10:
                raise Killed

    killed, task = make(**of_make)
    changes["save"] = lambda state: checkpoints.save(state, tmp_path)
    with pytest.raises(Killed):
        run(killed, task, steps=12, callbacks=[Kill()], **changes)
    resumed, task = make(**of_make)
    assert checkpoints.restore(resumed, tmp_path)
    assert resumed.step == 8
    run(resumed, task, steps=12, **changes)

    for name in ("generator", "discriminator", "ema"):
        before, after = getattr(whole, name).state_dict(), getattr(resumed, name).state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    assert whole.best_step == resumed.best_step
    ours = [
        {k: v for k, v in row.items() if "second" not in k and k != "memory_mb"}
        for row in whole.history
    ]
    theirs = [
        {k: v for k, v in row.items() if "second" not in k and k != "memory_mb"}
        for row in resumed.history
    ]
    assert ours == theirs


def plain_losses(steps: int) -> list[float]:
    """The losses of D and G of `steps` updates, written out with nothing but the essentials."""
    state, task = make()
    g, d = state.generator.train(), state.discriminator.train()
    losses = []
    for step in range(steps):
        batch = task.batch_at(step)
        fake = g(batch.latents, batch.labels)
        with parametrize.cached():
            logits = [d(x, batch.labels).logits for x in (batch.images, fake.detach())]
        loss_d = F.softplus(-logits[0]).mean() + F.softplus(logits[1]).mean()
        state.optimizer_d.zero_grad()
        loss_d.backward()
        state.optimizer_d.step()
        loss_g = F.softplus(-d(fake, batch.labels).logits).mean()
        state.optimizer_g.zero_grad()
        loss_g.backward()
        state.optimizer_g.step()
        losses += [loss_d.item(), loss_g.item()]
    return losses


def test_the_loop_adds_nothing_where_nothing_is_asked_for() -> None:
    """What the loop can do besides must not move a bit of a plain training's losses."""
    state = run(*make(), steps=8, schedule=SCHEDULES["none"], log_every=1)
    seen = [row[name] for row in state.history for name in ("loss_d", "loss_g")]
    assert seen == plain_losses(8)


def test_ratios_are_kept_and_steps_count_generator_updates() -> None:
    state = run(*make(d_steps=3), steps=6)
    assert (state.step, state.d_updates, state.batches) == (6, 18, 18)
    state = run(*make(g_steps=2), steps=6)
    assert (state.step, state.d_updates, state.batches) == (6, 3, 6)


def test_odd_ratios_end_at_the_last_step() -> None:
    state = run(*make(g_steps=4), steps=6)
    assert state.step == 6
    assert state.history[-1]["step"] == 6


def test_intervals_that_do_not_divide_each_other_lose_no_checkpoint() -> None:
    saved = []
    run(
        *make(),
        steps=12,
        log_every=3,
        eval_every=12,
        checkpoint_every=4,
        save=lambda s: saved.append(s.step),
    )
    assert saved == [6, 9]  # at the first row after every fourth step; 12 is the end


def test_a_slow_training_is_saved_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    saved = []
    changes = {
        "log_every": 3,
        "eval_every": 12,
        "checkpoint_every": 99,
        "save": lambda s: saved.append(s.step),
    }
    run(*make(), steps=12, **changes)
    assert saved == [3, 6, 9]


@pytest.mark.parametrize("at", [2, 4])
def test_a_training_that_is_asked_to_end_saves_at_the_next_row(at: int) -> None:
    state, task = make()
    saved = []
    changes: dict[str, Any] = {
        "log_every": 3,
        "eval_every": 6,
        "checkpoint_every": 99,
        "save": lambda s: saved.append((s.step, len(s.history))),
        "asked": lambda: state.step >= at,
    }
    with pytest.raises(KeyboardInterrupt):
        run(state, task, steps=12, **changes)
    row = {2: 1, 4: 2}[at]
    assert saved == [(3 * row, row)]


def test_one_that_is_asked_to_end_at_its_end_ends_as_it_would() -> None:
    state, task = make()
    ended = run(state, task, steps=12, log_every=3, asked=lambda: state.step >= 12)
    assert ended.step == 12


def test_evaluations_come_at_their_own_interval_whatever_the_curves() -> None:
    seen = []
    for log_every in (1, 5, 7):
        state = run(*make(), steps=12, log_every=log_every, eval_every=4)
        seen.append(([row["step"] for row in state.history if "eval_fd" in row], state.best_score))
    assert seen[0][0] == [4, 8, 12]
    assert seen[0] == seen[1] == seen[2]


def test_weight_clipping_bounds_every_weight_of_d() -> None:
    state = run(*make(), steps=3, weight_clip=0.01, loss=LOSSES["wgan"])
    bound = max(float(p.detach().abs().max()) for p in state.discriminator.parameters())
    assert bound <= 0.01


def test_lazy_regularizers_act_at_their_interval() -> None:
    calls = []

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return r1(*arguments)

    run(*make(), steps=8, terms=[Regularizer(counted, 1.0, every=4)])
    assert len(calls) == 2


def test_a_callback_can_stop_the_training() -> None:
    class Stop(Callback):
        ended = False

        def on_eval(self, state: State, row: dict[str, float]) -> bool:
            return True

        def on_end(self, state: State) -> None:
            self.ended = True

    stop = Stop()
    state = run(*make(), steps=12, callbacks=[stop])
    assert state.step == 4
    assert stop.ended


def test_the_best_checkpoint_is_that_of_the_lowest_distance() -> None:
    scores = iter([3.0, 1.0, 2.0])
    kept = []

    def evaluate(generator: nn.Module) -> dict[str, float]:
        kept.append(weights_of(generator))
        return {"fd": next(scores)}

    state = run(*make(), steps=12, evaluate=evaluate)
    assert (state.best_step, state.best_score) == (8, 1.0)
    assert state.best_weights is not None
    assert all(torch.equal(state.best_weights[key], kept[1][key]) for key in kept[1])


def test_history_rows_hold_the_curves() -> None:
    state = run(*make(), steps=4)
    assert [row["step"] for row in state.history] == [2, 4]
    assert state.history[1]["images"] == 32
    assert "eval_fd" in state.history[1]
    assert "eval_fd" not in state.history[0]
    for column in ("loss_g", "loss_d", "d_real", "d_fake", "grad_norm_g", "lr_d", "memory_mb"):
        assert np.isfinite(state.history[0][column])
    assert 0 <= state.history[0]["d_acc_real"] <= 1


def test_rates_follow_the_schedule() -> None:
    state = run(*make(), steps=10, schedule=SCHEDULES["linear"], lr_g=1e-2, log_every=1)
    rates = [row["lr_g"] for row in state.history]
    assert rates == pytest.approx([1e-2 * (1 - i / 10) for i in range(10)])


def test_average_moves_by_its_decay() -> None:
    generator = nn.Linear(2, 2)
    ema = average_of(generator)
    before = copy.deepcopy(ema.weight.data)
    with torch.no_grad():
        generator.weight += 1
    Average(ema, generator).update(0.75)
    torch.testing.assert_close(ema.weight, before + 0.25)


@pytest.mark.usefixtures("on_disk")
def test_what_read_images_is_gone_with_its_task() -> None:
    """A search makes many: their images would lie beside each other on the device."""
    state, task = make()
    run(state, task, steps=2)
    gone = weakref.ref(task)
    gc.disable()
    try:
        del state, task
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_discriminator_learns_to_tell_a_plain_difference(name: str) -> None:
    """D sees bright images, G makes others: its loss falls well below chance."""
    state, task = make(name=name, conditional=False)
    assert task.images is not None
    task.images.fill_(250)
    run(state, task, steps=40, lr_d=5e-3, lr_g=1e-6, schedule=SCHEDULES["none"])
    assert state.history[-1]["loss_d"] < 0.5 * state.history[0]["loss_d"]
