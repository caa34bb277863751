"""Digests of local projects and packages by content, the same wherever they lie."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

_BLOCK = 1 << 20
# Not part of a project's sources: version control, what building and testing leave behind.
_IGNORED = frozenset({".git", ".hg", ".svn", "__pycache__", ".cachepod"})
_IGNORED_AT_TOP = frozenset({"build", "dist"})
_IGNORED_SUFFIXES = (".pyc", ".egg-info", ".abi3.so")
# What an editable installation compiles into the sources: after it the key must be what it was.
_COMPILED = re.compile(r"\.(?:cpython|pypy)[0-9a-z_-]*\.so$")
# A directory with one of these is an environment or a cache, whatever its name.
_NOT_SOURCES = frozenset({"pyvenv.cfg", "CACHEDIR.TAG"})


def file_digest(path: Path) -> str:
    """SHA-256 of the bytes of *path*, hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def directory_digest(root: Path, leave_out: Collection[Path] = ()) -> str:
    """
    SHA-256 over a project's sources: relative names, contents, and which files are executable.

    Left out are ``.git``, ``__pycache__``, ``*.pyc``, ``*.egg-info``, the project's own ``build/``
    and ``dist/``, modules compiled in place, and every virtual environment or tagged cache inside
    it. A link to a file counts as that file, a link to a directory as its text.

    Args:
        root: The project.

        leave_out: Directories that do not count either: the environment may lie in the project,
            and be half made.

    Raises:
        OSError: Something in it cannot be read.
    """
    digest = hashlib.sha256()
    outside = frozenset(os.fsencode(folder) for folder in leave_out)
    for name, kind, path in sorted(_sources(os.fsencode(root), b"", outside)):
        if kind == "link":
            value = hashlib.sha256(os.readlink(path)).hexdigest()
        else:
            value = file_digest(Path(os.fsdecode(path)))
        # a name cannot hold the zero byte, so no two trees give the same text
        digest.update(b"%s\0%s\0%s\0" % (name, kind.encode(), value.encode()))
    return digest.hexdigest()


def _sources(
    folder: bytes, inside: bytes, outside: frozenset[bytes]
) -> list[tuple[bytes, str, bytes]]:
    """Relative name, kind and path of everything that counts below *folder*."""
    found: list[tuple[bytes, str, bytes]] = []
    with os.scandir(folder) as entries:
        listing = list(entries)
    if inside and any(os.fsdecode(entry.name) in _NOT_SOURCES for entry in listing):
        return found
    for entry in listing:
        name = os.fsdecode(entry.name)
        if name in _IGNORED or name.endswith(_IGNORED_SUFFIXES):
            continue
        if entry.path in outside or _COMPILED.search(name):
            continue
        relative = inside + entry.name
        if entry.is_dir(follow_symlinks=False):
            if inside or name not in _IGNORED_AT_TOP:
                found += _sources(entry.path, relative + b"/", outside)
        elif entry.is_file():
            mode = entry.stat().st_mode
            found.append((relative, "program" if mode & stat.S_IXUSR else "file", entry.path))
        elif entry.is_symlink():
            found.append((relative, "link", entry.path))
    return found
