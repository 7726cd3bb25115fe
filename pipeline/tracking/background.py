"""Calls to MLflow from a thread of their own: none of them is waited for, none raises."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.tracking import store

log = logging.getLogger(__name__)


class Background:
    """Does what it is given in turn, until something fails: that is one warning, and the end.

    `consequence` completes the warning "MLflow at ... does not take the curves (why); ".
    """

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence
        self._failed = False
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        self._executor.submit(self._guarded, work, *arguments)

    def close(self) -> None:
        """Wait until all is done."""
        self._executor.shutdown()

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        from pipeline.tracking.deliver import reason

        if self._failed:
            return
        try:
            work(*arguments)
        except (
            Exception
        ) as error:  # MLflow, requests, SQLAlchemy and storage clients raise their own
            self._failed = True
            log.debug("live tracking failed", exc_info=True)
            log.warning(
                "MLflow at %s does not take the curves (%s); %s",
                store.shown_uri(),
                reason(error),
                self._consequence,
            )
