"""The virtual environment at the prefix: what is there, making it, emptying it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cachepod.environment.check import interpreter_works
from cachepod.environment.machine import Interpreter
from cachepod.errors import ForeignDirectory, InstallFailed, SpaceExhausted
from cachepod.snapshot.stamp import NOT_CONTENT, STATE_DIRECTORY, Stamp, State, read_stamp


class Found(str, Enum):
    """What a prefix holds, as far as an install must know."""

    NOTHING = "nothing"
    REMAINS = "remains"  # of ours, but unfinished or not understood
    PRESENT = "present"  # the environment of the key
    RELATIVE = "relative"  # a working environment of ours, of another key or a relative's
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Prefix:
    """What lies at a prefix, and its stamp if it has one."""

    found: Found
    stamp: Stamp | None


def examine(prefix: Path, key: str, interpreter: Interpreter) -> Prefix:
    """
    Look at *prefix* and change nothing.

    Raises:
        ForeignDirectory: It is no directory.
    """
    try:
        names = set(os.listdir(prefix))
    except FileNotFoundError:
        if prefix.is_symlink():
            raise ForeignDirectory(str(prefix)) from None
        return Prefix(Found.NOTHING, None)
    except NotADirectoryError:
        raise ForeignDirectory(str(prefix)) from None
    stamp = read_stamp(prefix)
    if stamp is None:
        if not names - NOT_CONTENT:
            return Prefix(Found.NOTHING, None)
        # A stamp that cannot be read is of a later cachepod, or damaged: ours all the same.
        ours = os.path.lexists(prefix / STATE_DIRECTORY / "stamp.json")
        return Prefix(Found.REMAINS if ours else Found.FOREIGN, None)
    if stamp.state in (State.INSTALLING, State.FILLING):
        return Prefix(Found.REMAINS, stamp)
    if not interpreter_works(prefix, interpreter):
        return Prefix(Found.REMAINS, stamp)
    if stamp.state in (State.COMPLETE, State.INSTALLED) and stamp.key == key:
        return Prefix(Found.PRESENT, stamp)
    return Prefix(Found.RELATIVE, stamp)


def empty(prefix: Path, keep: Path) -> None:
    """
    Remove all that is in *prefix*, in place: it may be a mount point, its parent read-only.

    The stamp stays to the last, so that a kill leaves remains that are known to be ours.

    Args:
        prefix: Stamped as being installed.

        keep: A directory in its state directory that stays.
    """
    for entry in list(os.scandir(prefix)):
        if entry.name not in NOT_CONTENT:
            remove(Path(entry.path))
    for entry in list(os.scandir(prefix / STATE_DIRECTORY)):
        if entry.name != "stamp.json" and Path(entry.path) != keep:
            remove(Path(entry.path))


def remove(path: Path) -> None:
    """Remove whatever is at *path*, read-only directories included; a mount point stays."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except PermissionError:
        for directory, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(directory, 0o700)
        shutil.rmtree(path)


def create(base: Path, prefix: Path) -> Path:
    """
    Make a virtual environment without pip at *prefix*, which may exist.

    Returns:
        Its interpreter.

    Raises:
        InstallFailed: The interpreter *base* cannot make one.

        SpaceExhausted: The disk is full.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    answer = subprocess.run(
        [str(base), "-I", "-m", "venv", "--without-pip", "--symlinks", str(prefix)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=environ,
        stdin=subprocess.DEVNULL,
    )
    if answer.returncode == 0:
        # Python 3.13 and later put this one there, earlier ones do not: one rule for all of them.
        (prefix / ".gitignore").unlink(missing_ok=True)
        return prefix / "bin" / "python"
    output = answer.stdout + answer.stderr
    if "Errno 28]" in output or "Errno 122]" in output:
        raise SpaceExhausted(str(prefix), "no room for a virtual environment")
    why = " ".join(output.strip().splitlines()[-1:]) or f"exit status {answer.returncode}"
    raise InstallFailed(
        f"{base} cannot make a virtual environment at {prefix}: {why}",
        output=output,
        hint="is the standard library's venv module installed, and the place writable?",
    )


def site_packages(python: Path) -> Path:
    """The site-packages directory of the environment of *python*, made by :func:`create`."""
    root = python.parent.parent
    found = sorted((root / "lib").glob("*/site-packages"))
    if not found:
        raise InstallFailed(f"{root} has no site-packages directory")
    return found[0]
