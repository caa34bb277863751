"""
Renews a lease in a process of its own, beside an install.

An install must never wait for a volume, and it is not watched. So a child, forked before any
thread is started, speaks to the store; it is left behind if it cannot be ended.

The child learns through a pipe how the work has ended::

    D   done; the lease is kept for the publish that follows
    F   failed
    S   stopped
    (the pipe is closed without a word: the installing process was killed, which is a failure)
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from cachepod.errors import CachepodError
from cachepod.snapshot import lease as leases
from cachepod.snapshot.lease import Lease

DONE, FAILED, STOPPED = b"D", b"F", b"S"

_PATIENCE = 4.0  # seconds that the end of a lease may take
_LINGER = 1.0  # seconds to wait for the end of a child that was killed
_ORPHANED = 15  # the same for a child whose parent was killed: nobody waits for it


class Beater:
    """
    A child process that gives a lease's signs of life.

    Args:
        resume: Finds the lease; called in the child. None if it is lost.
    """

    def __init__(self, resume: Callable[[], Lease | None]) -> None:
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._writer)
            _child(reader, resume)
        os.close(reader)

    def end(self, word: bytes) -> None:
        """Say how the work has ended, and wait a few seconds for the child to pass it on."""
        try:
            os.write(self._writer, word)
        except OSError:
            pass  # the lease was lost, so the child has gone
        os.close(self._writer)
        if not self._ends_within(_PATIENCE):
            os.kill(self._pid, signal.SIGKILL)
            self._ends_within(_LINGER)  # else it is stuck in the kernel

    def _ends_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._gone():
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _gone(self) -> bool:
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True


def _child(reader: int, resume: Callable[[], Lease | None]) -> NoReturn:
    try:
        # A key pressed in a terminal is the parent's to answer; the child hears of it by the pipe.
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # Whoever reads the parent's output must not wait for a child that is stuck.
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        _renew(reader, resume)
    finally:
        os._exit(0)


def _renew(reader: int, resume: Callable[[], Lease | None]) -> None:
    lease: Lease | None = None
    while True:
        try:
            if lease is None:
                lease = resume()
            if lease is None or not lease.beat():
                return
        except CachepodError:
            pass  # the store may answer the next time
        if select.select([reader], [], [], leases.BEAT)[0]:
            break
    word = os.read(reader, 1)
    signal.alarm(_ORPHANED)
    if lease is None:
        lease = resume()
    if lease is None or word == DONE:
        return
    if word == STOPPED:
        lease.hand_over()
    else:
        lease.fail()
