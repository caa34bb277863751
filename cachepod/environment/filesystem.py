"""
What a file system can do, found out by doing it in a directory of its own.

Nothing in cachepod relies on these answers; each operation has its own way out where it is
refused. They are for ``cachepod doctor``, to say which ways out will be taken.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cachepod.stores.localwriter import temporary_name

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_BLOCK = 4096
_RIVALS = 4
_PATTERN = bytes(range(251)) * 200
_NANOSECOND = 1_000_000_000
#: What file systems keep of a time: all of it, NTFS's and SMB's 100 ns, ..., FAT's two seconds.
_GRANULARITIES = (1, 100, 1000, 1_000_000, 10_000_000, _NANOSECOND, 2 * _NANOSECOND)
_MOMENT = 1_700_000_001 * _NANOSECOND + 123_456_789


class Refused(Exception):
    """The file system does not do it, or does it wrongly; the message says which."""


@contextmanager
def workshop(directory: Path) -> Iterator[Path]:
    """
    A new directory in *directory*, removed afterwards with all that is in it.

    Raises:
        OSError: It cannot be made.
    """
    work = directory / temporary_name()
    os.mkdir(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def existing(path: Path) -> Path:
    """*path*, or the nearest directory above it that there is."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def try_probe(name: str, work: Path) -> str:
    """
    Whether the file system of *work* can do what :data:`PROBES` calls *name*.

    Returns:
        Empty if it can, and in words what happened if it cannot.
    """
    try:
        PROBES[name](work)
    except Refused as refused:
        return str(refused)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def mtime_granularity(work: Path) -> int | None:
    """To how many nanoseconds a file's time is kept; None if times cannot be set."""
    path = work / "mtime"
    path.write_bytes(b"")
    try:
        os.utime(path, ns=(_MOMENT, _MOMENT))
    except OSError:
        return None
    kept = path.stat().st_mtime_ns
    for granularity in _GRANULARITIES:
        if kept == _MOMENT // granularity * granularity:
            return granularity
    return None


def free_space(path: Path) -> tuple[int, int]:
    """Free bytes for this user on the file system of *path*, and all there are, as it says."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def can_be_renamed(directory: Path) -> bool:
    """
    Whether the existing *directory* can be given another name; it keeps the one it has.

    It is asked to replace a directory that is not empty, which no file system does. One that may
    not be renamed at all (in the lower layer of an overlayfs: EXDEV; a mount point: EBUSY) is
    refused before that comes up.
    """
    directory = Path(os.path.realpath(directory))
    try:
        with workshop(directory.parent) as work:
            occupied, own = work / "occupied", work / "own"
            (occupied / "occupant").mkdir(parents=True)
            own.mkdir()
            # First with a directory that nobody would miss.
            return _is_in_the_way(own, occupied) and _is_in_the_way(directory, occupied)
    except OSError:
        return False


def _is_in_the_way(directory: Path, occupied: Path) -> bool:
    try:
        os.rename(directory, occupied)
    except OSError as error:
        return error.errno in (errno.ENOTEMPTY, errno.EEXIST)
    os.rename(occupied, directory)
    return False


def _rename(work: Path) -> None:
    old, new = work / "rename-old", work / "rename-new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    os.rename(new, old)
    if old.read_bytes() != b"new" or new.exists():
        raise Refused("it did not replace the other file")


def _link(work: Path) -> None:
    one, other = work / "link-one", work / "link-other"
    one.write_bytes(b"1")
    os.link(one, other)
    try:
        os.link(one, other)
    except FileExistsError:
        _exclusive_among_many(work)
        return
    raise Refused("a name that was taken was given again")


def _exclusive(work: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    os.close(os.open(work / "exclusive", flags, 0o600))
    try:
        os.close(os.open(work / "exclusive", flags, 0o600))
    except FileExistsError:
        return
    raise Refused("a file that was there was created again")


def _exclusive_among_many(work: Path) -> None:
    """Several give one name at the same moment: exactly one may be told that it was first."""
    name, gate = work / "first", threading.Barrier(_RIVALS)
    won: list[int] = []

    def rival(number: int) -> None:
        own = work / f"rival-{number}"
        own.write_bytes(b"%d" % number)
        gate.wait()
        try:
            os.link(own, name)
        except OSError:
            return
        won.append(number)

    threads = [threading.Thread(target=rival, args=(number,)) for number in range(_RIVALS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(won) > 1 or (won and name.read_bytes() != b"%d" % won[0]):
        raise Refused(f"{len(won)} of {_RIVALS} at one moment were told that they were first")


def _ranges(work: Path) -> None:
    path = work / "ranges"
    path.write_bytes(_PATTERN)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for offset, size in ((0, 1), (4095, 3), (10_000, 20_000), (len(_PATTERN) - 5, 5)):
            if os.pread(descriptor, size, offset) != _PATTERN[offset : offset + size]:
                raise Refused("other bytes than those that were asked for came back")
        if os.pread(descriptor, 1, len(_PATTERN)):
            raise Refused("there were bytes after the end")
    finally:
        os.close(descriptor)


def _lock(work: Path) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    one = os.open(work / "lock", flags, 0o600)
    try:
        other = os.open(work / "lock", flags, 0o600)
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            raise Refused("two held it at once")
        finally:
            os.close(other)
    finally:
        os.close(one)


def _sync(work: Path) -> None:
    descriptor = os.open(work / "sync", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"1")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(work: Path) -> None:
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _modes(work: Path) -> None:
    path = work / "mode"
    path.write_bytes(b"")
    for mode in (0o640, 0o751):
        os.chmod(path, mode)
        if path.stat().st_mode & 0o777 != mode:
            raise Refused("a change of mode was ignored")


def _direct(work: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(work / "direct", flags | os.O_DIRECT, 0o600)
    try:
        with mmap.mmap(-1, _BLOCK) as page:
            os.pwrite(descriptor, page, 0)
    finally:
        os.close(descriptor)


def _exchange(work: Path) -> None:
    one, other = work / "exchange-one", work / "exchange-other"
    for directory in (one, other):
        directory.mkdir()
        (directory / directory.name).write_bytes(b"")
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise Refused("the C library has no renameat2") from None
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.listdir(one) != [other.name] or os.listdir(other) != [one.name]:
        raise Refused("two directories were not exchanged")


PROBES: Mapping[str, Callable[[Path], None]] = {
    "rename": _rename,
    "link": _link,
    "O_EXCL": _exclusive,
    "flock": _lock,
    "fsync": _sync,
    "fsync of a directory": _sync_directory,
    "ranges": _ranges,
    "chmod": _modes,
    "O_DIRECT": _direct,
    "RENAME_EXCHANGE": _exchange,
}
