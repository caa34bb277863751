"""Signals as exceptions, so that every ``finally`` and context manager cleans up on its way out."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """
    SIGINT or SIGTERM arrived; *exit_code* is what a shell calls it: 128 and the signal's number.

    Not an Exception: nothing that handles failures may take it for one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


def _raise(number: int, _frame: FrameType | None) -> None:
    # Whoever sends a second signal does not want to wait for the cleaning up.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)


def raise_on_signals() -> None:
    """From now on the first SIGINT or SIGTERM raises Interrupted in the main thread."""
    for each in SIGNALS:
        signal.signal(each, _raise)


def default_signals() -> None:
    """Back to what the kernel does; a command that is exec'ed inherits it."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
