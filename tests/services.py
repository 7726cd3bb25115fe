"""Real services for tests, each started for the test and stopped after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own in `folder`; yields the URL of an empty database.

    Skips the test where Debian's package postgresql is not installed; CI installs it.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    binaries, data, port = found[-1], folder / "postgresql", free_port()
    data.mkdir(parents=True)
    # It refuses to run as root; the package brings a user for it.
    command: list[str] = []
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--"]
        shutil.chown(data, "postgres")
        for parent in data.parents:  # pytest's folders are for their owner only
            if parent.owner() == "root" and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [*command, str(binaries / "pg_ctl"), "-D", str(data / "db"), "-w", "-s"]
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": data}
    initialise = ["initdb", "-D", str(data / "db"), "-A", "trust", "-U", "gan", "--no-sync"]
    subprocess.run([*command, str(binaries / initialise[0]), *initialise[1:]], **run)
    subprocess.run([*control, "-l", str(data / "log"), "-o", options, "start"], **run)
    try:
        yield f"postgresql://gan@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **run)
