"""
Faults of system calls, injected by replacing functions of :mod:`os`.

They reach the code under test in this process (all threads of it) as long as it calls them as
``os.pwrite(...)``, and what is forked while they are in place.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def failing(
    function: str,
    code: int,
    *,
    calls: str = "E*",
    when: Callable[..., bool] = lambda *args, **kwargs: True,
) -> Iterator[None]:
    """
    Let ``os.<function>`` fail with the error number *code*.

    Args:
        function: Name within :mod:`os`, as ``pwrite``.

        code: Raised as OSError(code, ...), so ENOSPC, EIO and so on.

        calls: A letter for each call: ``.`` works, ``E`` fails, ``A`` is carried out and then
            fails; ``*`` at the end repeats the letter before it for ever.

        when: Takes the call's arguments; calls for which it is False work and are not counted.
    """
    original = getattr(os, function)
    lock = threading.Lock()
    count = 0

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if not when(*args, **kwargs):
            return original(*args, **kwargs)
        with lock:
            call, count = count, count + 1
        if calls.endswith("*"):
            letter = calls[min(call, len(calls) - 2)]
        else:
            letter = calls[call] if call < len(calls) else "."
        if letter == "E":
            raise OSError(code, os.strerror(code))
        result = original(*args, **kwargs)
        if letter == "A":
            raise OSError(code, os.strerror(code))
        return result

    with mock.patch.object(os, function, replaced):
        yield


@contextmanager
def short_transfers(most: int) -> Iterator[None]:
    """Let no read or write of a file move more than *most* bytes, as the kernel is free to do."""
    pread, preadv, read = os.pread, os.preadv, os.read
    pwrite, pwritev, write = os.pwrite, os.pwritev, os.write

    def first(buffers: Any) -> list[memoryview]:
        return [memoryview(buffers[0]).cast("B")[:most]]

    with (
        mock.patch.object(os, "pread", lambda fd, n, at: pread(fd, min(n, most), at)),
        mock.patch.object(os, "preadv", lambda fd, b, at, *a: preadv(fd, first(b), at, *a)),
        mock.patch.object(os, "read", lambda fd, n: read(fd, min(n, most))),
        mock.patch.object(os, "pwrite", lambda fd, b, at: pwrite(fd, memoryview(b)[:most], at)),
        mock.patch.object(os, "pwritev", lambda fd, b, at, *a: pwritev(fd, first(b), at, *a)),
        mock.patch.object(os, "write", lambda fd, b: write(fd, memoryview(b)[:most])),
    ):
        yield


SYSTEM_CALLS = (
    *("open", "close", "read", "pread", "preadv", "write", "pwrite", "pwritev", "fsync"),
    *("ftruncate", "truncate", "link", "symlink", "rename", "replace", "unlink", "remove"),
    *("mkdir", "rmdir", "utime", "chmod", "fchmod", "lchown", "chown", "mkfifo"),
    *("stat", "lstat", "fstat", "scandir", "readlink", "setxattr", "getxattr"),
)


@contextmanager
def killed_at(call: int) -> Iterator[None]:
    """
    Kill this process with SIGKILL just before its system call number *call*, from 0.

    Only calls that Python code makes through :mod:`os` are counted.
    """
    lock = threading.Lock()
    count = 0

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            with lock:
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
            return original(*args, **kwargs)

        return replaced

    patches = [
        mock.patch.object(os, name, counting(getattr(os, name)))
        for name in SYSTEM_CALLS
        if hasattr(os, name)
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def in_a_child(act: Callable[[], object]) -> int:
    """
    Run *act* in a forked process; no cleaning up of this process's things happens there.

    Returns:
        Its exit status, 0 when *act* returned, or minus the signal that killed it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_every_call(act: Callable[[], object], most: int = 10_000) -> Iterator[int]:
    """
    Run *act* in a child killed before its first system call, its second, ... until one survives.

    Yields:
        The number of the call, each time the killed child is gone: the moment to look at what
        it left. Nothing is yielded for the run that survives.
    """
    for call in range(most):

        def attempt(call: int = call) -> None:
            with killed_at(call):
                act()

        status = in_a_child(attempt)
        if status == 0:
            return
        assert status == -signal.SIGKILL, status
        yield call
    raise AssertionError(f"still not through after {most} system calls")
