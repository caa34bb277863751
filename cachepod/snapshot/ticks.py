"""Clocks of file systems, which tick slowly: two writes within one tick have one ctime."""

from __future__ import annotations

import time

#: Linux stamps files with the time of the last timer interrupt, 100 to 1000 a second.
_TICK = 10_000_000
_SECOND = 1_000_000_000


def outlast(newest: int) -> None:
    """
    Wait until a write would get another ctime than *newest*, in nanoseconds.

    That is ten milliseconds at most, or a second on a file system that keeps whole seconds. A
    time that lies in the future, by another machine's clock, is not waited for.
    """
    tick = _TICK if newest % _SECOND else _SECOND + _TICK
    wait = newest + tick - time.time_ns()
    if 0 < wait <= tick:
        time.sleep(wait / _SECOND)
