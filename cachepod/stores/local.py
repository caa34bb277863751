"""
A directory as a store: one file an object, under the object's own name.

How an object comes to be, and what a crash leaves after each step::

    1  .tmp-HOST-PID-RANDOM is created beside its final name    a temporary file, never listed
    2  bytes are written, then fsync                            the same
    3  link(temporary, final); EEXIST: another was first        the whole object, and the temporary
    4  unlink(temporary)                                        the whole object
    5  fsync of the directory                                   it survives a crash of the machine

Step 3 is the commit point. Where the file system has no hard links it is a rename after a look
whether the name is taken: of two writers at the same moment both may then be told that they
were first, and one of the two objects, each whole, stays.

No lock, mode, owner, time or free space is relied on, and none is set: on network volumes chmod
may be ignored, chown refused, times cut to seconds and preallocation hang.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cachepod.errors import (
    CachepodError,
    CorruptObject,
    NewerFormat,
    ObjectMissing,
    SpaceExhausted,
    StoreUnreachable,
)
from cachepod.model.names import FORMAT_OBJECT, PACKS, STORE_FORMAT, is_component, is_object_name
from cachepod.stores.base import Buffer, Leftover, ObjectInfo, PruneStore, Writer
from cachepod.stores.founding import (
    FORMAT_DOCUMENT,
    FORMAT_LIMIT,
    TAG,
    TAG_NAME,
    format_version,
    unreadable_format,
)
from cachepod.stores.handles import Handles
from cachepod.stores.localwriter import LocalWriter, sync_directory, temporary_name
from cachepod.stores.mounts import mount_of
from cachepod.stores.pastcache import read_past_cache

_OPEN_PACKS = 64
#: Of everything else, another process may put another object in the place of one that is open here.
_NEVER_REPLACED = f"{PACKS}/"
_REMOTE_PARALLEL_READS = 8
_READ = os.O_RDONLY | os.O_CLOEXEC
# Not through a symbolic link, and not waiting for the other end of a FIFO: what lies on a volume
# is not trusted. Both flags mean nothing to a regular file.
_READ_OBJECT = _READ | os.O_NOFOLLOW | os.O_NONBLOCK
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TRANSIENT = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.EREMOTEIO),
        *(errno.ECONNRESET, errno.ECONNABORTED, errno.EINTR),
    }
)
_HINTS = {
    errno.ENOSPC: "prune the store or enlarge its volume",
    errno.EDQUOT: "the volume's quota is used up, whatever df says: prune the store or enlarge it",
    errno.EACCES: "mount it so that this user may use it, or give another --store",
    errno.EPERM: "mount it so that this user may use it, or give another --store",
    errno.EROFS: "mount it writable, or give another --store",
    errno.ENOTCONN: "the file system's own process is gone: restart the container",
    errno.ENOTDIR: "give a directory as --store",
}
_TEMPORARY = re.compile(r"\.tmp-(?P<host>.*)-(?P<pid>[0-9]+)-[0-9a-f]{16}", re.DOTALL)


@dataclass(frozen=True)
class Temporary:
    """Who writes, or wrote until it died, a temporary file."""

    host: str
    pid: int


def temporary_of(file_name: str) -> Temporary | None:
    """The writer of the file called *file_name*; None if it is not a temporary file."""
    match = _TEMPORARY.fullmatch(file_name)
    return Temporary(match["host"], int(match["pid"])) if match else None


class LocalStore(PruneStore):
    """
    The store in the directory *root*.

    A missing directory is an empty store; the first write makes it. Names that are not object
    names raise ValueError: whoever takes a name from outside parses it first.

    Args:
        root: An absolute path; it need not exist.

        create: Whether the first write may make the directory.

        direct: Whether packs on a network volume are read past the page cache.

    Raises, from every method:
        NewerFormat: A later cachepod made the store.

        StoreUnreachable: *root* is not a directory, its ``cachepod.json`` is no such thing, or
            the volume failed.
    """

    def __init__(self, root: Path, create: bool = True, direct: bool = True) -> None:
        self._root = os.path.abspath(root)
        self._create = create
        self._direct = direct
        self._format_known = False
        self._parallel_reads: int | None = None
        self._handles = Handles(_OPEN_PACKS)
        self._links = True

    @property
    def url(self) -> str:
        """The directory."""
        return self._root

    @property
    def parallel_reads(self) -> int:
        """Some where each read crosses a network or a FUSE daemon, as the table of mounts says."""
        if self._parallel_reads is None:
            mount = mount_of(self._root)
            self._parallel_reads = _REMOTE_PARALLEL_READS if mount and mount.remote else 0
        return self._parallel_reads

    # Reading

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says."""
        self._know_format()
        path = self._path(name)
        try:
            return _read_file(path, name, limit)
        except OSError as error:
            raise self._trouble(error, path, name) from error

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says; the packs that were read last stay open."""
        self._know_format()
        path = self._path(name)
        direct = self._direct  # as it was: other threads may meet the same refusal
        try:
            try:
                self._read_into(name, path, offset, into)
            except OSError as error:
                if error.errno != errno.EINVAL or not direct:
                    raise
                # A file system where such reads must be aligned, as ranges of packs are not.
                self._direct = False
                self._handles.forget(name)
                self._read_into(name, path, offset, into)
        except OverflowError:
            raise CorruptObject(name, f"no file has a byte {offset}") from None
        except OSError as error:
            # A handle that failed may be stale for good, while a new one works.
            self._handles.forget(name)
            raise self._trouble(error, path, name) from error

    def _read_into(self, name: str, path: str, offset: int, into: memoryview) -> None:
        view = into.cast("B")
        with self._opened(name, path) as descriptor:
            done = 0
            while done < len(view):
                count = os.preadv(descriptor, [view[done:]], offset + done)
                if count <= 0:
                    end = offset + len(view)
                    raise CorruptObject(name, f"it ends at byte {offset + done} of {end}")
                done += count

    def _opened(self, name: str, path: str) -> AbstractContextManager[int]:
        if name.startswith(_NEVER_REPLACED):
            return self._handles.use(name, lambda: self._open_pack(path, name))
        return _opened_once(path, name)

    def _open_pack(self, path: str, name: str) -> int:
        descriptor = _open_object(path, name)
        if self._direct and self.parallel_reads:
            read_past_cache(descriptor)
        return descriptor

    def size(self, name: str) -> int:
        """As the protocol says."""
        self._know_format()
        path = self._path(name)
        try:
            return _size_of_object(os.lstat(path), name)
        except OSError as error:
            raise self._trouble(error, path, name) from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says."""
        self._know_format()
        self._path(prefix)
        pending = [prefix]
        while pending:
            directory = pending.pop()
            path = self._path(directory)
            try:
                with os.scandir(path) as entries:
                    # Temporary files begin with a dot, so they are no components of a name.
                    found = [entry for entry in entries if is_component(entry.name)]
            except OSError as error:
                if error.errno in _ABSENT:
                    continue
                raise self._trouble(error, path, directory) from error
            for entry in found:
                name = f"{directory}/{entry.name}"
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if error.errno in _ABSENT:
                        continue
                    raise self._trouble(error, path, name) from error
                if stat.S_ISDIR(status.st_mode):
                    pending.append(name)
                elif stat.S_ISREG(status.st_mode):
                    yield ObjectInfo(name, status.st_size, status.st_mtime)

    # Writing

    @property
    def exclusive(self) -> bool:
        """Yes, until a commit has met a file system without hard links."""
        return self._links

    def create(self, name: str) -> Writer:
        """As the protocol says; the first call makes the store."""
        return self._begin(name, over=False)

    def replace(self, name: str, data: Buffer) -> None:
        """As the protocol says."""
        with self._begin(name, over=True) as writer:
            writer.write(data)
            writer.commit()
        self._handles.forget(name)

    def _begin(self, name: str, *, over: bool) -> LocalWriter:
        path = self._path(name)
        self._know_format()
        if not self._format_known:
            self._found_store()
        return self._open_writer(name, path, over=over)

    def move(self, name: str, to: str) -> None:
        """As the protocol says."""
        path, target = self._path(name), self._path(to)
        self._know_format()
        try:
            _size_of_object(os.lstat(path), name)
            self._make_directory(os.path.dirname(target))
            os.rename(path, target)
            sync_directory(os.path.dirname(target))
            sync_directory(os.path.dirname(path))
        except OSError as error:
            raise self._trouble(error, path, name) from error
        finally:
            self._handles.forget(name)
            self._handles.forget(to)

    def delete(self, name: str) -> None:
        """As the protocol says."""
        path = self._path(name)
        self._know_format()
        self._handles.forget(name)
        try:
            os.unlink(path)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise self._trouble(error, path, name) from error

    def temporaries(self, prefix: str) -> Iterator[tuple[Path, Temporary]]:
        """Temporary files under *prefix*, or all, of writers at work and of writers that died."""
        for directory, _, files in os.walk(self._path(prefix) if prefix else self._root):
            for file in files:
                if temporary := temporary_of(file):
                    yield Path(directory, file), temporary

    def leftovers(self) -> Iterator[Leftover]:
        """As the protocol says; temporary files, their age by the clock of the file system."""
        self._know_format()
        now: float | None = None
        for path, _ in self.temporaries(""):
            try:
                status = os.lstat(path)
                now = self._now() if now is None else now
            except OSError as error:
                if error.errno in _ABSENT:
                    continue
                raise self._trouble(error, str(path), None) from error
            token = os.path.relpath(path, self._root)
            yield Leftover(token, token, status.st_size, now - status.st_mtime)

    def remove(self, leftover: Leftover) -> None:
        """As the protocol says."""
        directory, _, file = leftover.token.rpartition("/")
        if temporary_of(file) is None or (directory and not is_object_name(directory)):
            raise ValueError(f"{leftover.token!r} is not a temporary file's name")
        path = f"{self._root}/{leftover.token}"
        try:
            os.unlink(path)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise self._trouble(error, path, None) from error

    def _now(self) -> float:
        """Seconds since 1970, as the file system stamps what is written now."""
        path = f"{self._root}/{temporary_name()}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            return os.lstat(path).st_mtime
        finally:
            os.unlink(path)

    # The store itself

    def _path(self, name: str) -> str:
        if not is_object_name(name):
            raise ValueError(f"{name!r} is not an object's name")
        return f"{self._root}/{name}"

    def _know_format(self) -> None:
        """Read ``cachepod.json`` once; a store without one is empty or about to be founded."""
        if self._format_known:
            return
        path = f"{self._root}/{FORMAT_OBJECT}"
        try:
            data = _read_file(path, FORMAT_OBJECT, FORMAT_LIMIT)
        except ObjectMissing:
            return
        except CorruptObject as error:
            raise unreadable_format(self._root, path) from error
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise self._unreachable(error, self._root) from error
        version = format_version(data)
        if version is None:
            raise unreadable_format(self._root, path)
        if version > STORE_FORMAT:
            raise NewerFormat(path, version, STORE_FORMAT)
        self._format_known = True

    def _found_store(self) -> None:
        for name, data in ((TAG_NAME, TAG), (FORMAT_OBJECT, FORMAT_DOCUMENT)):
            with self._open_writer(name, self._path(name)) as writer:
                writer.write(data)
                writer.commit()
        self._know_format()  # another process, of another version, may have been first

    def _open_writer(self, name: str, path: str, *, over: bool = False) -> LocalWriter:
        directory = os.path.dirname(path)
        try:
            self._make_directory(directory)
            return LocalWriter(
                name,
                path,
                lambda error: self._trouble(error, path, None),
                over=over,
                unlinked=self._has_no_links,
            )
        except OSError as error:
            raise self._trouble(error, directory, None) from error

    def _has_no_links(self) -> None:
        self._links = False

    def _make_directory(self, path: str) -> None:
        """Make *path* and what is missing above it, each made to last before the next."""
        if os.path.isdir(path):
            return
        if not self._create and not os.path.isdir(self._root):
            raise StoreUnreachable(self._root, "there is no such directory")
        parent = os.path.dirname(path)
        if parent != path:
            self._make_directory(parent)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        else:
            sync_directory(parent)

    # Errors

    def _trouble(self, error: OSError, path: str, name: str | None) -> CachepodError:
        """What *error* means; *name* is given where absence means that the object is missing."""
        if name is not None and error.errno in _ABSENT:
            return ObjectMissing(name)
        if name is not None and error.errno == errno.ELOOP:
            return CorruptObject(name, "it is a symbolic link")
        if error.errno in _FULL:
            return SpaceExhausted(path, error.strerror or "full", hint=_HINTS[error.errno])
        return self._unreachable(error, path)

    def _unreachable(self, error: OSError, path: str) -> StoreUnreachable:
        code = error.errno or 0
        where = "" if path == self._root else f"{path}: "
        return StoreUnreachable(
            self._root,
            f"{where}{error.strerror or error}",
            hint=_HINTS.get(code, ""),
            transient=code in _TRANSIENT,
        )


def _size_of_object(status: os.stat_result, name: str) -> int:
    if stat.S_ISDIR(status.st_mode):
        raise ObjectMissing(name)
    if not stat.S_ISREG(status.st_mode):
        raise CorruptObject(name, "it is not a regular file")
    return status.st_size


def _open_object(path: str, name: str) -> int:
    descriptor = os.open(path, _READ_OBJECT)
    try:
        _size_of_object(os.fstat(descriptor), name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _opened_once(path: str, name: str) -> Iterator[int]:
    descriptor = _open_object(path, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_file(path: str, name: str, limit: int) -> bytes:
    descriptor = _open_object(path, name)
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise CorruptObject(name, f"it has {size} bytes, at most {limit} are allowed")
        parts: list[bytes] = []
        done = 0
        while done <= limit and (part := os.pread(descriptor, max(size - done, 0) + 1, done)):
            parts.append(part)
            done += len(part)
    finally:
        os.close(descriptor)
    if done > limit:
        raise CorruptObject(name, f"it has more than the {limit} bytes that are allowed")
    return b"".join(parts)
