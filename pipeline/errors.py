"""Errors that are the user's to mend: one message, an exit code, no traceback."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

log = logging.getLogger(__name__)

_WAYS_OUT = {
    errno.ENOSPC: "no space is left on the disk: free some and run the same command again",
    errno.EFBIG: "the file may not grow that large here: raise the limit (ulimit -f)",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EACCES: "permission denied: make it readable and writable for you (chmod, chown)",
    errno.EPERM: "permission denied: make it readable and writable for you (chmod, chown)",
    errno.EEXIST: "it is in the way of a folder: move it away or name another",
    errno.ENOTDIR: "a file is where a folder should be: move it away or name another",
    errno.EROFS: "the file system is read-only: work in a folder that you may write to",
}


# In torch's errors, most of them plain RuntimeErrors; the last is of a size that no machine has.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|Storage size calculation overflowed"
)

LESS_MEMORY = "lower train.batch_size, evaluate.batch_size or model.width"
INTERRUPTED = "interrupted; the same command continues where it stopped"


class UserError(Exception):
    """Something the user can mend. The message names the thing and the way out."""

    exit_code = 1
    everywhere = False  # all processes of a stage meet it: the first of each machine tells


class ConfigError(UserError):
    """A wrong value in params.yaml or on the command line."""

    exit_code = 2
    everywhere = True


class Lost(UserError):
    """Another process is gone, and with it the computation."""


def explain(error: OSError) -> str | None:
    """What to do about an operating-system error, or None where it is likely a bug of ours."""
    # NumPy's own error for a full disk has no number: "1000 requested and 10 written".
    short = error.errno is None and "requested and" in str(error)
    way_out = _WAYS_OUT.get(errno.ENOSPC if short else error.errno or 0)
    if way_out is None:
        return None
    return f"{error.filename or 'writing'}: {way_out}"


def say(message: str, error: BaseException | None = None) -> None:
    """Tell the user, on standard error."""
    print(f"error: {message}", file=sys.stderr)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, a processor's or a GPU's."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def interrupted(*_: object) -> NoReturn:
    """Handler of SIGINT where there is nothing to clean up: a message, and the end."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of torchrun's processes on a machine one tells
        say(INTERRUPTED)
    os._exit(130)


def run(main: Callable[[], None], tell: Callable[[str, BaseException], None] = say) -> None:
    """Call `main` as the body of a command: a user's mistake ends it with a message and a code.

    `tell` gets the message, and the error that it explains.
    Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
    """
    if signal.getsignal(signal.SIGINT) is interrupted:  # from here on there may be
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        message, code = _message_and_code(error)
        if message is None:
            raise
        tell(message, error)
        raise SystemExit(code) from None


def _message_and_code(error: BaseException) -> tuple[str | None, int]:
    """What to tell of an error and the exit code; no message where it is likely a bug of ours."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return explain(error), 1
    if out_of_memory(error):
        return f"out of memory: {LESS_MEMORY}", 1
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, 130
    return None, 1
