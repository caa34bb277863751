"""What the page cache has of a file, and files of which it is to have nothing."""

from __future__ import annotations

import os
from pathlib import Path

from cachepod.stores.pastcache import _cached


def forget(path: Path) -> None:
    """Let the page cache have nothing of the file, which reaches the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_cache(path: Path) -> bool:
    """Whether the page cache has nearly all of the file."""
    with open(path, "rb") as file:
        return _cached(file.fileno(), path.stat().st_size)
