"""
Where a counted run writes: on new ground every time.

Deleting a tree and writing it again on one ext4 is many times slower than the first writing, since
the allocator walks past what was just deleted. So every run gets a file system made for it, on a
loop device that bypasses the page cache of the disk below; without root, a new directory, and
nothing is deleted until the end.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

_PATIENCE = 60.0  # seconds
_LINGER = 5.0  # seconds
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Ground(Protocol):
    """Gives each run a place of its own."""

    @property
    def kind(self) -> str:
        """What it is, for the heading of a table."""
        ...

    def fresh(self) -> AbstractContextManager[Path]:
        """An empty directory for one run, under the same path every time."""
        ...


def drop_caches() -> bool:
    """Write back and forget the page cache; False where that is not allowed."""
    os.sync()
    try:
        _DROP_CACHES.write_text("3")
    except OSError:
        return False
    return True


def forget(folder: Path) -> None:
    """
    Let the page cache forget the files below *folder*, as anybody may whose files they are.

    What the kernel knows of names and sizes stays; :func:`drop_caches` forgets that, too.
    """
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _command(*arguments: str) -> str:
    environ = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    done = subprocess.run(arguments, check=True, capture_output=True, env=environ)
    return done.stdout.decode().strip()


def _unmount(mount: Path) -> None:
    """Wait for what a run has left behind, such as the rest of a pipe, but not for ever."""
    until = time.monotonic() + _LINGER
    while True:
        try:
            _command("umount", str(mount))
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > until:
                break
            time.sleep(0.1)
    _command("umount", "--lazy", str(mount))


class LoopGround:
    """An ext4 on a loop device, made anew for each run and mounted at the same place."""

    @property
    def kind(self) -> str:
        """What it is."""
        return "a new ext4 on a loop device (direct I/O) for each run"

    def __init__(self, device: str, mount: Path, inodes: int) -> None:
        self._device = device
        self._mount = mount
        self._inodes = inodes

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Make, mount, hand out, unmount."""
        # No discard: it would punch holes into the image, and the next run pay for filling them.
        # No lazy initialisation: a kernel thread would write beside the run.
        make = ["mkfs.ext4", "-q", "-F", "-m", "0", "-N", str(self._inodes)]
        make += ["-E", "nodiscard,lazy_itable_init=1", self._device]
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                _command(*make)
                break
            except subprocess.CalledProcessError:
                # A mount namespace that somebody else made in the meantime holds the last mount.
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
        _command("mount", "-o", "noinit_itable", self._device, str(self._mount))
        try:
            yield self._mount
        finally:
            _unmount(self._mount)


class DirectoryGround:
    """
    A new directory for each run, in the same place.

    All are deleted at the end, and before only as far as the disk has no room for another run.
    """

    @property
    def kind(self) -> str:
        """What it is."""
        deleted = ", those before deleted for want of room" if self._deleted else ""
        return f"a new directory for each run{deleted}"

    def __init__(self, parent: Path, size: int = 0) -> None:
        self._parent = parent
        self._size = size
        self._used: list[Path] = []
        self._deleted = False
        self._numbers = itertools.count(1)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Make, hand out, move out of the way."""
        while self._used and shutil.disk_usage(self._parent).free < 2 * self._size:
            shutil.rmtree(self._used.pop(0))
            self._deleted = True
        place = self._parent / "run"
        place.mkdir()
        try:
            yield place
        finally:
            self._used.append(self._parent / f"used-{next(self._numbers)}")
            place.rename(self._used[-1])


class MemoryGround:
    """A tmpfs for each run: for what is to be measured without a disk; needs root."""

    @property
    def kind(self) -> str:
        """What it is."""
        return "a new tmpfs for each run"

    def __init__(self, mount: Path) -> None:
        self._mount = mount

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Mount, hand out, unmount."""
        _command("mount", "-t", "tmpfs", "-o", "size=100%,mode=755", "bench", str(self._mount))
        try:
            yield self._mount
        finally:
            _command("umount", str(self._mount))


@contextmanager
def open_memory_ground(scratch: Path) -> Iterator[Ground]:
    """
    Ground in memory, mounted below *scratch*.

    Raises:
        OSError, subprocess.CalledProcessError: It cannot be had here.
    """
    with tempfile.TemporaryDirectory(prefix="ground-", dir=scratch) as folder:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        ground = MemoryGround(Path(folder))
        with ground.fresh():
            pass
        yield ground


def free_memory() -> int:
    """Bytes that programs could still take, by the kernel's own estimate."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def open_ground(
    scratch: Path, size: int, *, inodes: int = 500_000, plain: bool = False
) -> Iterator[Ground]:
    """
    The best ground that this user can have below *scratch*; removed at the end.

    Args:
        scratch: A directory on a disk.

        size: Bytes that one run may need.

        inodes: Files that one run may need.

        plain: Directories even where loop devices could be had.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ground-", dir=scratch))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        # A benchmark that is told to stop still unmounts and detaches what it made.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        ground: Ground | None = None
        if not plain and os.geteuid() == 0:
            try:
                ground = _open_loop(stack, folder, size, inodes)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"no loop device here ({error}): using directories", file=sys.stderr)
        yield ground or DirectoryGround(folder, size)


def _open_loop(stack: ExitStack, folder: Path, size: int, inodes: int) -> LoopGround:
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    # Two blocks of 4 KiB a file at most beyond its bytes, the inode tables, the journal.
    blocks = (size + inodes * 512 + (1 << 29)) >> 24
    # Written, not merely allocated, so that the first run meets the same image as the last.
    _command(
        *("dd", "if=/dev/zero", f"of={image}", "bs=16M", f"count={blocks + 1}"),
        *("oflag=direct", "status=none"),
    )
    device = _command("losetup", "--direct-io=on", "--find", "--show", str(image))
    stack.callback(_command, "losetup", "--detach", device)
    ground = LoopGround(device, mount, inodes)
    with ground.fresh():
        pass
    return ground
