"""Register an evaluated model, put it through the gate, move the aliases, record the decision."""

from __future__ import annotations

import dataclasses
import getpass
import json
import logging
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import compare, evaluation, extractor, inception, paths, scoring
from pipeline.config import Params
from pipeline.datasets import prepared
from pipeline.errors import UserError
from pipeline.evaluated import Evaluated
from pipeline.registry import aliases, fresh, gate, lineage, package
from pipeline.tracking import deliver, evaluations, locks, models
from pipeline.tracking.record import RECORD, RunRecord
from pipeline.training.devices import pick_device

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

DECISION, REPORT = "gate", "gate.report"  # tags of a version; figures are gate.KEY
LEVELS = 2  # of 255, that another processor's samples may differ by
POINTS_APART = 1e-4


@dataclass(frozen=True)
class Outcome:
    """`decision` is None where a version was only marked; `against` is the champion before."""

    name: str
    version: str
    verdict: str  # promoted, refused, forced, challenger, already
    against: str | None
    decision: gate.Decision | None = None
    repaired: str | None = None

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    def to_dict(self) -> dict[str, Any]:
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "decision": self.decision.to_dict() if self.decision else None,
            "uri": self.uri,
        }


def promote(
    params: Params,
    *,
    run: str | None = None,
    version: str | None = None,
    only_mark: bool = False,
    why: str | None = None,
) -> Outcome:
    """Register and judge the evaluation of `run`, a registered `version`, or the workspace's.

    `only_mark` sets the alias challenger and judges nothing; `why` promotes whatever the gate says.
    Raises UserError where there is nothing to promote, or where another promotion was faster.
    """
    name = params.model_name
    client = ready(params)
    with aliases.exclusive(name):
        found = version_named(client, name, version) if version else None
        evaluated = evaluation_run(client, params, run) if found is None else None
        if found is None:
            assert evaluated is not None
            found = register(client, name, evaluated)
        repaired = aliases.repair(client, name)
        number = str(found.version)
        champion = aliases.version_of(client, name, aliases.CHAMPION)
        if only_mark:
            client.set_registered_model_alias(name, aliases.CHALLENGER, number)
            return Outcome(name, number, "challenger", champion, repaired=repaired)
        if champion == number:
            return Outcome(name, number, "already", champion, repaired=repaired)
        decision = judge(client, params, found, champion)
        verdict = "promoted" if decision.passed else "forced" if why else "refused"
        if verdict != "refused":
            aliases.unchanged(client, name, champion)
        _record(client, found, decision, verdict, champion, why)
        if verdict != "refused":
            aliases.move(client, name, champion=number, previous=champion)
        return Outcome(name, number, verdict, champion, decision, repaired)


def rollback(params: Params) -> Outcome:
    """Make `previous` the champion again, and record it on both versions."""
    name = params.model_name
    client = ready(params)
    with aliases.exclusive(name):
        lineage.registered(client, name)
        repaired = aliases.repair(client, name)
        before, now = aliases.go_back(client, name)
        stamp = f"{_now()} by {_who()}"
        client.set_model_version_tag(name, before, "rolled_back", f"{stamp}, to version {now}")
        client.set_model_version_tag(name, now, "restored", f"{stamp}, from version {before}")
        return Outcome(name, now, "restored", before, repaired=repaired)


def ready(params: Params) -> MlflowClient:
    """A client of the store, after a sync."""
    for waiting, reason in deliver.sync().left.items():
        log.warning("%s is not in the store: %s", waiting, reason)
    client, _ = deliver.reach(params.tracking.experiment)
    return client


def evaluation_run(client: MlflowClient, params: Params, name: str | None) -> Run:
    """The run of an evaluation, by any name that `gan compare` takes; None: the workspace's."""
    if name is not None:
        return evaluations.run_of(client, name)
    if not (paths.EVALUATION_REPORT / RECORD).is_file():
        raise UserError(
            "nothing is evaluated here: run dvc repro, or name a run (--run) or a version"
        )
    key = RunRecord.read(paths.EVALUATION_REPORT).key
    return evaluations.run_of(client, key)


def register(client: MlflowClient, name: str, run: Run) -> ModelVersion:
    """The version of this evaluation's model; a new one where there is none.

    Raises UserError where the evaluation has no package.
    """
    from mlflow.exceptions import MlflowException

    key, parent = run.data.tags["eval_key"], run.data.tags["mlflow.parentRunId"]
    model = models.find(client, run.info.experiment_id, parent, key)
    if model is None:
        raise UserError(
            f"{run.info.run_name} has no packaged model in the store: dvc checkout it, "
            "or dvc repro evaluate, then gan sync"
        )
    try:
        client.create_registered_model(
            name, description="Generators of one data set; see the versions' tags."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("eval_key") == key and version.run_id == parent:
            return version
    lock = locks.of_git(run.data.tags.get(locks.METRICS_TAG, ""), run.data.tags.get("dvc_exp_name"))
    if locks.TAG not in run.data.tags and lock is not None:
        locks.attach(client, [run.info.run_id, parent], lock)
    run, training = client.get_run(run.info.run_id), client.get_run(parent)
    made = client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=parent,
        model_id=model.model_id,
        tags=_origin_tags(run, training, model.tags),
        description=f"{run.info.run_name}, {training.data.params.get('model.name', '')}",
    )
    for run_id in (parent, run.info.run_id):
        client.set_tag(run_id, "model_version", f"{name}/{made.version}")
    return made


def version_named(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """Raises UserError where there is no such version."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        raise UserError(f"{name} has no version {version}: {error.message}") from None


def judge(
    client: MlflowClient, params: Params, version: ModelVersion, champion: str | None
) -> gate.Decision:
    """The gate's decision, from samples drawn afresh by both packages."""
    name = str(version.name)
    run = evaluations.run_of(client, f"{evaluations.MODEL}{name}/{version.version}")
    protocol = evaluations.protocol_of(client, run)
    scorer = judge_of(params, protocol)
    reigning = None
    try:
        challenger, problems = _scored(name, str(version.version), protocol, scorer)
    except UserError as error:
        return gate.Decision([gate.Condition("valid", False, str(error))], {})
    if champion is not None:
        try:
            reigning, broken = _scored(name, champion, protocol, scorer)
        except UserError as error:
            text = f"version {champion} cannot be compared with: {error}"
            return gate.Decision([gate.Condition("champion", False, text)], {})
        for line in broken:
            log.warning("the champion, version %s: %s", champion, line)
    margins = gate.Margins(**params.registry.gate.model_dump())
    return gate.decide(
        challenger,
        reigning,
        margins,
        problems=problems,
        n_held_out=len(scorer.data.split("test")),
    )


def judge_of(params: Params, protocol: dict[str, Any]) -> scoring.Judge:
    """The judge of a protocol, from the data and the extractor in this workspace.

    Raises UserError where these are others.
    """
    data = prepared.load()
    config = extractor.load_config()
    inner = protocol["extractor"] != "domain"
    weights = inception.find(params.evaluate.inception_weights) if inner else None
    result = scoring.Judge(
        data=data,
        network=extractor.load(),
        config=config,
        weights=weights,
        settings=evaluation.Settings(
            neighbours=protocol["neighbours"],
            bootstraps=protocol["bootstraps"],
            seed=protocol["seed"],
        ),
        cas=False,
        batch_size=params.evaluate.batch_size,
        device=pick_device(params.train.device),
    )
    here = scoring.protocol(result, extractor=protocol["extractor"], n_fake=protocol["n_fake"])
    fields = compare.differences(protocol, here)
    if fields:
        lines = "\n".join(f"  {key}: {old} there, {new} here" for key, old, new in fields)
        raise UserError(
            "the data or the extractor here are not those that the model was evaluated with:\n"
            f"{lines}\ncheck out its commit and dvc checkout (or dvc repro), then promote again"
        )
    return result


def _scored(
    name: str, version: str, protocol: dict[str, Any], scorer: scoring.Judge
) -> tuple[Evaluated, list[str]]:
    """The figures of a package's fresh samples, and what is wrong with the package.

    Raises UserError where it samples nothing that could be judged.
    """
    n, seed = protocol["n_fake"], protocol["seed"]
    folder = models.fetch(f"models:/{name}/{version}", tag=f"version {version}")
    samples, labels = fresh.sample(folder, n=n, seed=seed)
    shape = scorer.data.shape
    if samples.shape[1:] != shape:
        raise UserError(
            f"version {version} makes samples of shape {samples.shape[1:]}, and the data here have "
            f"{shape}: "
            "give the new data's models a registry.name of their own, or promote with --force"
        )
    problems = package.damage(folder) + differing(folder, samples, n=n, seed=seed)
    scored = scoring.score(samples, labels, scorer, scoring.see(samples, labels, scorer))
    return Evaluated(f"version {version}", scored.metrics, protocol, scored.samples), problems


def differing(folder: Path, samples: np.ndarray, *, n: int, seed: int) -> list[str]:
    """Are these what the evaluation drew? Bit for bit, or on another device nearly."""
    sampled = package.read_config(folder)["sampled"]
    if (sampled["n"], sampled["seed"]) != (n, seed):
        samples, _ = fresh.sample(folder, n=sampled["n"], seed=sampled["seed"])
    if package.samples_hash(samples) == sampled["sha256"]:
        return []
    first = np.load(folder / package.FIRST)
    apart = np.abs(samples[: len(first)].astype(float) - first).max()
    if apart <= (LEVELS if samples.ndim == 4 else POINTS_APART):
        log.info("samples differ from the evaluation's by at most %g: another processor", apart)
        return []
    return [f"its samples are not those of its evaluation: they differ by up to {apart:g}"]


def _origin_tags(run: Run, training: Run, of_model: dict[str, str]) -> dict[str, str]:
    """What leads from a version to all that it came from."""
    tags = {
        "train_key": run.data.tags["train_key"],
        "eval_key": run.data.tags["eval_key"],
        "training_run": training.info.run_id,
        "evaluation_run": run.info.run_id,
        "weights_sha256": of_model["weights_sha256"],
        "git_commit": training.data.tags["git_commit"],
        "git_dirty": training.data.tags["git_dirty"],
    }
    datasets = training.inputs.dataset_inputs if training.inputs else []
    if datasets:
        source = json.loads(datasets[0].dataset.source)
        tags |= {"data": source["name"], "data_digest": source["digest"]}
    for key in ("dvc_exp_name", "tune_study", "tune_trial", locks.TAG):
        found = run.data.tags.get(key) or training.data.tags.get(key)
        if found:
            tags[key] = found
    return tags


def _record(
    client: MlflowClient,
    version: ModelVersion,
    decision: gate.Decision,
    verdict: str,
    champion: str | None,
    why: str | None,
) -> None:
    """The decision, every figure and its interval, as tags of the version."""
    name, number = str(version.name), str(version.version)
    tags = {
        DECISION: verdict,
        "gate.at": _now(),
        "gate.by": _who(),
        "gate.champion": champion or "none",
        REPORT: json.dumps(decision.to_dict()),
    }
    if why:
        tags["gate.why"] = why
    tags |= {
        f"gate.{condition.name}": f"{'passed' if condition.passed else 'FAILED'}: {condition.text}"
        for condition in decision.conditions
    }
    tags |= {f"gate.figure.{key}": _shown(entry) for key, entry in decision.figures.items()}
    if verdict != "refused":
        tags[aliases.REPLACED] = champion or ""
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)


def _shown(entry: dict[str, float | None]) -> str:
    def number(key: str) -> str:
        value = entry[key]
        return "none" if value is None else f"{value:.4g}"

    text = number("value")
    if "low" in entry:
        text += f" ({number('low')} to {number('high')})"
    if "champion" in entry:
        text += f"; champion {number('champion')}"
    if "difference" in entry:
        text += (
            f"; difference {number('difference')} "
            f"({number('difference_low')} to {number('difference_high')})"
        )
    return text


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
