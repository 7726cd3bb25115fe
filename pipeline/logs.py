"""Logging as a stage or a command shows it: short lines on standard error."""

from __future__ import annotations

import logging
import os


def setup() -> None:
    """Log to standard error: INFO and above from here, WARNING and above from libraries.

    `GAN_LOG_LEVEL=DEBUG` shows more. Of several processes of one stage, the first speaks.
    """
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    handler: logging.Handler
    if console.is_terminal:  # its handler has a column of its own for the level
        handler = RichHandler(console=console, show_path=False, show_time=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if not speaks():
        return
    for name in ("pipeline", "__main__"):  # a stage runs as __main__
        logging.getLogger(name).setLevel(os.environ.get("GAN_LOG_LEVEL", "INFO").upper())


def speaks() -> bool:
    """Whether this process is the only one of its stage, or the first under torchrun."""
    return os.environ.get("RANK", "0") == "0"
