"""Paths as bytes, also longer ones than the kernel takes in one call, and trees being removed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: The kernel takes 4,095 bytes and the closing NUL (PATH_MAX).
LONGEST = 4095
_STEP = 3500


@contextmanager
def reachable(path: bytes) -> Iterator[bytes]:
    """
    A name for *path* that system calls accept, however long *path* is.

    A path of up to :data:`LONGEST` bytes is its own name. For a longer one the directory is
    opened piece by piece and named through ``/proc/self/fd``.
    """
    if len(path) <= LONGEST:
        yield path
        return
    directory, name = os.path.split(path)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(b"/", flags)
    try:
        parts = directory.strip(b"/").split(b"/")
        while parts:
            piece = parts.pop(0)
            while parts and len(piece) + 1 + len(parts[0]) <= _STEP:
                piece += b"/" + parts.pop(0)
            below = os.open(piece, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield b"/proc/self/fd/%d/%s" % (descriptor, name)
    finally:
        os.close(descriptor)


def remove_tree(path: str | bytes | Path) -> None:
    """
    Delete a tree, read-only directories included; no error if it is not there.

    Raises:
        OSError: Something could not be deleted.
    """

    def open_up(function: Callable[..., Any], name: Any, info: Any) -> None:
        error = info[1]
        if isinstance(error, FileNotFoundError):
            return
        if not isinstance(error, PermissionError):
            raise error
        # Deleting needs a writable directory, which the tree's owner may have closed.
        for directory in (os.path.dirname(name), name):
            if directory and stat.S_ISDIR(os.lstat(directory).st_mode):
                os.chmod(directory, 0o700)
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name, onerror=open_up)
        else:
            os.unlink(name)

    shutil.rmtree(path, onerror=open_up)
