"""A quick sample of how fast a store is: some megabytes, written and read back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cachepod.environment.diagnosis import Check
from cachepod.errors import human_bytes

SAMPLE = 32 * 1024 * 1024
_BLOCK = 1024 * 1024
_PATIENCE = 3.0  # seconds for each direction; what is written until then is the sample


def sample_directory(work: Path) -> tuple[int, float, float]:
    """
    Write one file in *work* and read it back.

    Returns:
        Bytes, seconds of writing with fsync, seconds of reading.

    Raises:
        OSError: As the file system has it.
    """
    path = work / "sample"
    block = os.urandom(_BLOCK)  # what compresses or repeats would be too easy for some volumes
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        started = time.monotonic()
        size = 0
        while size < SAMPLE and time.monotonic() - started < _PATIENCE:
            size += os.write(descriptor, block)
        os.fsync(descriptor)
        writing = time.monotonic() - started
        # Ask the kernel to forget it: else memory is measured and not the volume.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.monotonic()
        done = 0
        while time.monotonic() - started < _PATIENCE:
            count = len(os.pread(descriptor, _BLOCK, done))
            if not count:
                break
            done += count
        reading = time.monotonic() - started
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
    return min(size, done), writing * min(size, done) / max(size, 1), reading


def told(about: str, size: int, writing: float, reading: float, how: str) -> Check:
    """The check that says what a sample of *size* bytes took; *how* it was moved."""
    written, read = size / max(writing, 1e-9), size / max(reading, 1e-9)
    return Check(
        about,
        "speed",
        f"{human_bytes(written)}/s written, {human_bytes(read)}/s read "
        f"({human_bytes(size)}, {how})",
        f"a sample, and caches may have helped; at this rate 2.6 GB take {2.6e9 / read:.0f} s to "
        f"read and {2.6e9 / written:.0f} s to write, and less where several streams are faster",
    )


def timed(act: Callable[[], object]) -> float:
    """Seconds that *act* takes."""
    started = time.monotonic()
    act()
    return time.monotonic() - started
