"""Naming a process so that another can tell whether it is gone."""

from __future__ import annotations

import os
import socket

import psutil


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
