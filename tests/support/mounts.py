"""File systems for tests, mounted for as long as a ``with`` lasts; all of it needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


def _run(*command: str | Path) -> None:
    """Run a tool of the system; the test is skipped where it cannot do its work."""
    name = str(command[0])
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} on this machine")
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{name} does not work here: {done.stderr.strip() or done.stdout.strip()}")


def _unmount(place: Path) -> None:
    done = subprocess.run(["umount", place], capture_output=True, check=False)
    if done.returncode:  # a daemon looks at it, or a failed test has a file open
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=True)


def need_root(for_what: str = "mounting") -> None:
    """Skip the test unless this process is root's."""
    if os.geteuid() != 0:
        pytest.skip(f"{for_what} needs root")


@contextmanager
def _mounted(place: Path, *arguments: str | Path) -> Iterator[Path]:
    need_root()
    if not place.is_file():  # a single file can be bound as well
        place.mkdir(parents=True, exist_ok=True)
    _run("mount", *arguments, place)
    try:
        yield place
    finally:
        _unmount(place)


@contextmanager
def image(place: Path, kind: str, size: int, options: Sequence[str] = ()) -> Iterator[Path]:
    """
    A new file system of *kind* in a sparse image, mounted at *place* through a loop device.

    Args:
        size: In bytes, all of which the image may come to take.

        options: Of its ``mkfs``.
    """
    need_root()
    with tempfile.NamedTemporaryFile(prefix="cachepod-image-") as file:
        file.truncate(size)
        _run(f"mkfs.{kind}", "-q", *options, Path(file.name))
        made = subprocess.run(
            ["losetup", "--find", "--show", "--direct-io=on", file.name],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"no loop device here: {made.stderr.strip()}")
        device = made.stdout.strip()
        try:
            with _mounted(place, "-t", kind, device):
                yield place
        finally:
            subprocess.run(["losetup", "--detach", device], capture_output=True, check=False)


def tmpfs(place: Path, size: int, *options: str) -> AbstractContextManager[Path]:
    """A tmpfs of *size* bytes at *place*."""
    return _mounted(place, "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs")


def bind(source: Path, place: Path) -> AbstractContextManager[Path]:
    """The directory *source* at *place* as well, or the file where both are files."""
    return _mounted(place, "--bind", source)


@contextmanager
def overlay(lower: Path, upper: Path, place: Path) -> Iterator[Path]:
    """
    What a container has: *lower* is the image, what is written goes to ``upper/up``.

    Args:
        upper: A directory on a file system that can hold an upper layer.
    """
    for name in ("up", "work"):
        (upper / name).mkdir(exist_ok=True)
    layers = f"lowerdir={lower},upperdir={upper / 'up'},workdir={upper / 'work'}"
    with _mounted(place, "-t", "overlay", "-o", layers, "overlay"):
        yield place
