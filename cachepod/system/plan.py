"""
What an apply is to do, found out before anything is written.

The tree is taken as a stranger's: every path is checked, no link is followed outside of the root or
within it, and nothing is to be done where another file system is mounted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cachepod.errors import PlaceTaken, TreeUnreadable
from cachepod.system.base import STATUS
from cachepod.system.capture import EDITED
from cachepod.system.look import matches
from cachepod.system.metadata import FILES, Layer
from cachepod.system.paths import is_below, is_closed, mounted
from cachepod.system.record import place

_MAX_DEPTH = 200


@dataclass(frozen=True)
class Entry:
    """
    One path of the tree.

    Args:
        path: Below the root.

        source: Where it lies in the tree.

        info: What lstat says of it there.

        linked: Whether the root is to have a hard link to it, not a copy.
    """

    path: str
    source: str
    info: os.stat_result
    linked: bool

    @property
    def is_directory(self) -> bool:
        """Whether it is that."""
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.info.st_mode)


@dataclass
class Plan:
    """
    What to do, in order.

    Args:
        directories: Those above others first.

        files: Files and links outside of dpkg's database.

        removed: Paths to remove, what is in a directory before it.

        database: Files of dpkg's database, without the last.

        forgotten: Files of it to remove.

        status: What is installed; it comes last of all.

        copied: Bytes of files that cannot be links.

        size: Bytes of all files.
    """

    directories: list[Entry] = field(default_factory=list)
    files: list[Entry] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    database: list[Entry] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    status: Entry | None = None
    copied: int = 0
    size: int = 0


def make_plan(root: Path, layer: Layer) -> Plan:
    """
    Read the tree of *root* and look where its paths would lie.

    Raises:
        TreeUnreadable: The tree is no layer, or some path of it may not be touched.

        PlaceTaken: What the container has there is in the way.
    """
    top = os.path.abspath(root).rstrip("/")
    ground = _Ground(top, mounted(root), layer)
    plan = Plan()
    try:
        for folder in (place(root), place(root) / FILES):
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise TreeUnreadable(os.fspath(folder), "it is no directory")
        linking = os.lstat(place(root) / FILES).st_dev == os.stat(top + "/").st_dev
        for entry in _walk(os.fspath(place(root) / FILES), layer, linking):
            ground.check(entry.path)
            if entry.is_directory:
                plan.directories.append(entry)
                continue
            if stat.S_ISREG(entry.info.st_mode):
                plan.size += entry.info.st_size
                plan.copied += 0 if entry.linked else entry.info.st_size
            if entry.path == STATUS:
                plan.status = entry
            elif is_below(entry.path, ("var/lib/dpkg",)):
                plan.database.append(entry)
            else:
                plan.files.append(entry)
    except OSError as error:
        where = error.filename or os.fspath(place(root))
        raise TreeUnreadable(os.fsdecode(where), error.strerror or str(error)) from error
    for path in layer.removed:
        ground.check(path)
        (plan.forgotten if is_below(path, ("var/lib/dpkg",)) else plan.removed).append(path)
    if layer.after != layer.before and plan.status is None:
        raise TreeUnreadable(os.fspath(place(root)), "it has no database of dpkg")
    return plan


def _walk(files: str, layer: Layer, linking: bool) -> Iterator[Entry]:
    """Every path of the tree, a directory before what is in it, in order of names."""
    own = layer.owners.keys() | layer.modes.keys() | layer.capabilities.keys()
    pending = [("", 0)]
    while pending:
        folder, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise TreeUnreadable(f"{files}/{folder}", "directories are nested too deep")
        with os.scandir(f"{files}/{folder}" if folder else files) as found:
            children = sorted(found, key=lambda child: child.name)
        below = []
        for child in children:
            path = f"{folder}/{child.name}" if folder else child.name
            info = child.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                below.append((path, depth + 1))
            elif not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                raise TreeUnreadable(child.path, "it is neither file, link nor directory")
            linked = (
                linking
                and stat.S_ISREG(info.st_mode)
                and path not in own
                and not is_below(path, EDITED)
            )
            yield Entry(path, child.path, info, linked)
        pending.extend(reversed(below))


class _Ground:
    """The root, as far as paths of the tree would lie in it."""

    def __init__(self, top: str, mounts: frozenset[str], layer: Layer) -> None:
        self._top = top
        self._mounts = mounts
        self._layer = layer
        self._device = os.stat(top + "/").st_dev
        self._folders = {"": True}  # whether it is there, of those that are sound

    def check(self, path: str) -> None:
        """Refuse a *path* that no layer may touch."""
        where = f"{self._top}/{path}"
        if is_closed(path):
            raise TreeUnreadable(where, "no layer of apt packages may put anything there")
        if path in self._mounts:
            raise PlaceTaken(where, "something else is mounted there")
        self._is_there(path.rpartition("/")[0], where)

    def _is_there(self, folder: str, where: str) -> bool:
        known = self._folders.get(folder)
        if known is None:
            above = self._is_there(folder.rpartition("/")[0], where)
            known = self._folders[folder] = above and self._look(folder, where)
        return known

    def _look(self, folder: str, where: str) -> bool:
        full = f"{self._top}/{folder}"
        try:
            info = os.lstat(full)
        except FileNotFoundError:
            return False  # it is going to be made
        if stat.S_ISDIR(info.st_mode):
            if folder in self._mounts or info.st_dev != self._device:
                raise PlaceTaken(where, f"something else is mounted at {full}")
            return True
        if folder in self._layer.changed and matches(self._layer.changed[folder], full, info, ""):
            return False  # it is going to be replaced
        what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no directory"
        raise PlaceTaken(where, f"{full} is {what} here")
