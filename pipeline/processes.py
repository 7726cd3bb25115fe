"""Naming a process so that another can tell whether it is gone; waiting for one at Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

import psutil


def run_patiently(command: Sequence[str], **of_popen: Any) -> int:
    """Run a command to its end; its exit code. At Ctrl-C, which reaches it too, it has its time.

    `subprocess.run` would kill it after a quarter of a second, before it has saved what it made.
    """
    with subprocess.Popen(command, **of_popen) as child:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    if code == 130:
        raise SystemExit(code)  # it has said so
    return code


def this_process() -> str:
    """Host, process id and time of start: ids are given again, after a restart even soon."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_here(process: str) -> bool:
    """Whether `process`, as `this_process` named it, runs or ran on this host."""
    return process.partition(":")[0] == socket.gethostname()


def is_gone(process: str) -> bool:
    """Whether `process`, as `this_process` named it, ran on this host and runs no more."""
    if not is_here(process):
        return False
    pid, _, started = process.partition(":")[2].partition(":")
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" != started
    except psutil.NoSuchProcess:
        return True
