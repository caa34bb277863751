"""What takes long to make is made once for all processes of a test run that ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


@contextmanager
def shared(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Iterator[Path]:
    """
    The folder *name*, filled by *make* in the first process that asks and removed by the last.

    The others wait. Where *make* skips the test, it is skipped in all of them, for the same reason.

    Args:
        name: Says what is in the folder; one process may use it once.

        make: Fills the folder that it is given.
    """
    root = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    folder, users = root / name, root / f"{name}.users"
    skipped, failed = root / f"{name}.skipped", root / f"{name}.failed"
    lock = FileLock(root / f"{name}.lock")
    with lock:
        if skipped.exists():
            pytest.skip(skipped.read_text())
        if failed.exists():
            pytest.fail(failed.read_text(), pytrace=False)
        if not folder.exists():
            folder.mkdir()
            try:
                make(folder)
            except BaseException as reason:
                discard(folder)
                note = skipped if isinstance(reason, pytest.skip.Exception) else failed
                note.write_text(str(reason))
                raise
        count = int(users.read_text()) if users.exists() else 0
        users.write_text(str(count + 1))
    try:
        yield folder
    finally:
        with lock:
            count = int(users.read_text()) - 1
            users.write_text(str(count))
            if count == 0:
                discard(folder)


def discard(folder: Path) -> None:
    """Remove *folder*, and first whatever is mounted in it."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in table]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=not folder.exists())
