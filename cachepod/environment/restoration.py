"""
The first part of the start-up hook: bring the environment back from a snapshot.

Whatever is wrong with a store, or with what lies in the prefix, an install afterwards must work:
nothing here leaves a prefix that an install would take for complete and that is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cachepod.environment.hook import sentence, trees
from cachepod.errors import (
    EXIT_DAMAGED,
    EXIT_DONE,
    EXIT_MISS,
    EXIT_PARTIAL,
    EXIT_UNREACHABLE,
    CachepodError,
    CheckFailed,
    CorruptObject,
    Miss,
    ObjectMissing,
    StoreUnreachable,
)
from cachepod.model.names import manifest_name
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.stamp import ENVIRONMENT_TREE, Stamp, State, read_stamp, write_stamp
from cachepod.stores.base import WriteStore, exists

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.snapshot.catalog import Relative
    from cachepod.snapshot.restore import RestoreReport

_POLL = (0.5, 5.0)  # seconds between two looks for a snapshot that is waited for


@dataclass(frozen=True)
class Restoration:
    """
    How a restore ended.

    Args:
        outcome: ``confirmed``, ``restored`` or ``updated``: the trees hold the snapshot;
            ``partial``: a relative's environment was brought, an install must top it up;
            ``miss``, ``unreachable`` or ``damaged``: an install must do it all.

        key: What was looked for.

        exit_code: What the command ends with.

        source: The key of the snapshot that was brought, empty if none was.

        store: Where it came from.

        report: The engine's.

        nearest: The snapshot that comes closest, when the key was not found.

        problem: Why it is not a hit.

        checked: Seconds that trying the interpreter and the imports took.

        waited: Seconds spent waiting for another container to publish the key.
    """

    outcome: str
    key: str
    exit_code: int = EXIT_DONE
    source: str = ""
    store: str = ""
    report: RestoreReport | None = None
    nearest: Relative | None = None
    problem: CachepodError | None = None
    checked: float = 0.0
    waited: float = 0.0


@dataclass
class _Search:
    """What asking the stores has shown so far."""

    answered: list[WriteStore] = field(default_factory=list)
    unreachable: StoreUnreachable | None = None
    damage: CorruptObject | ObjectMissing | None = None
    miss: Miss | None = None
    waited: float = 0.0


def restore_environment(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Restoration:
    """
    Bring the trees back from the nearest store that has them.

    Without a snapshot of the key, the environment of its nearest relative is brought as far as
    an install can make the rest of it. A damaged snapshot is set aside, so that the publish at
    the end of the same hook stores a good one.

    Args:
        settings: The configuration.

        identity: Its key and fingerprint.

        stores: Nearest first.

        force: Replace a directory that cachepod did not make, and what is confirmed as well.

        progress: Told of what goes on.

    Raises:
        ForeignDirectory: A tree's place is taken.

        NotEnoughSpace: Known before the first byte is written.

        SpaceExhausted: The disk filled up all the same; nothing was changed.
    """
    told = progress or NoProgress()
    # A name of the user's own may stand for another snapshot by now: that is for the stores to say.
    report = None if force or settings.key else _confirmed(settings, identity.key)
    if report is not None:
        found = Restoration("confirmed", identity.key, source=identity.key, report=report)
        return _tried(settings, identity, found)
    if settings.signed:
        from cachepod.environment.trust import believed

        stores = believed(stores, settings, told)
    search = _Search()
    brought = _from_stores(settings, identity, stores, search, force, told)
    if brought is None and settings.wait > 0 and search.damage is None:
        brought = _wait(settings, identity, stores, search, force, told)
    if brought is not None:
        return _tried(settings, identity, replace(brought, waited=search.waited))
    report = _confirmed(settings, identity.key) if settings.key and not force else None
    if report is not None:  # no store has it, and the trees still hold it
        return Restoration("confirmed", identity.key, source=identity.key, report=report)
    if search.damage is not None:
        return Restoration("damaged", identity.key, exit_code=EXIT_DAMAGED, problem=search.damage)
    if search.unreachable is not None and not search.answered:
        return Restoration(
            "unreachable", identity.key, exit_code=EXIT_UNREACHABLE, problem=search.unreachable
        )
    found = _from_relative(settings, identity, search, force, told)
    return replace(found, waited=search.waited)


def _confirmed(settings: Settings, key: str) -> RestoreReport | None:
    from cachepod.snapshot.restore import Target, confirmed

    return confirmed([Target(name, root) for name, root in trees(settings).items()], key)


def _from_stores(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    """The first store that has the key, restored; what the others said goes to *search*."""
    search.answered.clear()
    search.unreachable = None
    for store in stores:
        found = _from_store(settings, identity, store, search, force, progress)
        if found is not None:
            return found
    return None


def _from_store(
    settings: Settings,
    identity: Identity,
    store: WriteStore,
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    from cachepod.snapshot.restore import Target, restore

    try:
        report = restore(
            store,
            identity.key,
            [Target(name, root) for name, root in trees(settings).items()],
            expect=None if settings.key else identity.fingerprint,
            latest=bool(settings.key),
            threads=settings.threads,
            direct=settings.direct,
            check_ids=settings.signed,
            force=force,
            min_free=settings.min_free,
            progress=progress,
        )
    except Miss as miss:
        search.miss = search.miss or miss
        search.answered.append(store)
    except StoreUnreachable as unreachable:
        search.unreachable = search.unreachable or unreachable
        progress.note(sentence(unreachable))
    except (CorruptObject, ObjectMissing) as damage:
        search.damage = damage
        search.answered.append(store)
        _set_aside(store, identity.key, damage, progress)
    else:
        return Restoration(
            report.outcome, identity.key, source=identity.key, store=store.url, report=report
        )
    return None


def _set_aside(
    store: WriteStore, key: str, damage: CorruptObject | ObjectMissing, progress: Progress
) -> None:
    from cachepod.snapshot.damage import set_aside

    try:
        set_aside(store, key, damage)
        progress.note(f"{damage.message}: the snapshot {key} is set aside")
    except CachepodError as error:  # a store that may only be read, or is full
        progress.note(f"{damage.message}, and cannot be set aside: {error.message}")


def _wait(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    """Look for the key again and again, until it is there or the patience ends."""
    began = time.monotonic()
    until = began + settings.wait
    pause, longest = _POLL
    name = manifest_name(identity.key)
    progress.phase("waiting for the snapshot")
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
        search.waited = time.monotonic() - began
        for store in stores:
            try:
                there = exists(store, name)
            except CachepodError:
                continue  # a volume may also be mounted late
            if there:
                return _from_stores(settings, identity, stores, search, force, progress)
    # Whether the stores answer now decides between a miss and an unreachable store.
    return _from_stores(settings, identity, stores, search, force, progress)


def _tried(settings: Settings, identity: Identity, restored: Restoration) -> Restoration:
    """*restored* if the environment works on this machine; else a miss, to be installed anew."""
    if not settings.wants_environment:
        return restored
    from cachepod.environment.check import check, interpreter_works

    started = time.monotonic()
    problem: CachepodError | None = None
    if not interpreter_works(settings.prefix, identity.interpreter):
        problem = Miss(
            identity.key, "the interpreter of this machine is not the one of the snapshot"
        )
    elif restored.outcome != "confirmed":
        try:
            check(settings.prefix, settings.check)
        except CheckFailed as error:
            problem = error
    checked = time.monotonic() - started
    if problem is None:
        return replace(restored, checked=checked)
    # Otherwise the next restore would confirm it, and an install would find it complete.
    before = read_stamp(settings.prefix)
    spoils = before.manifest if before is not None else ""
    write_stamp(
        settings.prefix, Stamp(State.INSTALLING, identity.key, ENVIRONMENT_TREE, spoils=spoils)
    )
    return Restoration(
        "miss",
        identity.key,
        exit_code=EXIT_MISS,
        store=restored.store,
        problem=problem,
        checked=checked,
        waited=restored.waited,
    )


def _from_relative(
    settings: Settings, identity: Identity, search: _Search, force: bool, progress: Progress
) -> Restoration:
    """The environment of the nearest relative, if an install can make the rest of it."""
    problem = search.miss or Miss(identity.key)
    miss = Restoration("miss", identity.key, exit_code=EXIT_MISS, problem=problem)
    if settings.key:
        return miss
    from cachepod.snapshot.catalog import nearest, restorable

    best: tuple[WriteStore, Relative] | None = None
    for store in search.answered:
        try:
            relative = nearest(store, identity.fingerprint, whole=settings.signed)
        except CachepodError as error:
            progress.note(sentence(error))
            continue
        if relative and (best is None or len(relative.differences) < len(best[1].differences)):
            best = store, relative
    if best is None:
        return miss
    store, relative = best
    miss = Restoration("miss", identity.key, exit_code=EXIT_MISS, problem=problem, nearest=relative)
    if not settings.wants_environment or not restorable(identity.fingerprint, relative):
        return miss
    from cachepod.environment.check import interpreter_works
    from cachepod.snapshot.restore import Target, restore

    source = relative.summary.key
    try:
        report = restore(
            store,
            source,
            [Target(ENVIRONMENT_TREE, settings.prefix)],
            partial=True,
            threads=settings.threads,
            direct=settings.direct,
            check_ids=settings.signed,
            force=force,
            min_free=settings.min_free,
            progress=progress,
        )
    except (CorruptObject, ObjectMissing) as damage:
        _set_aside(store, source, damage, progress)
        return miss
    except (Miss, StoreUnreachable) as error:
        progress.note(sentence(error))
        return miss
    if not interpreter_works(settings.prefix, identity.interpreter):
        write_stamp(settings.prefix, Stamp(State.INSTALLING, identity.key, ENVIRONMENT_TREE))
        return miss
    return Restoration(
        "partial",
        identity.key,
        exit_code=EXIT_PARTIAL,
        source=source,
        store=store.url,
        report=report,
        nearest=relative,
        problem=problem,
    )
