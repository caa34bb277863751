"""
An object that is written anew every so often while its holder is alive.

Others judge by it whether the holder lives: by whether the content changes while they watch, with
their own clock. No time is written into it, for no clock of another machine is to be trusted.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from cachepod.errors import CachepodError
from cachepod.stores.base import WriteStore

Clock = Callable[[], float]

#: Seconds between two writes.
PERIOD = 20.0
#: Seconds without a successful write after which a holder must take itself for dead. Others wait
#: for at least UNCHANGED before they do, so there is time for a write that is under way.
FRESH = 60.0
#: Seconds for which an object must stay as it is before its holder is taken for dead.
UNCHANGED = 120.0
_RETRY = 5.0
_LEAVE = 10.0  # seconds to wait for a write that is under way when the holder leaves


def boottime() -> float:
    """Seconds that also pass while the machine sleeps; never set, unlike a clock on the wall."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Beat:
    """
    The object *name*, written and then renewed by a thread until :meth:`stop` deletes it.

    Args:
        content: What it says; the count of writes and who writes are added.

        clock: Tells how long ago the last write was.

        period: Seconds between two writes; zero for no thread, where a test calls
            :meth:`renew` itself.
    """

    def __init__(
        self,
        store: WriteStore,
        name: str,
        content: Callable[[], Mapping[str, Any]],
        *,
        clock: Clock = boottime,
        period: float = PERIOD,
    ) -> None:
        self._store = store
        self.name = name
        self._content = content
        self._clock = clock
        self._period = period
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._done: threading.Event | None = None
        self._count = 0
        self._renewed: float | None = None
        self._lapsed = False
        self._touched = False

    @property
    def unbroken(self) -> bool:
        """
        Whether there never were so long between two writes, nor since the last, that somebody can
        have taken the holder for dead; since :meth:`mend` at least.
        """
        return (
            self._renewed is not None and not self._lapsed and self._clock() - self._renewed < FRESH
        )

    def mend(self) -> None:
        """
        Write the object now, and count anew: what happened in the meantime is for the caller to
        find out afterwards.

        Raises:
            SpaceExhausted, StoreUnreachable: As for :meth:`renew`.
        """
        self.renew()
        self._lapsed = False

    def start(self, delay: float = 0.0) -> None:
        """
        Begin; without a *delay* in seconds the object is written before this returns.

        Raises:
            SpaceExhausted, StoreUnreachable: As the store has it, without a delay.
        """
        if not delay:
            self.renew()
        if self._period and self._done is None:
            self._done = threading.Event()
            # A daemon: a thread stuck in the kernel must not keep the process from ending.
            thread = threading.Thread(
                target=self._run, args=(delay or self._period,), name="beat", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no more threads for this process or container
                self._done = None

    def renew(self) -> None:
        """
        Write the object now.

        Raises:
            SpaceExhausted, StoreUnreachable: As the store has it; it may be written all the same.
        """
        with self._lock:
            if self._stopped.is_set():
                return
            begun = self._clock()
            self._count += 1
            self._touched = True
            document = {
                **self._content(),
                "beat": self._count,
                "host": platform.node(),
                "pid": os.getpid(),
            }
            self._store.replace(self.name, json.dumps(document).encode())
            if self._renewed is not None and begun - self._renewed >= FRESH:
                self._lapsed = True
            self._renewed = begun

    def stop(self, *, leave: bool = False) -> None:
        """
        Write it no more and delete it; what cannot be deleted is left to a prune.

        Args:
            leave: Let the object stay as it is.
        """
        self._stopped.set()
        # Not for ever: a write may be stuck in the kernel.
        if not self._lock.acquire(timeout=_LEAVE):
            return
        try:
            if self._touched and not leave:
                self._store.delete(self.name)
        except CachepodError:
            pass
        finally:
            self._lock.release()
        if self._done is not None:
            self._done.wait(_LEAVE)

    def _run(self, pause: float) -> None:
        assert self._done is not None
        try:
            while not self._stopped.wait(pause):
                try:
                    self.renew()
                    pause = self._period
                except CachepodError as error:
                    passing = getattr(error, "transient", False)
                    pause = min(_RETRY, self._period) if passing else self._period
        finally:
            self._done.set()
