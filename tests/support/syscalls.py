"""Faults at every system call in turn, as many as an operation makes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

Decide = Callable[[str, int], int]


@contextmanager
def faults(functions: tuple[str, ...], decide: Decide) -> Iterator[list[str]]:
    """
    Ask *decide* before each call of ``os.<function>``.

    Args:
        decide: Takes the function's name and the number of the call among all of them, and gives
            the error number to fail with, or 0.

    Yields:
        The names of the functions called so far.
    """
    lock = threading.Lock()
    calls: list[str] = []

    def around(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            with lock:
                number = len(calls)
                calls.append(name)
            code = decide(name, number)
            if code:
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        return replaced

    with ExitStack() as stack:
        for name in functions:
            stack.enter_context(mock.patch.object(os, name, around(name, getattr(os, name))))
        yield calls


#: What each call may plausibly fail with.
PLAUSIBLE: dict[str, tuple[int, ...]] = {
    "open": (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EMFILE),
    "write": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "pwrite": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "preadv": (errno.EIO,),
    "pread": (errno.EIO,),
    "ftruncate": (errno.EIO, errno.ENOSPC, errno.EFBIG),
    "utime": (errno.EIO, errno.EPERM),
    "fchmod": (errno.EIO, errno.EPERM),
    "chmod": (errno.EIO, errno.EPERM),
    "mkdir": (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EDQUOT),
    "rename": (errno.EIO, errno.ENOSPC, errno.EXDEV, errno.EACCES),
    "replace": (errno.EIO, errno.ENOSPC),
    "link": (errno.EIO, errno.ENOSPC, errno.EPERM, errno.EMLINK),
    "symlink": (errno.EIO, errno.ENOSPC),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "unlink": (errno.EIO, errno.EACCES),
    "rmdir": (errno.EIO, errno.EBUSY),
    "lstat": (errno.EIO,),
    "stat": (errno.EIO,),
    "fstat": (errno.EIO,),
    "scandir": (errno.EIO,),
    "listdir": (errno.EIO,),
    "readlink": (errno.EIO,),
    "statvfs": (errno.EIO,),
}
