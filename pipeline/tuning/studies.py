"""Studies and where they are kept: what a search is made of, under a name that says so."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import (
    BaseStorage,
    JournalStorage,
    RDBStorage,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipeline import config, files, lineage, paths
from pipeline.config import Params
from pipeline.errors import UserError
from pipeline.tuning import ledger
from pipeline.tuning.samplers import PRUNERS, SAMPLERS, Reproducible

log = logging.getLogger(__name__)

# User attributes of a study: its definition, and the limits, which may change while it goes on.
DEFINITION, LIMITS = "definition", "limits"
FINALS = ".finals"  # ends the name of the study in which the best trials run with other seeds
SEED = "seed"  # user attribute of a trial in the finals, as is the number of the trial repeated:
REPEATS = "repeats"

# What decides how a search goes, and how far.
FIXED = ("steps", "space", "metric", "direction", "constraints", "sampler", "pruner", "reports")

LIMITED = ("trials", "finalists", "finalist_seeds")

HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 60


@dataclass(frozen=True)
class Definition:
    """What the trials of a study share, kept in the study so that any worker can join.

    `params` is params.yaml (nested) as it was at the start, `inputs` the files and params that the
    `train` stage would be made of, `dataset` name, digest and source, `git` the state of the code.
    """

    name: str
    params: dict[str, Any]
    inputs: lineage.Inputs
    dataset: dict[str, str]
    git: dict[str, str]

    @property
    def checked(self) -> Params:
        return config.check(self.params)


def define(params: dict[str, Any], dataset: dict[str, str]) -> Definition:
    """The study of these params on what is prepared here. The same make the same name."""
    inputs = lineage.stage_inputs("train", params)
    tune = params["tune"]
    key = files.json_hash({**inputs, "tune": {name: tune[name] for name in (*FIXED, SEED)}})
    git = lineage.git_facts()
    git.pop("git_diff")
    return Definition(f"{dataset['name']}-{key[:8]}", params, inputs, dataset, git)


def storage_url(given: str | None) -> str:
    """`given`, else the journal file of this repository."""
    return given or str(paths.tuning() / "journal.log")


def open_storage(url: str) -> BaseStorage:
    """A database (postgresql://..., mysql://..., sqlite:///...) or a journal file.

    Raises UserError where it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a trial's end is told by `worker`
    if "://" not in url:
        Path(url).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(url))
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are
            return RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=queue_again,
            )
    except ImportError as error:
        raise UserError(
            f"{shown(url)}: its driver is missing ({error}): pip install 'gan-pipeline[postgresql]'"
        ) from None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise UserError(f"{shown(url)} cannot be opened: {reason}") from None


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial that was interrupted once more, from its beginning.

    Optuna's RetryHeartbeatStaleTrialCallback would hand on what it had come to: constraints, which
    are set but once, and the pruner's marks.
    """
    kept = ("fixed_params",)  # that it was queued, not drawn
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={k: v for k, v in trial.user_attrs.items() if k in (SEED, REPEATS)},
            system_attrs={
                **{k: v for k, v in trial.system_attrs.items() if k in kept},
                ledger.HISTORY: [*ledger.history(trial), trial.number],
            },
        )
    )


def shown(url: str) -> str:
    """The storage without its password."""
    if "://" not in url:
        return url
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)


def create(definition: Definition, storage: BaseStorage, *, finals: bool = False) -> optuna.Study:
    """The study, made where there is none; `finals`: the one of the best trials' repetitions."""
    study = optuna.create_study(
        storage=storage,
        study_name=definition.name + (FINALS if finals else ""),
        direction=definition.params["tune"]["direction"],
        load_if_exists=True,
    )
    if DEFINITION not in study.user_attrs:
        study.set_user_attr(DEFINITION, vars(definition))
    tune = definition.params["tune"]
    study.set_user_attr(LIMITS, {name: tune[name] for name in LIMITED})
    return configured(study)


def load(storage: BaseStorage, name: str | None) -> optuna.Study:
    """The study called `name`, else the newest. Raises UserError where there is none."""
    names = [s.study_name for s in optuna.get_all_study_summaries(storage)]
    searches = [n for n in names if not n.endswith(FINALS)]
    if not searches:
        raise UserError("there is no study yet: run gan tune")
    if name is None:
        newest = max(optuna.get_all_study_summaries(storage), key=lambda s: s._study_id)
        name = newest.study_name.removesuffix(FINALS)
    if name not in names:
        raise UserError(f"there is no study {name!r}; there are {', '.join(searches)}")
    return configured(optuna.load_study(study_name=name, storage=storage))


def configured(study: optuna.Study) -> optuna.Study:
    """`study` with the sampler and pruner that its definition asks for."""
    tune = definition_of(study).params["tune"]
    study.sampler = Reproducible(SAMPLERS[tune["sampler"]], tune["seed"])
    pruner = "none" if is_finals(study) else tune["pruner"]
    study.pruner = PRUNERS[pruner](tune["seed"], tune["reports"])
    return study


def is_finals(study: optuna.Study) -> bool:
    """Whether this study repeats the best trials of another."""
    return study.study_name.endswith(FINALS)


def only_queued(study: optuna.Study) -> bool:
    """Whether its trials are only those that were queued: none is drawn."""
    return is_finals(study) or definition_of(study).params["tune"]["sampler"] == "grid"


def budget(study: optuna.Study) -> float:
    """The work of a search, in full trials."""
    return float(study.user_attrs[LIMITS]["trials"])


def definition_of(study: optuna.Study) -> Definition:
    return Definition(**study.user_attrs[DEFINITION])
