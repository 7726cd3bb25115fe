"""Ctrl-C, and the SIGTERM by which clusters end jobs: a training saves itself before it obeys."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

from pipeline import parallel

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether this process was asked to end; whoever asks it has to obey.

    At another Ctrl-C a single process ends at once, by KeyboardInterrupt. Another SIGTERM is no
    impatience: `timeout`, Slurm and torchrun send several. And of several processes each hears of
    one Ctrl-C twice, from the terminal and from its launcher, which kills those that do not obey in
    time. For the main thread alone, as all of Python's handlers are.
    """
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        alone = parallel.size() == 1
        if heard and alone and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not heard:
            # A handler that comes in the middle of another message may not write; it is only told.
            with contextlib.suppress(RuntimeError):
                more = " (another Ctrl-C: at once)" if alone else ""
                log.info("asked to end: saving at the next row of the history%s", more)
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
