"""Several real processes over gloo, within a test."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed

ROOT = Path(__file__).parents[1]
NO_LOGS = f"--log-dir={os.devnull}"  # else torchrun leaves a folder in /tmp each time
CONTEXT = multiprocessing.get_context("forkserver")


def together(
    work: Callable[..., object], folder: Path, *arguments: Any, n: int = 2, patience_s: float = 60
) -> list[str]:
    """What `work(*arguments)` gave in each of `n` processes, or its error: type and message.

    Empty where it was killed. `patience_s` is how long one waits in a collective.
    """
    processes = [
        CONTEXT.Process(target=_join, args=(work, folder, rank, n, patience_s, arguments))
        for rank in range(n)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "it hangs"
    told = [folder / f"told-{rank}" for rank in range(n)]
    return [path.read_text() if path.exists() else "" for path in told]


def wait_for_file(path: Path, *, patience_s: float = 60) -> None:
    """Until another process has made it."""
    deadline = time.monotonic() + patience_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)


def torchrun(module: str, *arguments: object, n: int = 2) -> None:
    """`python -m module` in `n` processes of one thread each, by torch's own launcher."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={n}", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=localhost:0", "--local-addr=127.0.0.1", NO_LOGS]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr


def _join(
    work: Callable[..., object],
    folder: Path,
    rank: int,
    n: int,
    patience_s: float,
    arguments: tuple[Any, ...],
) -> None:
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=n,
        timeout=timedelta(seconds=patience_s),
    )
    try:
        told = str(work(*arguments))
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    (folder / f"told-{rank}").write_text(told)
    distributed.destroy_process_group()
