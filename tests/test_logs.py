"""What a message looks like, on a terminal and in a log."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAYS = "from pipeline import logs; logs.setup(); logs.logging.getLogger('pipeline.x').info('well')"


def said(*, terminal: bool) -> str:
    """What a process that says `well` leaves on standard error."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    environment.pop("FORCE_COLOR", None)
    command = [sys.executable, "-c", SAYS]
    subprocess.run(command, cwd=ROOT, env=environment, stderr=theirs, check=True)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    return text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_message_is_told_with_its_level_once_and_no_module(terminal: bool) -> None:
    assert said(terminal=terminal).split() == ["INFO", "well"]
