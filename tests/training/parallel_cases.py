"""Short trainings of every kind, for one process or several: `torchrun -m ... OUT RESUME_FROM`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from pipeline import parallel
from pipeline.augment import AUGMENTATIONS, Adaptive, Augment
from pipeline.losses import LOSSES
from pipeline.networks import NETWORKS
from pipeline.regularizers import TERMS, Regularizer, gradient_penalty, r1, r2
from pipeline.training import checkpoints
from pipeline.training.balance import BALANCES
from pipeline.training.guard import Guard
from pipeline.training.state import State
from pipeline.training.tasks import Generate

from .test_guard import Figures
from .test_loop import LABELS, make, run, samples_for

STEPS = 6
# Rates at which six steps of plain descent move far more than rounding does.
OF_RUN = {"steps": STEPS, "log_every": 2, "eval_every": 4, "lr_g": 0.02, "lr_d": 0.02}
GENTLE = {"lr_g": 0.002, "lr_d": 0.002}  # where steep losses make more of rounding
# At 0.02 two processes of StyleGAN2 differ from one by up to 1e-3 in float32, by 7e-13 in float64.
OF_STYLES = {"lr_g": 0.005, "lr_d": 0.005}
PLAIN = {"optimizer": "sgd", "conditional": False}
Case = tuple[dict[str, Any], dict[str, Any]]  # arguments of make, and of run


def penalised(*terms: Any) -> dict[str, Any]:
    return {"terms": list(terms)}


# What an entry of a registry needs beside its name.
OF_LOSSES: dict[str, dict[str, Any]] = {
    "wgan_gp": {**GENTLE, **penalised(Regularizer(gradient_penalty, 10))},
}
# Of label_smoothing more is no smoothing: D would be taught that reals are fakes.
WEIGHTS = {"label_smoothing": 0.1}
OF_NETWORKS: dict[str, Case] = {
    "dcgan": ({"conditional": True}, {}),
    "resnet": ({"conditional": True}, GENTLE),
    "stylegan2": ({}, {**OF_STYLES, **penalised(TERMS["path_length"](2.0))}),
}


def of_network(name: str) -> Case:
    of_make, of_run = OF_NETWORKS.get(name, ({}, {}))
    return {**PLAIN, "name": name, **of_make}, of_run


CASES: dict[str, Case] = {
    **{name: (PLAIN, {"loss": loss, **OF_LOSSES.get(name, {})}) for name, loss in LOSSES.items()},
    **{
        name: (PLAIN, penalised(TERMS[name](WEIGHTS.get(name, 1.0))))
        for name in TERMS
        if name != "path_length"  # only StyleGAN2 has a path
    },
    **{name: of_network(name) for name in NETWORKS},
    "augment": ({**PLAIN, "augment": Augment([*AUGMENTATIONS])}, {}),
    "weight_clip": (PLAIN, {"loss": LOSSES["wgan"], "weight_clip": 0.01, **GENTLE}),
    "clip_grad": (PLAIN, {"clip_grad": 0.1}),
    "r1_r2": (PLAIN, penalised(Regularizer(r1, 1.0, 2), Regularizer(r2, 1.0, 3))),
    "ada": ({**PLAIN, "augment": Adaptive(["flip", "rotation"])}, {}),
    "adaptive_balance": ({**PLAIN, "balance": "adaptive"}, GENTLE),
    "instance_noise": ({**PLAIN, "instance_noise": 0.3}, {}),
    "stddev": ({**PLAIN, "head": {"minibatch": "stddev"}}, penalised(Regularizer(r1, 1.0, 2))),
    "discrimination": ({**PLAIN, "head": {"minibatch": "discrimination"}}, {}),
    "dropout": ({**PLAIN, "head": {"dropout": 0.5}}, {}),
    "pack": ({**PLAIN, "pack": 2}, {}),
    "ratios": ({**PLAIN, "d_steps": 2, "g_steps": 2}, {}),
    "auxiliary": ({"optimizer": "sgd", "head": {"conditioning": "auxiliary"}}, {}),
}


def trained(case: str | Case, **changes: Any) -> State:
    """A training of STEPS, which all processes share."""
    of_make, of_run = CASES[case] if isinstance(case, str) else case
    of_make = dict(of_make)
    balance, on_collapse = of_make.pop("balance", None), of_make.pop("on_collapse", None)
    if isinstance(of_make.get("augment"), Adaptive):
        of_make = {**of_make, "augment": Adaptive(["flip", "rotation"])}  # it keeps its own p
    samples = samples_for(of_make.get("name", "dcgan"))
    state, task = make(**of_make, held_out=(samples[:20], LABELS[:20]))
    if balance is not None:
        state.balance = BALANCES[balance](d_steps=1, g_steps=1)
        state.balance.every = 2
    if on_collapse is not None:
        state.guard = Guard(on_collapse, max_rollbacks=2)
        of_run = {**of_run, "evaluate": Figures(state, {3, 4})}
        _poison(task, batch=20)
    parallel.normalise_together(state.generator)
    parallel.normalise_together(state.discriminator)
    folder = changes.pop("restore", None)
    if folder is not None:
        assert checkpoints.restore(state, folder if parallel.rank() == 0 else None)
    return run(state, task, **{**OF_RUN, **of_run, **changes})


def _poison(task: Generate, batch: int) -> None:
    """Let a batch be NaN."""
    inner = task.drawn

    def drawn(counter: int) -> Any:
        (latents, *others), draws = inner(counter)
        return (latents * (float("nan") if counter == batch else 1), *others), draws

    task.drawn = drawn  # type: ignore[method-assign]


def told(state: State) -> dict[str, Any]:
    """What a training leaves, as torch.save writes it."""
    return {
        "history": [
            {key: value for key, value in row.items() if "second" not in key and key != "memory_mb"}
            for row in state.history
        ],
        **{
            name: getattr(state, name).state_dict()
            for name in ("generator", "discriminator", "ema")
        },
        "memory": state.memory,
    }


def main(out: Path, saved: Path) -> None:
    """Every case into `out`; then one from a checkpoint of one process, and one into another."""
    distributed.init_process_group("gloo")
    found = {case: told(trained(case)) for case in CASES}
    found["resumed"] = told(trained("r1_r2", restore=saved))

    def save(state: State) -> None:
        if state.step == 4 and parallel.rank() == 0:
            checkpoints.save(state, out.parent)

    trained("r1_r2", save=save, checkpoint_every=2)
    others = torch.tensor([float(p.sum()) for p in trained("dropout").discriminator.parameters()])
    assert torch.equal(parallel.mean(others), others), "processes differ"
    if parallel.rank() == 0:
        torch.save(found, out)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
