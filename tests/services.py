"""Real services for tests, each started for the test and stopped after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

S3_KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
ADMIN_PASSWORD = "of this test alone"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def not_installed(what: str, packages: str) -> NoReturn:
    """Skip the test here; in CI, which installs them, it fails."""
    text = f"{what} is not installed (apt-get install {packages})"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own; yields the URL of an empty database.

    Not in pytest's folders, which are for their owner only, and made so again by each pytest that
    starts beside this one: the server, which runs as another user, would not find its files.

    Skips the test where Debian's package postgresql is not installed; CI installs it.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        not_installed("PostgreSQL", "postgresql")
    binaries, port = found[-1], free_port()
    data = Path(tempfile.mkdtemp(prefix="gan-postgresql-"))
    # It refuses to run as root; the package brings a user for it.
    command: list[str] = []
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--"]
        shutil.chown(data, "postgres")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [*command, str(binaries / "pg_ctl"), "-D", str(data / "db"), "-w", "-s"]
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": data}
    initialise = ["initdb", "-D", str(data / "db"), "-A", "trust", "-U", "gan", "--no-sync"]
    try:
        subprocess.run([*command, str(binaries / initialise[0]), *initialise[1:]], **run)
        subprocess.run([*control, "-l", str(data / "log"), "-o", options, "start"], **run)
        yield f"postgresql://gan@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **(run | {"check": False}))
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[str]:
    """An S3 endpoint of this machine (moto's server) with a bucket `models`; yields its URL."""
    import boto3

    port = free_port()
    with _process(["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], folder / "s3.log"):
        url = f"http://127.0.0.1:{port}"
        wait_for(port)
        session = boto3.session.Session(**S3_KEYS, region_name="us-east-1")
        session.client("s3", endpoint_url=url).create_bucket(Bucket="models")
        yield url


@contextlib.contextmanager
def mlflow_server(folder: Path, database: str, endpoint: str) -> Iterator[str]:
    """`mlflow server` on PostgreSQL, S3 and basic auth (admin, ADMIN_PASSWORD); yields its URI."""
    port = free_port()
    config = folder / "auth.ini"
    config.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = admin\nadmin_password = {ADMIN_PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    arguments = ["--backend-store-uri", database.replace("postgresql:", "postgresql+psycopg:")]
    arguments += ["--artifacts-destination", "s3://models/mlflow", "--app-name", "basic-auth"]
    environment = {
        "AWS_ACCESS_KEY_ID": S3_KEYS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": S3_KEYS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = ["-m", "mlflow", "server", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    with _process([*command, "--workers", "1"], folder / "mlflow.log", **environment):
        wait_for(port)
        yield f"http://127.0.0.1:{port}"


def wait_for(port: int, seconds: int = 300) -> None:
    """Until something listens there."""
    for _ in range(seconds * 5):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens at port {port}")


@contextlib.contextmanager
def _process(arguments: list[str], log: Path, **environment: str) -> Iterator[None]:
    """A Python process and its children, ended with the block."""
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=log.parent,
            env={**os.environ, **environment},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
