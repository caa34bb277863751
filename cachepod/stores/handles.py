"""
Open files for ranged reads, kept between reads: few packs, many chunks each.

A handle in use is never closed under its user: eviction only drops it from the cache, and the
last user closes it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Handle:
    __slots__ = ("cached", "descriptor", "users")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.users = 1
        self.cached = False


class Handles:
    """
    A bounded cache of open files, shared by threads.

    Args:
        capacity: How many are kept open; more may be open for a moment while more are in use.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._handles: OrderedDict[str, _Handle] = OrderedDict()
        self._forgotten = 0

    @contextmanager
    def use(self, name: str, open_file: Callable[[], int]) -> Iterator[int]:
        """
        The descriptor of *name*, valid inside the ``with``.

        Args:
            name: What the cache knows the file by.

            open_file: Opens it; called without the lock, whose holders must never wait for a
                volume. What it raises is passed on.
        """
        handle = self._take(name, open_file)
        try:
            yield handle.descriptor
        finally:
            self._give_back(handle)

    def _take(self, name: str, open_file: Callable[[], int]) -> _Handle:
        with self._lock:
            handle = self._handles.get(name)
            if handle is not None:
                self._handles.move_to_end(name)
                handle.users += 1
                return handle
            forgotten = self._forgotten
        handle = _Handle(open_file())
        idle: list[int] = []
        with self._lock:
            # Not if a name was forgotten since, for this file may be the one meant; nor if
            # another thread was quicker, for its handle is in use already.
            if forgotten == self._forgotten and name not in self._handles:
                handle.cached = True
                self._handles[name] = handle
                while len(self._handles) > self._capacity:
                    idle += self._drop(next(iter(self._handles)))
        _close(idle)
        return handle

    def _give_back(self, handle: _Handle) -> None:
        with self._lock:
            handle.users -= 1
            done = handle.users == 0 and not handle.cached
        if done:
            _close([handle.descriptor])

    def forget(self, name: str) -> None:
        """Open *name* anew the next time: it was deleted, renamed, or its handle went stale."""
        with self._lock:
            self._forgotten += 1
            idle = self._drop(name) if name in self._handles else []
        _close(idle)

    def close(self) -> None:
        """Close what nobody uses; the rest is closed by its users."""
        with self._lock:
            self._forgotten += 1
            idle = [descriptor for name in list(self._handles) for descriptor in self._drop(name)]
        _close(idle)

    def _drop(self, name: str) -> list[int]:
        """Take *name* out, with the lock held; the descriptor if it is for the caller to close."""
        handle = self._handles.pop(name)
        handle.cached = False
        return [] if handle.users else [handle.descriptor]

    def __len__(self) -> int:
        return len(self._handles)

    def __del__(self) -> None:
        self.close()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass  # a FUSE daemon that has died; the descriptor is free, and nothing was written
