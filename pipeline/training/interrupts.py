"""Ctrl-C, and the SIGTERM by which clusters end jobs: a training saves itself before it obeys."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator

from pipeline import parallel

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether this process was asked to end: whoever holds back has to look.

    At another Ctrl-C a single process ends at once, by KeyboardInterrupt. Another SIGTERM is no
    impatience: it may be the same one, passed on. And of several processes each hears of one Ctrl-C
    twice, from the terminal and from its launcher, which kills those that do not obey in time.
    For the main thread alone, as all of Python's handlers are.
    """
    heard: list[int] = []
    alone = parallel.size() == 1  # now: processes part before all is written
    said = _said(alone) if log.isEnabledFor(logging.INFO) else b""

    def hear(number: int, frame: object) -> None:
        if heard and alone and number == signal.SIGINT:
            raise KeyboardInterrupt
        heard.append(number)
        if len(heard) == 1:
            # Not by logging: its lock may be another thread's, which waits for one of this thread.
            with contextlib.suppress(OSError):  # a terminal that is gone
                os.write(STDERR, said)

    # What a shell has it ignore, as Ctrl-C of a training behind `&`, is another's affair.
    obeyed = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, hear) for number in obeyed}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _said(alone: bool) -> bytes:
    """What the first signal has told; on a terminal below the progress bar."""
    more = " (another Ctrl-C: at once)" if alone else ""
    above = "\n" if os.isatty(STDERR) else ""
    message = f"asked to end: saving at the next row, or finishing after the last{more}"
    return f"{above}INFO {message}\n".encode()
