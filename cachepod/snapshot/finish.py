"""What a stage needs beside the files that were brought: links, and attributes of directories."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from cachepod.errors import Miss, write_problem
from cachepod.model.manifest import Manifest
from cachepod.model.tables import Kind
from cachepod.snapshot.engine import Engine
from cachepod.snapshot.held import paths_of
from cachepod.snapshot.keep import Keep
from cachepod.snapshot.paths import reachable
from cachepod.snapshot.plan import Plan
from cachepod.snapshot.scan import MODE_MASK

#: Why a file cannot be linked into the stage.
_NO_LINK = frozenset(
    (errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV, errno.ENOENT, errno.ENOTSUP)
)


def link_kept(keep: Keep, directories: Mapping[int, bytes]) -> list[int]:
    """
    Link the files that stay as they are into the stage; rows of those that cannot be.

    A file of another owner, one with too many names, or one that is gone by now is brought anew.
    """
    entries = keep.entries
    refused: list[int] = []
    for (row, path), mtime in zip(keep.paths(), keep.mtimes, strict=True):
        target = directories[entries.parent[row]] + b"/" + entries.names[row]
        try:
            with reachable(path) as source, reachable(target) as short:
                os.link(source, short, follow_symlinks=False)
                if os.lstat(short).st_mtime_ns != mtime:  # written to since it was looked at
                    os.unlink(short)
                    refused.append(row)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise write_problem(target, error) from error
            refused.append(row)
    if refused:
        again = set(refused)
        keep.rows[:] = array("I", (row for row in keep.rows if row not in again))
    return refused


def take_index(manifest: Manifest, root: int, place: Path, engine: Engine) -> None:
    """Take inode and ctime of every file from where it is now."""
    entries = manifest.entries
    directories = paths_of(entries, root, os.fsencode(place))
    for row, (kind, parent) in enumerate(zip(entries.kind, entries.parent, strict=True)):
        above = directories.get(parent)
        if kind != Kind.FILE or above is None:
            continue
        path = above + b"/" + entries.names[row]
        try:
            with reachable(path) as short:
                info = os.lstat(short)
        except OSError:
            info = None
        if (
            info is None
            or engine.inode[row] not in (0, info.st_ino)
            or info.st_size != entries.size[row]
        ):
            engine.inode[row] = engine.ctime[row] = 0
        else:
            engine.inode[row], engine.ctime[row] = info.st_ino, info.st_ctime_ns


def finish(engine: Engine, plan: Plan, roots: Sequence[int]) -> None:
    """Hard links, symlinks, and last the attributes of directories, the deepest first."""
    entries = engine.manifest.entries
    linked: set[int] = set()
    for row in plan.hardlinks:
        first = entries.size[row]
        try:
            with reachable(engine.path(first)) as source, reachable(engine.path(row)) as target:
                os.link(source, target, follow_symlinks=False)
        except (OSError, KeyError) as error:
            if isinstance(error, KeyError):
                raise Miss(
                    engine.manifest.summary.key, "a hard link crosses from one tree to another"
                ) from error
            raise engine.writing(row, error) from error
        linked.add(first)
    for row in linked:
        with reachable(engine.path(row)) as short:
            info = os.lstat(short)
        engine.inode[row], engine.ctime[row] = info.st_ino, info.st_ctime_ns
    for row in plan.symlinks:
        mtime = entries.mtime[row]
        try:
            with reachable(engine.path(row)) as short:
                os.symlink(entries.targets[entries.size[row]], short)
                os.utime(short, ns=(mtime, mtime), follow_symlinks=False)
        except OSError as error:
            raise engine.writing(row, error) from error
    apart = set(roots)
    for row in reversed(plan.directories):
        if row not in apart:  # a tree's root is closed only once it is in its place
            try:
                set_directory(engine, row, engine.directories[row])
            except OSError as error:
                raise engine.writing(row, error) from error


def set_directory(engine: Engine, row: int, path: bytes, *, open_up: bool = False) -> None:
    """Give a directory its attributes, but with *open_up* leave it writable for its owner."""
    entries = engine.manifest.entries
    mtime = entries.mtime[row]
    mode = entries.mode[row] & MODE_MASK
    with reachable(path) as short:
        engine.set_xattrs(row, short)
        os.chmod(short, mode | 0o700 if open_up else mode)
        os.utime(short, ns=(mtime, mtime))
