"""
Locks of this machine: cachepod's own, and those of dpkg, which apt holds while it works.

Source: dpkg-lock is a record lock (fcntl(2), F_SETLK) on ``/var/lib/dpkg/lock``; frontends hold
``/var/lib/dpkg/lock-frontend`` before it, so that nobody comes between two runs of dpkg.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cachepod.errors import AptLocked
from cachepod.system.base import DPKG
from cachepod.system.record import state_place

#: Seconds that another package manager is waited for.
PATIENCE = 120.0
_TICK = 0.25
_NAMES = ("lock-frontend", "lock")
_BUSY = frozenset((errno.EACCES, errno.EAGAIN))
# struct flock: type, whence, start, length, process
_FLOCK = struct.Struct("@hhqqi4x")


@contextmanager
def alone(root: Path, seconds: float = PATIENCE) -> Iterator[None]:
    """
    Hold the lock under which the layer of *root* is changed.

    Raises:
        AptLocked: Another cachepod has held it for *seconds*.
    """
    place = state_place(root)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:

        def take() -> bool:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not _within(seconds, take, lambda text: None, lambda: "another cachepod"):
            raise AptLocked(os.fspath(path), "another cachepod", seconds)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def dpkg_locked(
    root: Path, *, seconds: float = PATIENCE, say: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """
    Hold dpkg's locks in *root*, so that no other package manager works there.

    Args:
        say: Told for whom it waits.

    Raises:
        AptLocked: Another process has held one of them for *seconds*.

        OSError: They cannot be opened.
    """
    held: list[int] = []
    try:
        for name in _NAMES:
            path = root / DPKG / name
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o640)
            held.append(descriptor)
            if not _within(seconds, _taker(descriptor), say, _holder(descriptor)):
                raise AptLocked(os.fspath(path), _holder(descriptor)(), seconds)
        yield
    finally:
        for descriptor in reversed(held):
            os.close(descriptor)


def await_dpkg(root: Path, *, seconds: float, say: Callable[[str], None]) -> None:
    """
    Wait until no package manager is at work in *root*; apt then takes the locks itself.

    Raises:
        AptLocked: One still is after *seconds*.
    """
    with dpkg_locked(root, seconds=seconds, say=say):
        pass


def _taker(descriptor: int) -> Callable[[], bool]:
    def take() -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            return False
        return True

    return take


def _holder(descriptor: int) -> Callable[[], str]:
    """Which process holds the record lock, in words."""

    def holder() -> str:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            process = int(_FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[4])
            name = Path(f"/proc/{process}/comm").read_text("utf-8", "replace").strip()
        except OSError:
            return ""
        return f"process {process} ({name})"

    return holder


def _within(
    seconds: float, take: Callable[[], bool], say: Callable[[str], None], holder: Callable[[], str]
) -> bool:
    until = time.monotonic() + seconds
    while not take():
        if time.monotonic() >= until:
            return False
        say(f"waiting for {holder() or 'another package manager'}")
        time.sleep(_TICK)
    return True
