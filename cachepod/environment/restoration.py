"""
The first part of the start-up hook: bring the environment back from a snapshot.

Whatever is wrong with a store, or with what lies in the prefix, an install afterwards must work:
nothing here leaves a prefix that an install would take for complete and that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from cachepod.environment.building import kept
from cachepod.environment.hook import sentence, stored_digest
from cachepod.environment.inplace import confirm, targets_of, tried
from cachepod.environment.outcome import Restoration
from cachepod.environment.toolkit import cannot_be_made, captured, goes_without
from cachepod.environment.waiting import Pause, Wait, build_or_await
from cachepod.errors import (
    EXIT_DAMAGED,
    EXIT_DONE,
    EXIT_MISS,
    EXIT_PARTIAL,
    EXIT_UNREACHABLE,
    CachepodError,
    CorruptObject,
    Miss,
    ObjectMissing,
    StoreUnreachable,
    ToolkitMissing,
    Untrusted,
)
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.stores.base import WriteStore

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity

__all__ = ["Restoration", "restore_environment"]

_LOOKS = 4  # restores that are tried, each after another container has published


@dataclass
class _Search:
    """
    What asking the stores has shown so far.

    Args:
        answered: Stores that were asked and answered.

        lacking: Those of them to which a publish from here would bring a good snapshot.

        useless: URL of a store and digest of a snapshot in it that is not to be restored again.

        spoilt: The end of the restore if nothing better comes: what was brought does not work.

        builds: Whether this container can publish what it installs.
    """

    answered: list[WriteStore] = field(default_factory=list)
    lacking: list[WriteStore] = field(default_factory=list)
    useless: set[tuple[str, str]] = field(default_factory=set)
    unreachable: StoreUnreachable | None = None
    damage: CorruptObject | ObjectMissing | None = None
    miss: Miss | None = None
    spoilt: Restoration | None = None
    builds: bool = True


def restore_environment(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    *,
    force: bool = False,
    progress: Progress | None = None,
    pause: Pause = nullcontext,
) -> Restoration:
    """
    Bring the trees back from the nearest store that has them.

    On a miss one container builds, which is noted for the install, and others wait for it.

    Without a snapshot of the key, the environment of its nearest relative is brought as far as
    an install can make the rest of it. A damaged snapshot is set aside, so that the publish at
    the end of the same hook stores a good one.

    Args:
        settings: The configuration.

        identity: Its key and fingerprint.

        stores: Nearest first.

        force: Replace a directory that cachepod did not make, and what is confirmed as well.

        progress: Told of what goes on.

        pause: Entered while another container is waited for.

    Raises:
        ForeignDirectory: A tree's place is taken.

        NotEnoughSpace: Known before the first byte is written.

        SpaceExhausted: The disk filled up all the same; nothing was changed.

        ToolkitMissing: This user may not make the CUDA tree, and the configuration says that it
            must be there.
    """
    told = progress or NoProgress()
    if captured(settings) is not None and cannot_be_made(settings):
        from cachepod.environment.cudatree import check_place

        try:
            check_place(settings)
        except ToolkitMissing as error:
            if not goes_without(settings):
                raise
            told.note(f"{sentence(error)}; going on without")
    # A name of the user's own may stand for another snapshot by now: that is for the stores to say.
    found = None if force or settings.key else confirm(settings, identity, told)
    if found is not None:
        if identity.without is not None:
            told.note(f"{sentence(identity.without)}; going on without")
        return tried(settings, identity, found, told)
    if identity.layer is not None and identity.layer.obstacle is not None:
        # Whatever a store has cannot be used here, and the install says the same.
        problem = identity.layer.obstacle
        return Restoration("miss", identity.key, exit_code=EXIT_MISS, problem=problem)
    search = _Search()
    if settings.signed:
        from cachepod.environment.trust import believed, may_publish

        stores = believed(stores, settings, told)
        search.builds = may_publish(stores)
    hit = _hit(settings, identity, stores, search, force, told)
    if hit is None and settings.key and not force:
        found = confirm(settings, identity, told)
        if found is not None:  # no store has it, and the trees still hold it
            return found
    wait = Wait()
    looks = 1
    while hit is None and search.builds and search.lacking and looks < _LOOKS:
        wait = _wait(settings, identity.key, stores, search, wait, told, pause)
        if wait.outcome != "awaited":
            break
        hit = _hit(settings, identity, stores, search, force, told)
        looks += 1
    filling: tuple[str, ...] = ()
    if hit is not None and identity.without is not None:
        told.note(f"{sentence(identity.without)}; going on without")
    if hit is None:
        with kept(settings, wait.lease):
            hit = _no_hit(settings, identity, search, force, told)
    elif len(stores) > 1:
        from cachepod.environment.filling import after_restore

        filling = after_restore(settings, identity.key, stores, search.answered, hit, told)
    return replace(
        hit,
        waited=wait.waited,
        lease=wait.outcome,
        built_by=wait.built_by,
        remark=wait.remark,
        filling=filling,
    )


def _wait(
    settings: Settings,
    key: str,
    stores: Sequence[WriteStore],
    search: _Search,
    before: Wait,
    progress: Progress,
    pause: Pause,
) -> Wait:
    """Build the key or wait for it, as long as the patience lasts after the waiting *before*."""

    def published() -> bool:
        return any(_is_new(store, key, search) for store in stores)

    with pause():
        left = max(0.0, settings.wait - before.waited)
        wait = build_or_await(settings, key, search.lacking, published, left, progress)
    return replace(wait, waited=before.waited + wait.waited)


def _is_new(store: WriteStore, key: str, search: _Search) -> bool:
    try:
        digest = stored_digest(store, key)
    except CachepodError:
        return False  # a volume may recover, or be mounted late
    return bool(digest) and (store.url, digest) not in search.useless


def _no_hit(
    settings: Settings, identity: Identity, search: _Search, force: bool, progress: Progress
) -> Restoration:
    if search.damage is not None:
        return Restoration("damaged", identity.key, exit_code=EXIT_DAMAGED, problem=search.damage)
    if search.spoilt is not None:
        return search.spoilt
    if search.unreachable is not None and not search.answered:
        return Restoration(
            "unreachable", identity.key, exit_code=EXIT_UNREACHABLE, problem=search.unreachable
        )
    return _from_relative(settings, identity, search, force, progress)


def _hit(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    """The first store that has a snapshot that works, restored; the rest goes to *search*."""
    search.answered.clear()
    search.lacking.clear()
    search.unreachable = None
    for store in stores:
        found = _from_store(settings, identity, store, stores, search, force, progress)
        if found is None:
            continue
        if identity.layer is not None:
            from cachepod.environment.merging import is_at_fault, merged

            found = merged(settings, identity, found, progress)
            if found.problem is not None and not is_at_fault(identity, found.problem):
                return found  # what the store has is good, and stays
        found = tried(settings, identity, found, progress)
        if found.exit_code == EXIT_DONE:
            return found
        search.answered.append(store)
        search.spoilt = found
        _note_useless(store, identity.key, search)
        search.lacking.append(store)  # what is installed now is published in its place
        break
    return None


def _note_useless(store: WriteStore, key: str, search: _Search) -> str:
    """Remember what *store* holds of *key*, which is of no use; empty if it holds nothing."""
    try:
        digest = stored_digest(store, key)
    except CachepodError:
        return "unknown"
    if digest:
        search.useless.add((store.url, digest))
    return digest


def _from_store(
    settings: Settings,
    identity: Identity,
    store: WriteStore,
    stores: Sequence[WriteStore],
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    from cachepod.snapshot.pins import pinned_when_long
    from cachepod.snapshot.restore import restore

    try:
        report = restore(
            store,
            identity.key,
            targets_of(settings, identity, force),
            expect=None if settings.key else identity.fingerprint,
            latest=bool(settings.key),
            threads=settings.threads,
            direct=settings.direct,
            check_ids=settings.signed,
            backups=[other for other in stores if other is not store],
            force=force,
            min_free=settings.min_free,
            pin=partial(pinned_when_long, store),
            progress=progress,
        )
    except Miss as miss:
        search.miss = search.miss or miss
        search.answered.append(store)
        # What cannot be used and stays where it is, such as one of a later format, is not replaced.
        if not _note_useless(store, identity.key, search) or isinstance(miss, Untrusted):
            search.lacking.append(store)
    except StoreUnreachable as unreachable:
        search.unreachable = search.unreachable or unreachable
        if len(settings.store) > 1:  # else it is what the command ends with
            progress.note(sentence(unreachable))
    except (CorruptObject, ObjectMissing) as damage:
        from cachepod.environment.relatives import set_aside_damage

        search.damage = damage
        search.answered.append(store)
        if set_aside_damage(store, identity.key, damage, progress):
            search.lacking.append(store)
        else:
            _note_useless(store, identity.key, search)
    else:
        return Restoration(
            report.outcome, identity.key, source=identity.key, store=store.url, report=report
        )
    return None


def _from_relative(
    settings: Settings, identity: Identity, search: _Search, force: bool, progress: Progress
) -> Restoration:
    """The environment of the nearest relative, if an install can make the rest of it."""
    problem = search.miss or Miss(identity.key)
    miss = Restoration("miss", identity.key, exit_code=EXIT_MISS, problem=problem)
    if settings.key:
        return miss
    if captured(settings) is not None:
        from cachepod.environment.bringing import bring_toolkit

        bring_toolkit(settings, identity, search.answered, progress)
    from cachepod.environment.relatives import bring_relative

    found = bring_relative(settings, identity, search.answered, force=force, progress=progress)
    if found is None:
        return miss
    if found.report is None:
        return replace(miss, nearest=found.relative)
    return Restoration(
        "partial",
        identity.key,
        exit_code=EXIT_PARTIAL,
        source=found.relative.summary.key,
        store=found.store,
        report=found.report,
        nearest=found.relative,
        problem=problem,
    )
