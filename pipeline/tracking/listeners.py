"""What a training tells while it runs, handed to its live run."""

from __future__ import annotations

import logging

from pipeline.tracking.live import LiveRun
from pipeline.training.guard import Event, alarm_tags
from pipeline.training.loop import Callback, Row
from pipeline.training.state import State

log = logging.getLogger(__name__)


class Curves(Callback):
    """Hands the history to MLflow as it grows."""

    def __init__(self, live: LiveRun) -> None:
        self.live = live

    def on_step(self, state: State, row: Row) -> None:
        self.live.log([row])


class Announce(Callback):
    """Tells a person at once: in the log, and on the run in MLflow."""

    def __init__(self, live: LiveRun) -> None:
        self.live = live

    def on_event(self, state: State, event: Event) -> None:
        alarming = event.kind not in ("balance", "clear")
        log.log(
            logging.WARNING if alarming else logging.INFO,
            "step %d: %s",
            event.step,
            event.text,
        )
        if alarming:
            self.live.tag(alarm_tags(state.events))
