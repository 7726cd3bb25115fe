"""Progress of long work: count, rate and time left; a bar on a terminal, lines in a log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipeline.logs import speaks

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def bar(description: str, total: int, start: int = 0) -> Iterator[Callable[..., None]]:
    """Yield `advance(n=1, note="")`. `start` units are already done (a resumed run).

    On a terminal a live bar; elsewhere (a log, CI) a line every ten seconds. A last line says how
    long all of it took.
    """
    from rich.console import Console

    if not speaks():
        yield lambda n=1, note=None: None
        return
    console, began = Console(stderr=True), time.monotonic()
    if console.is_terminal:
        with _live(console, description, total, start) as advance:
            yield advance
    else:
        yield _lines(description, total, start)
    log.info("%s: %d in %.1f s", description, total - start, time.monotonic() - began)


@contextlib.contextmanager
def _live(
    console: Console, description: str, total: int, start: int
) -> Iterator[Callable[..., None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task(description, total=total, completed=start, rate="-", note="")
        done = 0

        def advance(n: int = 1, note: str | None = None) -> None:
            nonlocal done
            done += n
            rate = f"{done / (time.monotonic() - began + 1e-9):.0f}"
            shown = progress.tasks[task].fields["note"] if note is None else note
            progress.update(task, advance=n, rate=rate, note=shown)

        yield advance


def _lines(description: str, total: int, start: int) -> Callable[..., None]:
    began = last = time.monotonic()
    done = 0

    def advance(n: int = 1, note: str | None = None) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = done / (now - began)
        left = f"{(total - start - done) / rate:.0f} s" if rate else "?"
        tail = f", {note}" if note else ""
        log.info(
            "%s: %d of %d, %.0f/s, %s left%s",
            description,
            start + done,
            total,
            rate,
            left,
            tail,
        )

    return advance
