"""MLflow's scoring server on an alias, and a new champion without a dropped request.

The listening socket belongs to this process. On SIGHUP the alias is resolved again and a second
server started on the same socket; when it is ready the first one is asked to end, which uvicorn
does after the requests in flight. No connection finds a closed door.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pipeline import ports
from pipeline.errors import UserError
from pipeline.registry import fresh
from pipeline.registry.lineage import fetch_version, version_at

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

APP = "mlflow.pyfunc.scoring_server.app:app"  # what `mlflow models serve` runs
MODEL_PATH = "__pyfunc_model_path__"  # where that looks for the model
SERVED_AS = "GAN_MODEL_VERSION"  # as in model_code
READY = "Application startup complete"
START_SECONDS = 300


@dataclass
class _Server:
    version: str
    process: subprocess.Popen[str]
    ready: threading.Event
    folders: tuple[Path, ...]  # of its own, to be removed


def serve(client: MlflowClient, uri: str, *, host: str, port: int, workers: int) -> int:
    """Serve `uri` until SIGINT or SIGTERM; on SIGHUP what it then stands for. The exit code.

    Raises UserError where there is no such version, the port is taken, or the model does not load.
    """
    version_at(client, uri)
    with ports.listen(host, port) as door:
        port = door.getsockname()[1]
        events: list[int] = []
        woken = threading.Event()

        def note(number: int, frame: FrameType | None) -> None:
            events.append(number)
            woken.set()

        before = {x: signal.signal(x, note) for x in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        running = _start(client, uri, door, workers)
        try:
            _wait(running)
            log.info("serving %s at http://%s:%d", running.version, host, port)
            print(curl(host, port), flush=True)
            while not any(number != signal.SIGHUP for number in events):
                woken.wait(1.0)
                woken.clear()
                if running.process.poll() is not None:
                    return running.process.returncode or 1
                if signal.SIGHUP in events:
                    events.remove(signal.SIGHUP)
                    running = _exchange(client, uri, door, workers, running)
            return 0
        finally:
            _end(running)
            for number, handler in before.items():
                signal.signal(number, handler)


def curl(host: str, port: int) -> str:
    """A request that works."""
    body = json.dumps({"inputs": [{"n": 4, "seed": 0, "format": "grid"}]})
    return (
        f"curl -s http://{host}:{port}/invocations -H 'Content-Type: application/json' -d '{body}'"
    )


def _start(client: MlflowClient, uri: str, door: socket.socket, workers: int) -> _Server:
    version, folder = fetch_version(client, uri)
    name = f"{version.name}/{version.version}"
    environment = fresh.environment(**{MODEL_PATH: str(folder), SERVED_AS: name})
    command = [sys.executable, "-P", "-m", "uvicorn", APP, "--fd", str(door.fileno())]
    if workers > 1:
        command += ["--workers", str(workers)]
    scratch = Path(tempfile.mkdtemp(prefix="gan-serve-"))
    process = subprocess.Popen(
        command,
        cwd=scratch,
        env=environment,
        pass_fds=[door.fileno()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which then ends it in order
    )
    server = _Server(name, process, threading.Event(), (folder, scratch))
    threading.Thread(target=_pass_on, args=(server, workers), daemon=True).start()
    return server


def _pass_on(server: _Server, workers: int) -> None:
    """Show what the server says, and note when every worker is ready."""
    assert server.process.stderr is not None
    missing = workers
    for line in server.process.stderr:
        if READY in line:
            missing -= 1
            if missing == 0:
                server.ready.set()
        print(line, end="", file=sys.stderr, flush=True)


def _wait(server: _Server) -> None:
    for _ in range(START_SECONDS * 10):
        if server.ready.wait(0.1):
            return
        if server.process.poll() is not None:
            break
    _end(server)
    raise UserError(f"{server.version} could not be served: see above")


def _exchange(
    client: MlflowClient, uri: str, door: socket.socket, workers: int, old: _Server
) -> _Server:
    """The server of what `uri` now stands for, or the old one where that does not start."""
    try:
        new = _start(client, uri, door, workers)
        _wait(new)
    except UserError as error:
        log.error("%s; %s goes on", error, old.version)
        return old
    _end(old)
    log.info("serving %s in place of %s", new.version, old.version)
    return new


def _end(server: _Server) -> None:
    """Ask it to end, wait until it has answered what it was asked, and remove its folders."""
    if server.process.poll() is None:
        server.process.terminate()
    server.process.wait()
    for folder in server.folders:
        shutil.rmtree(folder, ignore_errors=True)
