"""A store: what it lies on, whether it can be read and written, what its file system can do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cachepod.environment.config import Settings
from cachepod.environment.diagnosis import Check, Severity, failed
from cachepod.environment.doctor_activity import activity, contents
from cachepod.environment.doctor_places import OVERLAYS, ability, granularity, space
from cachepod.environment.doctor_speed import sample_directory, told
from cachepod.environment.doctor_trust import signed_part
from cachepod.environment.filesystem import existing, workshop
from cachepod.errors import CachepodError, UsageProblem
from cachepod.stores.local import LocalStore
from cachepod.stores.mounts import mount_of
from cachepod.stores.url import directory_of, is_s3


def examine_store(url: str, settings: Settings | None = None) -> Iterator[Check]:
    """
    One store: what it lies on, whether it can be read and written, what its volume can do.

    With *settings* that ask for signatures, also how much of it is signed.
    """
    if is_s3(url):
        from cachepod.environment.doctor_s3 import examine_s3

        yield from examine_s3(url, settings)
        return
    try:
        root = directory_of(url)
    except UsageProblem as error:
        yield failed(url, "store", error)
        return
    about = str(root)
    yield _place(about, root)
    store = LocalStore(root)
    try:
        yield contents(about, store, missing=not root.is_dir())
    except CachepodError as error:
        yield failed(about, "contents", error)
    else:
        yield from activity(about, store)
        if settings is not None:
            yield from signed_part(about, store, settings)
    directory = existing(root)
    if directory != root and os.path.lexists(root):
        return  # it is a file
    try:
        with workshop(directory) as work:
            yield Check(
                about,
                "writable",
                "yes" if directory == root else f"yes, {directory} is; the rest is made",
                "snapshots can be published",
            )
            yield space(about, directory, 0.0, remote=_is_remote(root))
            yield from _store_abilities(about, work)
            yield told(about, *sample_directory(work), "one file")
    except OSError as error:
        yield Check(
            about,
            "writable",
            f"no: {directory}: {error.strerror}",
            "snapshots can be restored from it, if it has any, but not published to it",
            Severity.PROBLEM,
        )


def _is_remote(path: Path) -> bool:
    mount = mount_of(str(path))
    return mount is not None and mount.remote


def _place(about: str, root: Path) -> Check:
    mount = mount_of(str(root))
    if mount is None:
        return Check(about, "file system", "unknown", "the table of mounts cannot be read")
    result = f"{mount.kind} at {mount.point}"
    if mount.read_only:
        return Check(
            about,
            "file system",
            f"{result}, read-only",
            "snapshots can be restored from it, not published to it",
            Severity.WARNING,
        )
    if mount.kind in OVERLAYS or mount.kind in ("tmpfs", "ramfs"):
        return Check(
            about,
            "file system",
            result,
            "it goes when the container goes, and the snapshots with it: put the store on a volume",
            Severity.WARNING,
        )
    if mount.remote:
        return Check(about, "file system", result, "shared, so packs are read in parallel")
    return Check(about, "file system", result, "a local disk: only this machine has the snapshots")


#: Name of a probe to: what it means if it works, and if it does not, and how bad that is.
_STORE = {
    "rename": (
        "a new manifest takes the old one's place in one step",
        "publish --force and setting damaged snapshots aside will fail",
        Severity.PROBLEM,
    ),
    "link": (
        "of two publishers of one key exactly one is first",
        "objects are renamed into place instead; of two publishers of one key the later stays",
        Severity.NOTE,
    ),
    "O_EXCL": (
        "temporary files have names of their own",
        "temporary names are drawn at random, so two writers hardly ever meet",
        Severity.NOTE,
    ),
    "flock": (
        "two of this machine exclude each other; nothing in the store relies on it",
        "a lock means nothing there; nothing in the store relies on one",
        Severity.NOTE,
    ),
    "fsync": (
        "packs are on the disk before a manifest names them",
        "nothing can be published: a pack's arrival cannot be known",
        Severity.PROBLEM,
    ),
    "fsync of a directory": (
        "a published snapshot survives a crash of this machine",
        "a snapshot may be gone if this machine crashes right after its publish",
        Severity.NOTE,
    ),
    "ranges": (
        "a restore reads packs in ranges",
        "nothing can be restored: a pack is read in ranges",
        Severity.PROBLEM,
    ),
    "chmod": (
        "nothing in the store relies on it",
        "nothing in the store relies on it",
        Severity.NOTE,
    ),
}


def _store_abilities(about: str, work: Path) -> Iterator[Check]:
    for name, (works, fails, severity) in _STORE.items():
        yield ability(about, name, work, works, fails, severity)
    yield Check(
        about,
        "file times",
        granularity(work),
        "they only order listings",
    )
