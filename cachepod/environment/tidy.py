"""
Make an installed tree a function of what is installed, not of when or after what.

Installers stamp files with the time of the installation and leave traces of what was there
before. Here every time becomes the same one, and what no distribution owns goes.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cachepod.environment.distributions import Distribution
from cachepod.snapshot.stamp import STATE_DIRECTORY

EPOCH = 946_684_800  # 2000-01-01T00:00:00Z; zip files know nothing before 1980
_EPOCH_NS = EPOCH * 1_000_000_000

# What a virtual environment has of its own, relative to its root.
_VENV_FILES = re.compile(
    r"pyvenv\.cfg|lib64|bin/(python[0-9.]*t?|pypy[0-9.]*|[Aa]ctivate(\.\w+)?|activate_this\.py)"
    r"|(include|share|man)(/.*)?"
)


@dataclass(frozen=True)
class Extent:
    """*files* that are not directories and the *size* of the regular ones."""

    files: int
    size: int


def normalise_times(root: Path) -> Extent:
    """
    Give everything under *root* the same modification time.

    Only what has another one is touched, so that the change times of all else stay what a
    publish remembers. The state directory is left alone.
    """
    files = size = 0
    for entry in _walk(str(root)):
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            files += 1
        if stat.S_ISREG(status.st_mode):
            size += status.st_size
        _set_time(entry.path, status)
    _set_time(str(root), os.lstat(root))
    return Extent(files, size)


def _set_time(path: str, status: os.stat_result) -> None:
    if status.st_mtime_ns != _EPOCH_NS:
        # A bind mount inside the tree may belong to someone else.
        with contextlib.suppress(PermissionError):
            os.utime(path, ns=(status.st_atime_ns, _EPOCH_NS), follow_symlinks=False)


def _walk(root: str) -> Iterator[os.DirEntry[str]]:
    """Everything under *root* but the state directory, directories before what is in them."""
    pending = [root]
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name == STATE_DIRECTORY and directory == root:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                yield entry


def remove_strays(root: Path, site: Path, distributions: Iterable[Distribution]) -> list[str]:
    """
    Remove from the environment at *root* every file that no distribution owns, and directories
    that this leaves empty.

    Bytecode belongs to whoever owns its source. Nothing is removed if some distribution has no
    RECORD, for then nobody knows what it owns.

    Returns:
        What was removed that is not bytecode, relative to *root*.
    """
    owned: set[str] = set()
    for distribution in distributions:
        if distribution.files is None:
            return []
        owned.update(distribution.files)
    top = str(root)
    removed = []
    directories = []
    for entry in _walk(top):
        relative = os.path.relpath(entry.path, top)
        if entry.is_dir(follow_symlinks=False):
            directories.append(entry.path)
        elif (
            entry.path in owned
            or _VENV_FILES.fullmatch(relative)
            or (relative.endswith(".pyc") and _source(entry.path) in owned)
        ):
            continue
        else:
            os.unlink(entry.path)
            if not relative.endswith(".pyc"):
                removed.append(relative)
    site_parents = {str(site), *map(str, site.parents)}
    for path in reversed(directories):
        keep = path in site_parents or _VENV_FILES.fullmatch(os.path.relpath(path, top))
        if not keep:
            with contextlib.suppress(OSError):
                os.rmdir(path)  # fails for all that are not empty
    return sorted(removed)


def _source(path: str) -> str:
    """The source that the .pyc at *path* was compiled from: PEP 3147's names."""
    directory, name = os.path.split(path)
    if os.path.basename(directory) != "__pycache__":
        return ""
    return os.path.join(os.path.dirname(directory), f"{name.partition('.')[0]}.py")
