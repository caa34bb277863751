"""Writes one object of a :class:`~cachepod.stores.local.LocalStore`: steps 1 to 5 drawn there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable

from cachepod.errors import CachepodError, StoreUnreachable
from cachepod.stores.base import Buffer, Writer

_NO_LINKS = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS),
        *(errno.EMLINK, errno.EINVAL),
    }
)
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS})
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")


def temporary_name() -> str:
    """``.tmp-HOST-PID-RANDOM``, which no other writer has and which is never an object's name."""
    host = _UNSAFE.sub("", os.uname().nodename)[:64]
    return f".tmp-{host}-{os.getpid()}-{os.urandom(8).hex()}"


def sync_directory(path: str) -> None:
    """Make the names in the directory *path* last; nothing where it cannot be asked for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a directory that may be written but not listed
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


class LocalWriter(Writer):
    """
    One file on its way to *path*.

    Args:
        name: The object's name, for messages.

        path: Where it is to appear; the directory exists.

        trouble: Says what an OSError means.

        over: Whether an object at *path* is replaced, instead of staying as the first.

        unlinked: Called where the file system has no hard links.

    Raises:
        OSError: The temporary file cannot be created.
    """

    def __init__(
        self,
        name: str,
        path: str,
        trouble: Callable[[OSError], CachepodError],
        *,
        over: bool = False,
        unlinked: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._path = path
        self._trouble = trouble
        self._over_old = over
        self._unlinked = unlinked
        self._temporary = f"{os.path.dirname(path)}/{temporary_name()}"
        self._size = 0
        self._synced = False
        self._placed: bool | None = None
        self._over = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o666)

    def write(self, data: Buffer) -> None:
        """As the protocol says; after a failure the same *data* may be given again."""
        self._expect_open()
        if self._descriptor < 0:
            raise ValueError(f"{self._name} is being committed")
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                count = os.pwrite(self._descriptor, view[done:], self._size + done)
                if count <= 0:
                    raise OSError(errno.EIO, "a write wrote nothing")
                done += count
        except OSError as error:
            raise self._trouble(error) from error
        self._size += done

    def commit(self) -> bool:
        """As the protocol says; what failed for a passing reason may be tried again."""
        self._expect_open()
        try:
            self._sync_and_close()
            if self._placed is None:
                self._placed = self._place()
            self._remove_temporary()
            sync_directory(os.path.dirname(self._path))
        except OSError as error:
            raise self._trouble(error) from error
        self._over = True
        return self._placed

    def _sync_and_close(self) -> None:
        if self._synced:
            return
        if self._descriptor < 0:
            raise StoreUnreachable(self._path, "what was written did not reach the disk")
        descriptor, self._descriptor = self._descriptor, -1
        try:
            try:
                _sync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            # The kernel may have dropped the bytes that it could not write, and say so once only:
            # a second fsync that succeeds would prove nothing. So this is not transient.
            problem = self._trouble(error)
            if isinstance(problem, StoreUnreachable):
                problem.transient = False
            raise problem from error
        self._synced = True

    def _place(self) -> bool:
        if self._over_old:
            os.rename(self._temporary, self._path)
            return True
        try:
            os.link(self._temporary, self._path)
        except FileExistsError:
            return self._is_ours()
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._unlinked()
            if os.path.lexists(self._path):
                return False
            os.rename(self._temporary, self._path)
        return True

    def _is_ours(self) -> bool:
        """
        Whether the file in the way is our own.

        Over a network the answer to a link that worked may be lost, and be asked for again.
        """
        ours = os.lstat(self._temporary)
        try:
            theirs = os.lstat(self._path)
        except FileNotFoundError:  # moved away since; it was there first all the same
            return False
        return ours.st_ino != 0 and os.path.samestat(ours, theirs)

    def abort(self) -> None:
        """As the protocol says."""
        if self._over:
            return
        self._over = True
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the bytes are not wanted any more
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        try:
            os.unlink(self._temporary)
        except OSError:
            pass  # gone after a rename; else it is recognised by its name and pruned one day

    def _expect_open(self) -> None:
        if self._over:
            raise ValueError(f"{self._name} is not being written any more")
