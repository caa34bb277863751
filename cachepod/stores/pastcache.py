"""
Reading past the page cache, where each page would come through a FUSE daemon or a network.

Through the page cache a range arrives in the small pieces of the kernel's read-ahead, each of which
waits for the one before, and is then copied once more. With O_DIRECT it is asked for in pieces as
large as the file system takes, straight into the caller's memory. From a MooseFS a millisecond
away that was twice as fast, at two thirds of the CPU time.

A tree that is published is read so as well, see :class:`.Reader`.

What another process of this machine has read or written a moment ago may be in the page cache
already, and then nothing is faster than that.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os

#: Share of a file's pages from which the page cache is the better source.
_MOSTLY = 0.9


def read_past_cache(descriptor: int) -> bool:
    """
    Let reads of an open file go past the page cache, unless it is there already.

    Args:
        descriptor: Of a regular file, open for reading.

    Returns:
        Whether they do. If so, a read may fail with EINVAL on file systems that want memory,
        offset and size aligned.
    """
    if _cached(descriptor, os.fstat(descriptor).st_size):
        return False
    try:
        set_direct(descriptor, True)
    except OSError:  # not on this file system
        return False
    return True


def set_direct(descriptor: int, on: bool) -> None:
    """
    Let reads and writes of an open file go past the page cache, or through it again.

    Raises:
        OSError: EINVAL where the file system has no such thing.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    flags = flags | os.O_DIRECT if on else flags & ~os.O_DIRECT
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _cached(descriptor: int, size: int) -> bool:
    """
    Whether the kernel has nearly all of a file in memory; mincore(2) tells.

    To whom the file is not his own it tells that everything is: then all stays as it was.
    """
    if not size:
        return True
    pages = -(-size // mmap.PAGESIZE)
    present = (ctypes.c_ubyte * pages)()
    try:
        with mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY) as memory:
            first = ctypes.c_char.from_buffer(memory)
            try:
                failed = ctypes.CDLL(None).mincore(
                    ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), present
                )
            finally:
                del first  # or the memory could not be unmapped
    except (OSError, ValueError):  # a file system that maps nothing into memory
        return False
    return not failed and bytes(present).count(1) >= _MOSTLY * pages
