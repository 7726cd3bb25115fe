"""What D and G minimise: the adversarial loss, and all that a recipe adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.losses import Loss
from pipeline.regularizers import FeatureTerm, GeneratorTerm, LogitTerm, Regularizer, Term
from pipeline.training.state import State
from pipeline.training.tasks import Task


class Objective:
    """The losses of one training.

    `fast_g` and `fast_d` are the networks of `state` as they are called where nothing takes a
    gradient of a gradient. `precision` is that of autocast; float32: none.
    """

    def __init__(
        self,
        state: State,
        task: Task,
        loss: Loss,
        terms: Sequence[Term],
        *,
        fast_g: nn.Module,
        fast_d: nn.Module,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.state, self.task, self.loss = state, task, loss
        self.fast_g, self.fast_d = fast_g, fast_d
        self.autocast = torch.autocast(
            device.type, dtype=precision, enabled=precision != torch.float32
        )
        self.regularizers = tuple(term for term in terms if isinstance(term, Regularizer))
        self.logit_terms = [term for term in terms if isinstance(term, LogitTerm)]
        self.feature_terms = [term for term in terms if isinstance(term, FeatureTerm)]
        self.generator_terms = tuple(term for term in terms if isinstance(term, GeneratorTerm))

    def fake(self, batch: Any) -> Tensor:
        """What G makes of a batch."""
        with self.autocast:
            return self.task.fake(self.fast_g, batch)

    def discriminator_loss(
        self, batch: Any, fake: Tensor, due: Sequence[Regularizer]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """D's loss, of the regularizers those that are `due`; its logits of reals and fakes."""
        task, real = self.task, self.task.real(batch)
        with self.autocast, parametrize.cached():  # spectral normalisation once for both
            of_real = task.judge(self.fast_d, real, batch)
            of_fake = task.judge(self.fast_d, fake, batch)
        real_logits, fake_logits = of_real.logits.float(), of_fake.logits.float()
        total = self.loss.discriminator(real_logits, fake_logits)
        for term in self.logit_terms:
            penalty = term.penalty(real_logits, fake_logits, self.state.memory)
            total = total + term.weight * penalty
        for regularizer in due:
            shape = None if regularizer.random is None else regularizer.random(real)
            mix = real.new_empty(0) if shape is None else task.uniform(batch, shape)
            # In float32: a gradient of a gradient loses too much in half the bits.
            penalty = regularizer.penalty(
                lambda images: task.judge(self.state.discriminator, images, batch).logits,
                real,
                fake.float(),
                mix,
            )
            total = total + regularizer.weight * regularizer.every * penalty
        extra = task.discriminator_terms(of_real, of_fake, batch)
        return (total if extra is None else total + extra), real_logits, fake_logits

    def generator_loss(self, batch: Any, fake: Tensor, due: Sequence[GeneratorTerm]) -> Tensor:
        """G's loss, of the terms of G itself those that are `due`."""
        task = self.task
        with self.autocast:
            of_fake = task.judge(self.fast_d, fake, batch)
            of_real = None
            if self.loss.relativistic or self.feature_terms:
                with torch.no_grad():
                    of_real = task.judge(self.fast_d, task.real(batch), batch)
        real_logits = None if of_real is None else of_real.logits.float()
        total = self.loss.generator(of_fake.logits.float(), real_logits)
        for term in self.feature_terms:
            assert of_real is not None
            matched = term.penalty(of_real.features.float(), of_fake.features.float())
            total = total + term.weight * matched
        for lazy in due:
            penalty = task.penalise(lazy, self.state.generator, batch, self.state.memory)
            total = total + lazy.weight * lazy.every * penalty
        extra = task.generator_terms(fake, of_fake, batch)
        return total if extra is None else total + extra
