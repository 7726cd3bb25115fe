"""How many threads the metrics compute with."""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def single_threaded() -> threadpool_limits:
    """Context in which BLAS keeps to one thread.

    The metrics' matrices are small: more threads gain little, cost fifty times as much where
    another process holds a core, and would change the last digits.
    """
    return threadpool_limits(1, user_api="blas")
