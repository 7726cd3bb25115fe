"""From params.yaml to the objects of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline import compatibility, parallel
from pipeline.augment import Adaptive, Augment
from pipeline.config import Params
from pipeline.errors import ConfigError, UserError
from pipeline.losses import LOSSES
from pipeline.networks.build import build
from pipeline.networks.warm_start import Start, load_into
from pipeline.regularizers import TERMS, Regularizer, Term, gradient_penalty, r1, r2
from pipeline.training.balance import BALANCES
from pipeline.training.guard import Guard
from pipeline.training.loop import Callback, train
from pipeline.training.optimizers import OPTIMIZERS
from pipeline.training.schedules import SCHEDULES, warmed
from pipeline.training.state import State, average_of
from pipeline.training.tasks import Generate


def generator_config(params: Params, shape: Sequence[int], n_classes: int) -> dict[str, Any]:
    """The generator's constructor arguments, `name` included: what its file must travel with."""
    return {
        "name": params.model.name,
        "shape": list(shape),
        "latent_dim": params.model.latent_dim,
        "n_classes": n_classes,
        "width": params.model.width,
    }


def discriminator_config(params: Params) -> dict[str, Any]:
    """What `build` takes for the discriminator beside the generator's arguments."""
    return {
        "spectral_norm": params.model.spectral_norm,
        "conditioning": params.model.conditioning,
        "minibatch": params.model.minibatch,
        "dropout": params.model.dropout,
        "pack": params.model.pack,
    }


def make_state(
    params: Params, *, shape: Sequence[int], n_classes: int, device: torch.device
) -> State:
    """Networks with weights drawn from the seed, their optimizers and the balance, at step 0."""
    generator, discriminator = build(
        **generator_config(params, shape, n_classes),
        **discriminator_config(params),
        seed=params.seed,
    )
    for module in (generator, discriminator):
        module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = params.train
    average = average_of(generator)
    parallel.normalise_together(generator)
    parallel.normalise_together(discriminator)
    return State(
        generator,
        discriminator,
        average,
        OPTIMIZERS[settings.optimizer_g](
            generator.parameters(), settings.lr_g, settings.betas_g, settings.weight_decay_g
        ),
        OPTIMIZERS[settings.optimizer_d](
            discriminator.parameters(), settings.lr_d, settings.betas_d, settings.weight_decay_d
        ),
        BALANCES[settings.balance](
            d_steps=settings.d_steps,
            g_steps=settings.g_steps,
            d_rate=settings.lr_d / settings.lr_g,
        ),
        Guard(settings.on_collapse, settings.max_rollbacks),
    )


def warm_start(state: State, start: Start) -> None:
    """Put the weights of an earlier training into G, its average and, where kept, D.

    Raises ConfigError where they are of other networks.
    """
    for network in (state.generator, state.ema):
        load_into(network, start.generator, "generator")
    if start.discriminator is not None:
        load_into(state.discriminator, start.discriminator, "discriminator")


def make_task(
    params: Params,
    images: np.ndarray,
    labels: np.ndarray | None,
    device: torch.device,
    held_out: tuple[np.ndarray, np.ndarray | None] | None = None,
) -> Generate:
    """Noise (and class) to sample, on uint8 images (n, H, W, C) or points float32 (n, D).

    `held_out` are images and labels of another split, by which an adaptive balance sees D's gap.
    Raises UserError for a conditional model on data without labels, ConfigError for a batch that
    these processes cannot share.
    """
    shared = parallel.size() * params.model.pack
    if params.train.batch_size % shared:
        raise ConfigError(
            f"train.batch_size is {params.train.batch_size}, which {parallel.size()} processes "
            f"cannot share equally; set it to a multiple of {shared}"
        )
    if params.model.conditional and labels is None:
        raise UserError(compatibility.without_labels(params.data_name))
    return Generate(
        images,
        labels if params.model.conditional else None,
        latent_dim=params.model.latent_dim,
        batch_size=params.train.batch_size,
        seed=params.seed,
        device=device,
        augment=augmentation(params),
        instance_noise=params.train.instance_noise,
        pack=params.model.pack,
        held_out=None
        if held_out is None
        else (held_out[0], held_out[1] if params.model.conditional else None),
    )


def augmentation(params: Params) -> Augment | None:
    """What is done to images before D sees them, if anything."""
    settings = params.train
    if not settings.augment:
        return None
    if settings.augment_p == "ada":
        return Adaptive(settings.augment)
    return Augment(settings.augment, settings.augment_p)


def terms_of(params: Params) -> list[Term]:
    """All that is added to the losses."""
    terms: list[Term] = [TERMS[name](weight) for name, weight in params.loss.terms.items()]
    if params.loss.name == "wgan_gp":
        terms.append(Regularizer(gradient_penalty, params.loss.gp_weight))
    if params.loss.r1_gamma:
        terms.append(Regularizer(r1, params.loss.r1_gamma, params.loss.r1_every, random=None))
    if params.loss.r2_gamma:
        terms.append(Regularizer(r2, params.loss.r2_gamma, params.loss.r1_every, random=None))
    return terms


def run(
    params: Params,
    state: State,
    task: Generate,
    *,
    precision: torch.dtype,
    evaluate: Callable[[nn.Module], dict[str, float]],
    save: Callable[[State], None],
    callbacks: Sequence[Callback] = (),
    asked: Callable[[], bool] = lambda: False,
) -> None:
    """Train `state` to the end of the recipe, or until it is `asked` to end: see `loop.train`."""
    settings = params.train
    warmup = settings.lr_warmup / settings.steps
    decay_d = settings.lr_decay_d or settings.lr_decay
    train(
        state,
        task,
        loss=LOSSES[params.loss.name],
        terms=terms_of(params),
        weight_clip=params.loss.weight_clip if params.loss.name == "wgan" else None,
        steps=settings.steps,
        lr_g=settings.lr_g,
        lr_d=settings.lr_d,
        schedule_g=warmed(SCHEDULES[settings.lr_decay], warmup),
        schedule_d=warmed(SCHEDULES[decay_d], warmup),
        clip_grad=settings.clip_grad or None,
        ema_decay=settings.ema_decay,
        ema_warmup=settings.ema_warmup,
        precision=precision,
        compile=settings.compile,
        cuda_graphs=settings.cuda_graphs,
        log_every=settings.log_every,
        eval_every=settings.eval_every,
        checkpoint_every=settings.checkpoint_every,
        evaluate=evaluate,
        save=save,
        callbacks=callbacks,
        asked=asked,
    )
