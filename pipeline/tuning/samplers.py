"""Optuna's samplers and pruners by name."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from pipeline.tuning import ledger

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "grid": lambda seed: RandomSampler(seed=seed),  # its trials are queued, none is drawn
}


class Hyperband(HyperbandPruner):
    """Hyperband whose brackets follow from the seed and a trial's place.

    Optuna's follow from the study's name as well, which here is another one after every commit: the
    same seed would end other trials early.
    """

    def __init__(self, seed: int, reports: int) -> None:
        super().__init__(min_resource=1, max_resource=reports)
        self._seed = seed

    def _get_bracket_id(self, study: Study, trial: FrozenTrial) -> int:
        named: Any = SimpleNamespace(study_name=f"seed {self._seed}")
        placed: Any = SimpleNamespace(number=_place(study, trial))
        return super()._get_bracket_id(named, placed)


def _place(study: Study, trial: FrozenTrial) -> int:
    """The trial's number, where interrupted ones are not counted."""
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    return trial.number - sum(number < trial.number for number in ledger.interrupted(trials))


# By the seed and the number of reports of a full trial.
PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {
    "none": lambda seed, reports: NopPruner(),
    "hyperband": Hyperband,
    "successive_halving": lambda seed, reports: SuccessiveHalvingPruner(min_resource=1),
    "median": lambda seed, reports: MedianPruner(n_warmup_steps=max(1, reports // 3)),
}


class Reproducible(BaseSampler):
    """Draws the i-th trial as a function of the seed, i and the trials before it.

    Interrupted ones do not count in i, so that a study that was stopped goes on as it would have
    done, whichever process continues it.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = np.random.SeedSequence([self._seed, _place(study, trial)]).generate_state(1)[0]
        self._sampler = self._make(int(seed))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        self._sampler.after_trial(study, trial, state, values)
