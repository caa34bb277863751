"""Walk trees into the columns of a manifest, with what is needed to notice later changes."""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cachepod.errors import TreeChanged, TreeUnreadable
from cachepod.model.columns import ByteStrings
from cachepod.model.layout import MAX_DEPTH
from cachepod.model.surroundings import Surroundings
from cachepod.model.tables import Entries, Kind
from cachepod.snapshot.paths import LONGEST, reachable
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.stamp import STATE_DIRECTORY

#: Set-uid and set-gid never enter a snapshot: what is on a volume is not trusted.
MODE_MASK = 0o1777
_PROGRESS_EVERY = 2000
#: Smaller files are stored with their holes filled: a run of small files costs less.
_SPARSE = 64 * 1024
_STATE = STATE_DIRECTORY.encode()


@dataclass(frozen=True)
class TreeSource:
    """
    A directory to capture.

    Args:
        name: The tree's.

        root: Where it is.

        around: What belongs to it and lies outside of it; the snapshot tells it to a restore.
    """

    name: str
    root: Path
    around: Surroundings | None = None


@dataclass
class Scan:
    """
    Trees as they were found.

    Args:
        entries: As in a manifest; owners are not known yet.

        inode: ``Q``, one row an entry; zero unless it is a regular file.

        ctime: ``q``, nanoseconds; likewise.

        sparse: Rows of files that may hold holes.

        directories: Row of each directory to its absolute path.

        warnings: What was left out, in words.
    """

    entries: Entries
    inode: array[int]
    ctime: array[int]
    sparse: set[int]
    directories: dict[int, bytes]
    warnings: list[str] = field(default_factory=list)

    def path(self, row: int) -> bytes:
        """Absolute path of *row*."""
        directory = self.directories.get(row)
        if directory is not None:
            return directory
        return self.directories[self.entries.parent[row]] + b"/" + self.entries.names[row]


class _Scanner:
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.kind: array[int] = array("B")
        self.parent: array[int] = array("I")
        self.mode: array[int] = array("H")
        self.mtime: array[int] = array("q")
        self.size: array[int] = array("Q")
        self.inode: array[int] = array("Q")
        self.ctime: array[int] = array("q")
        self.names: list[bytes] = []
        self.targets: list[bytes] = []
        self.xattrs: list[tuple[int, bytes, bytes]] = []
        self.sparse: set[int] = set()
        self.warnings: list[str] = []
        self.directories: dict[int, bytes] = {}
        # By the row of the tree's root as well: a tree must be whole without the others.
        self._links: dict[tuple[int, int, int], int] = {}
        self._root: dict[int, int] = {}
        self._depth: dict[int, int] = {}
        self._without_xattrs: set[int] = set()
        self._unreported = [0, 0]

    def add(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        row = len(self.kind)
        mode = info.st_mode
        inode = ctime = size = 0
        if stat.S_ISREG(mode):
            kind, size = Kind.FILE, info.st_size
            inode, ctime = info.st_ino, info.st_ctime_ns
            if info.st_nlink > 1:
                name_of = (self._root.get(parent, row), info.st_dev, info.st_ino)
                first = self._links.setdefault(name_of, row)
                if first != row:
                    kind, size = Kind.HARDLINK, first
            few_blocks = size >= _SPARSE and info.st_blocks * 512 < size
            if kind == Kind.FILE and few_blocks and _has_hole(path, size):
                self.sparse.add(row)
        elif stat.S_ISDIR(mode):
            kind = Kind.DIRECTORY
            self.directories[row] = path
            self._root[row] = self._root.get(parent, row)
            self._depth[row] = self._depth.get(parent, -1) + 1
            if self._depth[row] > MAX_DEPTH:
                raise TreeUnreadable(os.fsdecode(path), "directories are nested too deep")
        elif stat.S_ISLNK(mode):
            kind, size = Kind.SYMLINK, len(self.targets)
            with reachable(path) as short:
                self.targets.append(os.readlink(short))
        else:
            self.warnings.append(f"{os.fsdecode(path)} is left out: it is a {_word(mode)}")
            return
        self.kind.append(kind)
        self.parent.append(row if parent < 0 else parent)
        self.mode.append(mode & MODE_MASK)
        self.mtime.append(info.st_mtime_ns)
        self.size.append(size)
        self.inode.append(inode)
        self.ctime.append(ctime)
        self.names.append(name)
        if kind in (Kind.FILE, Kind.DIRECTORY) and info.st_dev not in self._without_xattrs:
            self._read_xattrs(row, path, info.st_dev)
        self._count(size if kind == Kind.FILE else 0)

    def _read_xattrs(self, row: int, path: bytes, device: int) -> None:
        """Only ``user.*``: the others are the machine's own, or powers (security.capability)."""
        try:
            with reachable(path) as short:
                for name in os.listxattr(short, follow_symlinks=False):
                    if name.startswith("user."):
                        value = os.getxattr(short, name, follow_symlinks=False)
                        self.xattrs.append((row, os.fsencode(name), value))
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENOSYS):
                self._without_xattrs.add(device)
            elif error.errno not in (errno.EACCES, errno.EPERM, errno.ENODATA, errno.ENOENT):
                raise

    def _count(self, size: int) -> None:
        self._unreported[0] += 1
        self._unreported[1] += size
        if self._unreported[0] >= _PROGRESS_EVERY:
            self.flush()

    def flush(self) -> None:
        self.progress.advance(*self._unreported)
        self._unreported = [0, 0]

    def read_directory(self, row: int) -> None:
        path = self.directories[row]
        is_root = self.parent[row] == row
        with reachable(path) as short:
            try:
                with os.scandir(short) as found:
                    children = sorted(((child.name, child) for child in found), key=_by_name)
                for name, child in children:
                    if is_root and name == _STATE:
                        continue
                    below = path + b"/" + name
                    if len(below) > LONGEST:
                        with reachable(below) as near:
                            info = os.lstat(near)
                    else:
                        info = child.stat(follow_symlinks=False)
                    self.add(row, name, below, info)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise TreeChanged(os.fsdecode(error.filename or path)) from error
            except OSError as error:
                where = os.fsdecode(error.filename or path)
                if error.errno == errno.EINVAL:  # readlink: it is no symlink any more
                    raise TreeChanged(where) from error
                raise TreeUnreadable(where, error.strerror or str(error)) from error


def scan(sources: Sequence[TreeSource], progress: Progress) -> Scan:
    """
    Walk every tree of *sources*, breadth first and in order of names.

    The state directory of a tree is left out, and so are FIFOs, sockets and devices, with a
    warning.

    Raises:
        TreeUnreadable: A root is no directory, or something in it cannot be read.

        TreeChanged: Something vanished meanwhile.
    """
    scanner = _Scanner(progress)
    for source in sources:
        root = os.path.abspath(os.fsencode(source.root))
        try:
            info = os.stat(root)
            if not stat.S_ISDIR(info.st_mode):
                raise TreeUnreadable(str(source.root), "it is not a directory")
            scanner.add(-1, b"", root, info)
        except OSError as error:
            raise TreeUnreadable(str(source.root), error.strerror or str(error)) from error
    row = 0
    while row < len(scanner.kind):
        if scanner.kind[row] == Kind.DIRECTORY:
            scanner.read_directory(row)
        row += 1
    scanner.flush()
    total = len(scanner.kind)
    entries = Entries(
        kind=scanner.kind,
        parent=scanner.parent,
        mode=scanner.mode,
        mtime=scanner.mtime,
        size=scanner.size,
        owner=array("I", bytes(4 * total)),
        flags=array("B", bytes(total)),
        names=ByteStrings.of(scanner.names),
        targets=ByteStrings.of(scanner.targets),
        xattrs=tuple(scanner.xattrs),
    )
    return Scan(
        entries,
        scanner.inode,
        scanner.ctime,
        scanner.sparse,
        scanner.directories,
        scanner.warnings,
    )


def _has_hole(path: bytes, size: int) -> bool:
    """
    Whether the file at *path* has a hole before its end.

    Fewer blocks than bytes is only a hint: file systems that compress look so, too.
    """
    try:
        with reachable(path) as short:
            descriptor = os.open(short, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # whoever reads it says why it cannot be read
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE) < size
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _by_name(child: tuple[bytes, os.DirEntry[bytes]]) -> bytes:
    return child[0]


def _word(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "FIFO"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device"
