"""Small files of this user on this machine: locks and notes that outlive one process."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path


def private_file(kind: str, places: Iterable[Path], suffix: str, *, create: bool = True) -> Path:
    """
    A file that stands for *places*, in a directory of this user's own.

    Not beside them, where it would stay in the user's project, and not in the shared temporary
    directory itself, where somebody else could have put a link in its place.

    Args:
        kind: How the file's name begins: ``install``.

        places: Directories; symbolic links in them are followed.

        suffix: How it ends.

        create: Whether the directory is made where it is missing.

    Raises:
        OSError: There is no such directory, or not one that this user alone may write to.
    """
    directory = Path(_temporary_directory(), f"cachepod-{os.getuid()}")
    if create:
        directory.mkdir(mode=0o700, exist_ok=True)
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "somebody else may write there", str(directory))
    real = b"\0".join(sorted(os.fsencode(os.path.realpath(place)) for place in places))
    return directory / f"{kind}-{hashlib.sha256(real).hexdigest()[:16]}{suffix}"


def write_private(file: Path, text: str) -> None:
    """
    Put *text* into a file of :func:`private_file`, in one step for whoever reads it.

    Raises:
        OSError: As the file system has it; the file is as it was.
    """
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _temporary_directory() -> str:
    """As tempfile.gettempdir() has it, whose import costs a publish that has nothing to do much."""
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    for place in (*named, "/tmp", "/var/tmp"):
        if place and os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK):
            return os.path.abspath(place)
    return "/tmp"
