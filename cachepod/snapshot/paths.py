"""Paths as bytes, also longer ones than the kernel takes in one call, and trees being removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    Delete a tree, read-only directories included, or a file; no error if it is not there.

    Not by recursion: a tree may be deeper than Python's stack.

    Raises:
        OSError: Something could not be deleted.
    """
    top = os.path.abspath(os.fsencode(path))
    try:
        if not stat.S_ISDIR(os.lstat(top).st_mode):
            os.unlink(top)
            return
    except FileNotFoundError:
        return
    emptied: list[bytes] = []
    pending = [top]
    while pending:
        directory = pending.pop()
        emptied.append(directory)
        try:
            with reachable(directory) as short:
                pending.extend(directory + b"/" + name for name in _remove_files(short))
        except FileNotFoundError:
            continue
    for directory in reversed(emptied):
        try:
            with reachable(directory) as short:
                os.rmdir(short)
        except FileNotFoundError:
            continue


def _remove_files(directory: bytes) -> list[bytes]:
    """Delete what is in *directory* and is none itself; names of the directories in it."""
    # Deleting needs a writable directory, which the tree's owner may have closed.
    mode = stat.S_IMODE(os.lstat(directory).st_mode)
    if mode & 0o700 != 0o700:
        os.chmod(directory, 0o700)
    below: list[bytes] = []
    with os.scandir(directory) as found:
        children = list(found)
    for child in children:
        if child.is_dir(follow_symlinks=False):
            below.append(child.name)
            continue
        try:
            path = directory + b"/" + child.name
            if len(path) > LONGEST:
                with reachable(path) as short:
                    os.unlink(short)
            else:
                os.unlink(path)
        except FileNotFoundError:
            continue
    return below
