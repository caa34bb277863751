"""A prefix: what lies there, and what its file system can do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cachepod.environment.diagnosis import Check, Severity
from cachepod.environment.doctor_places import OVERLAYS, ability, granularity, space
from cachepod.environment.filesystem import (
    can_be_renamed,
    existing,
    mtime_granularity,
    workshop,
)
from cachepod.snapshot.stamp import STATE_DIRECTORY, State, read_stamp
from cachepod.stores.mounts import Mount, mount_of

_PREFIX = {
    "rename": (
        "a restored tree takes its place in one step",
        "every restore fills the prefix in place, file by file",
        Severity.WARNING,
    ),
    "RENAME_EXCHANGE": (
        "the old tree is there until the new one takes its place",
        "there is no tree at the prefix for an instant while an old one is replaced",
        Severity.NOTE,
    ),
    "O_DIRECT": (
        "big files are written past the page cache",
        "files are written through the page cache: a restore takes longer",
        Severity.NOTE,
    ),
    "link": (
        "hard links of a snapshot come back as such",
        "a snapshot with hard links cannot be restored here",
        Severity.WARNING,
    ),
    "chmod": (
        "files get their modes",
        "files cannot get their modes: programs in the environment may not start",
        Severity.PROBLEM,
    ),
    "flock": (
        "of two restores on this machine one waits for the other",
        "two restores at once on this machine may both do the work",
        Severity.NOTE,
    ),
}


def examine_prefix(prefix: Path, min_free: float) -> Iterator[Check]:
    """What lies at the prefix, and what its file system can do."""
    about = str(prefix)
    mount = mount_of(str(prefix))
    yield _prefix_contents(about, prefix)
    if mount is not None:
        yield _prefix_mount(about, prefix, mount)
    is_mount = mount is not None and os.path.realpath(prefix) == mount.point
    directory = prefix if is_mount else existing(prefix.parent)
    try:
        with workshop(directory) as work:
            yield space(about, directory, min_free, remote=False)
            for name, (works, fails, severity) in _PREFIX.items():
                yield ability(about, name, work, works, fails, severity)
            yield _prefix_times(about, work)
            if prefix.is_dir():
                yield _prefix_swap(about, prefix, mount, is_mount)
    except OSError as error:
        yield Check(
            about,
            "writable",
            f"no: {directory}: {error.strerror}",
            "neither a restore nor an install can work here: give another --prefix",
            Severity.PROBLEM,
        )


def _prefix_contents(about: str, prefix: Path) -> Check:
    stamp = read_stamp(prefix)
    if stamp is not None:
        unfinished = stamp.state in (State.INSTALLING, State.FILLING)
        return Check(
            about,
            "contents",
            f"{stamp.state.value}, made for {stamp.key}",
            "the next restore or install starts over" if unfinished else "made by cachepod",
            Severity.NOTE if unfinished else Severity.OK,
        )
    if not os.path.lexists(prefix):
        return Check(about, "contents", "nothing yet", "a restore or an install makes it")
    if not prefix.is_dir():
        return Check(
            about,
            "contents",
            "not a directory",
            "give another --prefix, or move it away",
            Severity.PROBLEM,
        )
    names = set(os.listdir(prefix)) if os.access(prefix, os.R_OK | os.X_OK) else {""}
    if STATE_DIRECTORY in names:
        return Check(
            about,
            "contents",
            "made by cachepod, its stamp cannot be read",
            "the next restore or install starts over",
            Severity.NOTE,
        )
    if names - {"lost+found"}:
        return Check(
            about,
            "contents",
            "files that cachepod did not put there",
            "it is left alone: give another --prefix, empty it, or replace it with --force",
            Severity.PROBLEM,
        )
    return Check(about, "contents", "empty", "a restore or an install fills it")


def _prefix_mount(about: str, prefix: Path, mount: Mount) -> Check:
    result = f"{mount.kind} at {mount.point}"
    if mount.read_only:
        return Check(
            about,
            "file system",
            f"{result}, read-only",
            "neither a restore nor an install can work here: give another --prefix",
            Severity.PROBLEM,
        )
    if mount.remote:
        return Check(
            about,
            "file system",
            result,
            "an environment of many small files is slow there: put the prefix on the "
            "container's own disk, and only the store on the volume",
            Severity.WARNING,
        )
    return Check(about, "file system", result, "a local file system, as it should be")


def _prefix_times(about: str, work: Path) -> Check:
    kept_to = mtime_granularity(work)
    whole = kept_to is not None and kept_to <= 1_000_000_000
    return Check(
        about,
        "file times",
        granularity(work),
        "compiled modules fit their sources"
        if whole
        else "modules may be compiled again at every start",
        Severity.OK if whole else Severity.WARNING,
    )


def _prefix_swap(about: str, prefix: Path, mount: Mount | None, is_mount: bool) -> Check:
    if is_mount:
        result, movable = "it is a mount point", False
    elif can_be_renamed(prefix):
        result, movable = "works", True
    elif mount is not None and mount.kind in OVERLAYS:
        result, movable = "no: it lies in the image, the lower layer of an overlayfs", False
    else:
        result, movable = "no", False
    return Check(
        about,
        "swap",
        result,
        "the tree there can be replaced in one step"
        if movable
        else "it is filled in place, each file renamed into place and the stamp last",
        Severity.OK if movable else Severity.NOTE,
    )
