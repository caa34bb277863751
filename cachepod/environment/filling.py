"""
Filling the nearer stores with what a farther one had, without delaying the worker.

After a restore from a farther store a process of its own is left behind, with the lowest priority,
that copies the snapshot to the nearer ones. It lives on when the hook has ended, and nothing waits
for it. It is given no credentials: those are in the environment, where it finds them.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.errors import CachepodError, CorruptObject
from cachepod.model.names import manifest_name
from cachepod.snapshot.progress import Progress
from cachepod.stores.base import WriteStore, exists

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.restoration import Restoration
    from cachepod.snapshot.fetch import Damage

_THREADS = 2
_NICE = 15
_RECENT = 60.0  # seconds
# ioprio_set(2), which no library wraps: the numbers of the system call, and class 3, idle.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IDLE = 3 << 13
_WHO_PROCESS = 1


def after_restore(
    settings: Settings,
    key: str,
    stores: Sequence[WriteStore],
    lacking: Sequence[WriteStore],
    hit: Restoration,
    progress: Progress,
) -> tuple[str, ...]:
    """
    See to it that stores nearer than the one that had the snapshot get it, and that packs which
    were damaged there, and came from another store, are replaced.

    Args:
        stores: Nearest first.

        lacking: Those that answered and do not have the snapshot, or not in a usable state.

        hit: How the restore ended.

    Returns:
        URLs of the stores that are being filled.
    """
    if hit.source != key or hit.report is None or hit.outcome == "confirmed":
        return ()
    place = next((place for place, each in enumerate(stores) if each.url == hit.store), None)
    if place is None:
        return ()
    origin = stores[place]
    healed = _note_damage(settings, key, origin, hit.report.damages, progress)
    if settings.fill != "background":
        return ()
    nearer = [store.url for store in stores[:place] if store in lacking]
    filling = fill_behind(settings, key, hit.store, nearer, progress)
    if healed:
        others = [store for store in stores if store is not origin]
        source = next((store for store in others if _has(store, key)), None)
        if source is not None:
            filling += fill_behind(settings, key, source.url, [origin.url], progress)
    return filling


def _note_damage(
    settings: Settings,
    key: str,
    store: WriteStore,
    damages: Sequence[Damage],
    progress: Progress,
) -> bool:
    """Mark packs of *store* that were damaged; whether there are any to be healed."""
    from cachepod.snapshot.damage import mark, set_aside

    marked = False
    for damage in damages:
        if damage.store != store.url:
            continue
        progress.note(
            f"{damage.name} is damaged in {damage.store}: {damage.why}; another store has it"
        )
        try:
            if settings.fill == "after":
                # The publish at the end of the hook copies what is not there.
                set_aside(store, key, CorruptObject(damage.name, damage.why))
            else:
                mark(store, damage.name.rpartition("/")[2], key, damage.why)
            marked = True
        except CachepodError as error:  # a store that may only be read, or is full
            progress.note(f"it cannot be marked: {error.message}")
    return marked


def _has(store: WriteStore, key: str) -> bool:
    try:
        return exists(store, manifest_name(key))
    except CachepodError:
        return False


def fill_behind(
    settings: Settings,
    key: str,
    source: str,
    destinations: Sequence[str],
    progress: Progress,
    *,
    unless_begun: bool = False,
) -> tuple[str, ...]:
    """
    Leave processes behind that copy the snapshot *key* from *source* to *destinations*.

    Args:
        source: URL of the store that has it; it holds no credentials.

        destinations: URLs of those that lack it, or some of its packs.

        unless_begun: Start none where this machine has started one just now, as the restore before
            a publish does.

    Returns:
        The URLs of *destinations* that are being filled. What cannot be started is noted.
    """
    started = []
    for destination in destinations:
        log = _log(key, destination)
        try:
            if log is None or not (unless_begun and _is_recent(log)):
                _start(settings, key, source, destination, log)
        except OSError as error:
            progress.note(f"{destination} is not filled: {error.strerror or error}")
        else:
            started.append(destination)
    return tuple(started)


def _start(settings: Settings, key: str, source: str, destination: str, log: Path | None) -> None:
    words = [sys.executable, "-m", "cachepod", "copy", "--background"]
    words += ["--threads", str(min(settings.threads or _THREADS, _THREADS))]
    words += ["--timeout", f"{settings.timeout:g}"]
    if settings.file is not None:
        words += ["--config", str(settings.file)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    output = os.open(log or os.devnull, flags, 0o600)
    try:
        subprocess.Popen(
            [*words, "--", source, destination, key],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # Nothing in the working directory takes the place of a module (Python 3.11 on).
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    finally:
        os.close(output)


def _log(key: str, destination: str) -> Path | None:
    """Where a filler says what it did; None if there is no place for it."""
    from cachepod.environment.private import private_file

    try:
        return private_file("fill", [Path(destination, key)], ".log")
    except OSError:
        return None


def _is_recent(log: Path) -> bool:
    """Whether a filler of this machine has begun, or said something, just now."""
    try:
        return 0 <= time.time() - log.stat().st_mtime < _RECENT
    except OSError:
        return False


def stand_back() -> None:
    """Let every other process of the machine go first, at the cores and at the disks."""
    try:
        os.nice(_NICE)
    except OSError:
        pass
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        return
    import ctypes

    try:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, _IDLE)
    except (OSError, AttributeError):
        pass  # only a courtesy
