"""Moving `champion` and `previous`, which MLflow sets one a call and without compare-and-swap.

A move first writes its intention on the registered model. Whoever comes next and finds one that
nobody works on any more finishes it. Two at once: on one machine a file lock lets one in; on a
shared server each reads its intention again after a moment, and the last one written goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.processes import is_gone, this_process
from pipeline.tracking import store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
INTENTION = "moving"  # the tag of a registered model whose aliases are being moved
REPLACED = "replaced"  # the tag of a version: the champion before it
SETTLE_SECONDS = 1.0  # longer than from one's reading to one's writing
STALE_SECONDS = 600  # an intention this old on another host is nobody's


@dataclass(frozen=True)
class Intention:
    """`champion` and `previous` as they shall be (None: no such alias), and who is at it."""

    champion: str
    previous: str | None
    before: str | None
    process: str
    token: str
    at: float


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Held while a version is judged and moved. Raises UserError where another process holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(store.promotion_lock(name), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another promotion or rollback of {name} is running here, and goes first: "
            "run this again when it has ended"
        ) from None
    try:
        yield
    finally:
        lock.release()


def version_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that an alias names, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def move(client: MlflowClient, name: str, *, champion: str, previous: str | None) -> None:
    """Set `previous`, then `champion`.

    Raises UserError where somebody else moves them now. Call it under `exclusive`, and with the
    present champion still the one that was judged (`unchanged`).
    """
    other = _intention(client, name)
    if other is not None and not _abandoned(other):
        raise UserError(_lost(name, other.champion))
    intention = Intention(
        champion=champion,
        previous=previous,
        before=version_of(client, name, CHAMPION),
        process=this_process(),
        token=uuid.uuid4().hex,
        at=time.time(),
    )
    client.set_registered_model_tag(name, INTENTION, json.dumps(asdict(intention)))
    if not store.is_local():
        time.sleep(SETTLE_SECONDS)
    found = _intention(client, name)
    if found is None or found.token != intention.token:
        raise UserError(_lost(name, found.champion if found else "another version"))
    _carry_out(client, name, intention)


def unchanged(client: MlflowClient, name: str, judged_against: str | None) -> None:
    """Raises UserError where the champion is no longer the one that was judged against."""
    now = version_of(client, name, CHAMPION)
    if now != judged_against:
        raise UserError(_lost(name, now or "no version"))


def repair(client: MlflowClient, name: str) -> str | None:
    """Finish a move that was interrupted; a line on what was done, or None.

    Call it under `exclusive`.
    """
    intention = _intention(client, name)
    if intention is None or not _abandoned(intention):
        return None
    now = version_of(client, name, CHAMPION)
    if now not in (intention.before, intention.champion):
        client.delete_registered_model_tag(name, INTENTION)  # somebody moved on since
        return None
    _carry_out(client, name, intention)
    text = (
        f"a promotion of {name} was interrupted "
        f"({datetime.fromtimestamp(intention.at, UTC):%Y-%m-%d %H:%M} UTC): finished it, "
        f"champion is version {intention.champion}"
    )
    log.warning(text)
    return text


def go_back(client: MlflowClient, name: str) -> tuple[str, str]:
    """Make `previous` the champion. Returns the version that was champion, and that which is.

    `previous` becomes the version that this one once replaced, so that one can go back further.
    Raises UserError where there is nothing to go back to.
    """
    champion = version_of(client, name, CHAMPION)
    previous = version_of(client, name, PREVIOUS)
    if champion is None or previous is None:
        what = "has no champion" if champion is None else "has had one champion only"
        raise UserError(f"{name} {what}: there is nothing to go back to")
    tags = client.get_model_version(name, previous).tags
    move(client, name, champion=previous, previous=tags.get(REPLACED) or None)
    return champion, previous


def _carry_out(client: MlflowClient, name: str, intention: Intention) -> None:
    if intention.previous is not None:
        client.set_registered_model_alias(name, PREVIOUS, intention.previous)
    elif version_of(client, name, PREVIOUS) is not None:
        client.delete_registered_model_alias(name, PREVIOUS)
    client.set_registered_model_alias(name, CHAMPION, intention.champion)
    if version_of(client, name, CHALLENGER) == intention.champion:
        client.delete_registered_model_alias(name, CHALLENGER)
    client.delete_registered_model_tag(name, INTENTION)


def _intention(client: MlflowClient, name: str) -> Intention | None:
    text = client.get_registered_model(name).tags.get(INTENTION)
    return Intention(**json.loads(text)) if text else None


def _abandoned(intention: Intention) -> bool:
    return is_gone(intention.process) or time.time() - intention.at > STALE_SECONDS


def _lost(name: str, version: str) -> str:
    return (
        f"meanwhile another promotion made version {version} of {name} the champion: "
        "run this again, to be judged against it"
    )
