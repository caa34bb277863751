"""
What a tree on this machine holds: the manifest it was made from, and who touched it since.

The index, kept beside the stamp, everything little-endian::

    offset  size  what
    0       8     "cpindex" and version, 1
    8       32    BLAKE3-256 digest of the manifest it belongs to
    40      8     number of entries, n
    48      8*n   inode of each regular file, zero for other entries
    ...     8*n   ctime of each regular file in nanoseconds, likewise

A file whose inode, ctime, size and mtime are still those of the index has not been written to:
no system call sets a ctime. This is git's index, less its stat fields that say nothing more.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path

from cachepod.errors import CachepodError
from cachepod.model.manifest import Manifest
from cachepod.model.summary import Summary
from cachepod.model.tables import Entries, Kind
from cachepod.snapshot.paths import LONGEST, reachable
from cachepod.snapshot.stamp import Stamp, State, read_stamp, state_directory, write_stamp
from cachepod.snapshot.ticks import outlast

_HEAD = struct.Struct("<8s32sQ")
_MAGIC = b"cpindex\x01"
_MANIFEST = "manifest"
_INDEX = "index"


@dataclass(frozen=True)
class Held:
    """
    The snapshot that a tree was made from.

    Args:
        root: Where the tree is.

        manifest: Of the whole snapshot, which may have more trees.

        row: Of this tree's root.

        inode: ``Q``, one row an entry of the manifest, zero where unknown.

        ctime: ``q``, nanoseconds, likewise.
    """

    root: Path
    manifest: Manifest
    row: int
    inode: array[int]
    ctime: array[int]

    def untouched(self, row: int, info: os.stat_result) -> bool:
        """Whether regular file *row* is as it was when the index was written."""
        entries = self.manifest.entries
        return (
            info.st_ino == self.inode[row]
            and info.st_ctime_ns == self.ctime[row]
            and info.st_size == entries.size[row]
        )

    def is_whole(self) -> bool:
        """Whether every entry is there and untouched; what was added beside them is not minded."""
        return _is_whole(self)


def write_held(
    root: Path, stamp: Stamp, manifest: bytes, digest: str, inode: array[int], ctime: array[int]
) -> None:
    """
    Record that the tree at *root* now holds the snapshot; the stamp is written last.

    Args:
        manifest: The object as the store has it.

        digest: Its BLAKE3-256 in hex.

    Raises:
        OSError: As the file system has it.
    """
    directory = state_directory(root)
    directory.mkdir(exist_ok=True)
    for name, parts in (
        (_MANIFEST, (manifest,)),
        (
            _INDEX,
            (
                _HEAD.pack(_MAGIC, bytes.fromhex(digest), len(inode)),
                _little(inode),
                _little(ctime),
            ),
        ),
    ):
        temporary = directory / f"{name}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.writelines(parts)
        os.replace(temporary, directory / name)
    write_stamp(root, stamp)


def read_held(root: Path, tree: str) -> Held | None:
    """What the tree at *root* was made from; None if that is not known for certain."""
    directory = state_directory(root)
    try:
        data = (directory / _MANIFEST).read_bytes()
        index = (directory / _INDEX).read_bytes()
        manifest = Manifest.decode(data, name=str(directory / _MANIFEST), believed=True)
    except (OSError, CachepodError):
        return None
    total = len(manifest.entries)
    if len(index) != _HEAD.size + 16 * total:
        return None
    magic, digest, rows = _HEAD.unpack_from(index)
    if magic != _MAGIC or rows != total or digest.hex() != manifest.digest:
        return None
    row = next((row for row, info in enumerate(manifest.summary.trees) if info.name == tree), None)
    if row is None:
        return None
    inode: array[int] = array("Q")
    ctime: array[int] = array("q")
    inode.frombytes(index[_HEAD.size : _HEAD.size + 8 * total])
    ctime.frombytes(index[_HEAD.size + 8 * total :])
    if sys.byteorder == "big":
        inode.byteswap()
        ctime.byteswap()
    return Held(root, manifest, row, inode, ctime)


def held_summary(root: Path) -> Summary | None:
    """The summary of the snapshot that the tree at *root* was made from, without its entries."""
    file = state_directory(root) / _MANIFEST
    try:
        return Manifest.decode_summary(file.read_bytes(), name=str(file))
    except (OSError, CachepodError):
        return None


def holds(
    root: Path, tree: str, key: str, state: State = State.COMPLETE, digest: str = ""
) -> Held | None:
    """
    The snapshot *key* if the tree at *root* holds it whole and untouched, and is in *state*.

    Every entry is looked at; what was added beside them since is not minded. With a *digest* it
    must be the very manifest of that digest.
    """
    stamp = read_stamp(root)
    if stamp is None or stamp.state != state or stamp.key != key or stamp.tree != tree:
        return None
    if digest and digest != stamp.manifest:
        return None
    held = read_held(root, tree)
    if held is None or held.manifest.digest != stamp.manifest:
        return None
    return held if held.is_whole() else None


def reindex(held: Held) -> None:
    """
    Take the ctimes of the tree anew, for links to its files, or links gone, have changed them.

    Only for a tree that was whole before. A file that is not the one it was stays unknown.

    Raises:
        OSError: As the file system has it; the tree is then restored anew when it is asked for.
    """
    entries = held.manifest.entries
    directories = paths_of(entries, held.row, os.path.abspath(os.fsencode(held.root)))
    inode, ctime = array("Q", held.inode), array("q", held.ctime)
    for row, (kind, parent) in enumerate(zip(entries.kind, entries.parent, strict=True)):
        above = directories.get(parent)
        if kind != Kind.FILE or above is None:
            continue
        with reachable(above + b"/" + entries.names[row]) as short:
            info = os.lstat(short)
        known = info.st_ino == inode[row] and info.st_size == entries.size[row]
        ctime[row] = info.st_ctime_ns if known else 0
    stamp = read_stamp(held.root)
    if stamp is None or stamp.manifest != held.manifest.digest:
        return
    manifest = (state_directory(held.root) / _MANIFEST).read_bytes()
    write_held(held.root, stamp, manifest, held.manifest.digest, inode, ctime)
    outlast(max(ctime, default=0))


def _is_whole(held: Held) -> bool:
    entries = held.manifest.entries
    directories = {held.row: os.path.abspath(os.fsencode(held.root))}
    lstat = os.lstat
    try:
        for row, (kind, parent, name) in enumerate(
            zip(entries.kind, entries.parent, entries.names, strict=True)
        ):
            above = directories.get(parent)
            if above is None or parent == row:
                continue
            path = above + b"/" + name
            if len(path) > LONGEST:
                with reachable(path) as short:
                    info = lstat(short)
            else:
                info = lstat(path)
            if kind == Kind.FILE:
                if not held.untouched(row, info):
                    return False
            elif kind == Kind.DIRECTORY:
                if (info.st_mode & 0o170000) != 0o040000:
                    return False
                directories[row] = path
            elif kind == Kind.SYMLINK:
                if (info.st_mode & 0o170000) != 0o120000:
                    return False
                with reachable(path) as short:
                    if os.readlink(short) != entries.targets[entries.size[row]]:
                        return False
            elif info.st_ino != held.inode[entries.size[row]]:
                return False
    except OSError:
        return False
    return True


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def paths_of(entries: Entries, root: int, path: bytes) -> dict[int, bytes]:
    """Row of each directory of the tree with row *root* to its absolute path, *path* its root's."""
    directories = {root: path}
    for row, (kind, parent) in enumerate(zip(entries.kind, entries.parent, strict=True)):
        if kind == Kind.DIRECTORY and parent != row and parent in directories:
            directories[row] = directories[parent] + b"/" + entries.names[row]
    return directories
