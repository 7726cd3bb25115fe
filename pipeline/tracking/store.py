"""Where the MLflow store is, and making it once."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline import paths
from pipeline.errors import UserError
from pipeline.tracking import views

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"
LOCK_SECONDS = 600

# MLflow waits minutes for a server that is away. Its runs are kept and delivered later, so seconds
# are enough: two attempts of eight seconds where packets vanish, two seconds where none listens.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def uri() -> str:
    """MLFLOW_TRACKING_URI where it is set, else SQLite in the repository's root.

    A relative SQLite path counts from that root: a temporary copy of the repository vanishes.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if not given.startswith(SQLITE):
        return given
    return f"{SQLITE}{paths.shared_root() / given.removeprefix(SQLITE)}"


def shown_uri() -> str:
    """`uri()` without a password."""
    parts = urlsplit(uri())
    if not parts.password:
        return uri()
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def lock(key: str = "") -> BaseFileLock:
    """A lock of this machine's processes: on making the store and creating runs, or on one run.

    Those of runs, by their keys, share sixteen files, so that no file a run is left behind. Take a
    run's lock before the store's, and never two runs' at once.
    """
    from filelock import FileLock

    database = _database()
    path = database or paths.shared_root() / ".mlflow"
    path = path.with_name(f"{path.name}.{key[0]}.lock" if key else f"{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, timeout=LOCK_SECONDS)


def promotion_lock(name: str) -> Path:
    """The file that a promotion of the registered model `name` holds."""
    return paths.shared_root() / f".mlflow.promote-{name}.lock"


def is_local() -> bool:
    """Is the store a file here, which nobody reaches from elsewhere?"""
    return _database() is not None


def ready(experiment: str) -> tuple[MlflowClient, str]:
    """A client and the id of `experiment`, both made where they are missing.

    Raises UserError where the experiment was deleted; MLflow's and the operating system's errors
    where the store cannot be reached.
    """
    settle()
    for name in ("urllib3.connectionpool", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    database = _database()
    if database and not _is_made(database):
        with lock():
            _make(database)
    client = MlflowClient(tracking_uri=uri(), registry_uri=uri())
    return client, _experiment_id(client, experiment)


def settle() -> None:
    """Give MLflow our settings where the user has none. Call it before importing MLflow."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def _database() -> Path | None:
    return Path(uri().removeprefix(SQLITE)) if uri().startswith(SQLITE) else None


def _is_made(database: Path) -> bool:
    # WAL is the last thing that `_make` sets, and the file remembers it.
    if not database.exists():
        return False
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def _make(database: Path) -> None:
    """Create the schema, which two processes must never do at once; then set WAL."""
    if _is_made(database):
        return
    fresh = database
    if not database.exists():
        fresh = database.with_name(f".{database.name}.new")
        fresh.unlink(missing_ok=True)
        _create(fresh, _artifacts(database))
    with contextlib.closing(sqlite3.connect(fresh, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    fresh.replace(database)


def _create(database: Path, artifacts: Path) -> None:
    """Create the schema in memory and write it at once.

    MLflow's 60 migrations commit one by one: 5 s on a disk, 1 s in memory. A kill in between them
    would leave a file that MLflow can neither use nor mend.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    memory = f"file:{uuid.uuid4().hex}?mode=memory&cache=shared"
    with contextlib.closing(sqlite3.connect(memory, uri=True)) as source:
        os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "StaticPool"  # else it guesses, and warns
        try:
            SqlAlchemyStore(f"{SQLITE}{memory}&uri=true", artifacts.as_uri())
        finally:
            del os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"]
        with contextlib.closing(sqlite3.connect(database)) as target:
            source.backup(target)


def _artifacts(database: Path) -> Path:
    return database.parent / "mlartifacts"


def _experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        with lock():
            found = client.get_experiment_by_name(name)
            if found is None:
                database = _database()
                location = (_artifacts(database) / name).as_uri() if database else None
                made = client.create_experiment(name, artifact_location=location)
                found = client.get_experiment(made)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"the MLflow experiment {name} was deleted: restore it (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}) or give tracking.experiment another name"
        )
    if views.VIEW not in found.tags:
        with lock():  # two that set one tag at once: the second fails
            found = client.get_experiment(found.experiment_id)
            created = found.creation_time or 0
            for key, value in views.experiment_tags(found.experiment_id, created).items():
                if key not in found.tags:  # a note may be a user's
                    client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)
