"""Telling whether a process is gone, and waiting for one that Ctrl-C reaches."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from pipeline.processes import is_gone, run_patiently, this_process


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


# A child that needs a second to save what it has, and the command that waits for it.
SAVES = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    time.sleep(0.3)  # what waits for it has but started it, and not yet turned to waiting
    print("runs", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(130)
"""
WAITS = "import sys; from pipeline.processes import run_patiently; run_patiently(sys.argv[1:])"


def test_a_child_has_its_time_at_ctrl_c() -> None:
    command = [sys.executable, "-c", WAITS, sys.executable, "-c", SAVES]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "saved\n"
    assert process.returncode == 130


@pytest.mark.parametrize("code", [0, 3])
def test_a_childs_code_is_given(code: int) -> None:
    assert run_patiently([sys.executable, "-c", f"raise SystemExit({code})"]) == code
