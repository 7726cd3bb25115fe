"""Telling whether a process is gone."""

import os
import socket
import subprocess
import sys

from pipeline.processes import is_gone, this_process


def test_this_process_is_here() -> None:
    assert not is_gone(this_process())


def test_a_process_that_ended_is_gone() -> None:
    code = "from pipeline.processes import this_process; print(this_process())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_gone(ended.stdout.strip())


def test_another_process_with_the_same_id_is_not_it() -> None:
    assert is_gone(f"{socket.gethostname()}:{os.getpid()}:1")


def test_nothing_is_known_of_other_hosts() -> None:
    assert not is_gone("another-host:1:0")
    assert not is_gone("")
