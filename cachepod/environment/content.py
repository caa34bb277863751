"""Digests of local projects and packages by content, the same wherever they lie."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

_BLOCK = 1 << 20
# Not part of a project's sources: version control, what building and testing leave behind.
_IGNORED = frozenset({".git", ".hg", ".svn", "__pycache__", ".cachepod"})
_IGNORED_AT_TOP = frozenset({"build", "dist"})
_IGNORED_SUFFIXES = (".pyc", ".egg-info")
# A directory with one of these is an environment or a cache, whatever its name.
_NOT_SOURCES = frozenset({"pyvenv.cfg", "CACHEDIR.TAG"})


def file_digest(path: Path) -> str:
    """SHA-256 of the bytes of *path*, hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def directory_digest(root: Path) -> str:
    """
    SHA-256 over a project's sources: relative names, contents, and which files are executable.

    Left out are ``.git``, ``__pycache__``, ``*.pyc``, ``*.egg-info``, the project's own ``build/``
    and ``dist/``, and every virtual environment or tagged cache inside it. A link to a file counts
    as that file, a link to a directory as its text.

    Raises:
        OSError: Something in it cannot be read.
    """
    digest = hashlib.sha256()
    for name, kind, path in sorted(_sources(os.fsencode(root), b"")):
        if kind == "link":
            value = hashlib.sha256(os.readlink(path)).hexdigest()
        else:
            value = file_digest(Path(os.fsdecode(path)))
        # a name cannot hold the zero byte, so no two trees give the same text
        digest.update(b"%s\0%s\0%s\0" % (name, kind.encode(), value.encode()))
    return digest.hexdigest()


def _sources(folder: bytes, inside: bytes) -> list[tuple[bytes, str, bytes]]:
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
        relative = inside + entry.name
        if entry.is_dir(follow_symlinks=False):
            if inside or name not in _IGNORED_AT_TOP:
                found += _sources(entry.path, relative + b"/")
        elif entry.is_file():
            mode = entry.stat().st_mode
            found.append((relative, "program" if mode & stat.S_IXUSR else "file", entry.path))
        elif entry.is_symlink():
            found.append((relative, "link", entry.path))
    return found
