"""What a restore brings on a miss, and what it does about damage; the whole is restoration.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cachepod.environment.hook import sentence
from cachepod.errors import (
    CachepodError,
    CorruptObject,
    Miss,
    ObjectMissing,
    StoreUnreachable,
)
from cachepod.snapshot.catalog import Relative, nearest, restorable
from cachepod.snapshot.damage import set_aside
from cachepod.snapshot.pins import pinned_when_long
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.restore import RestoreReport, Target, restore
from cachepod.snapshot.stamp import ENVIRONMENT_TREE, Stamp, State, write_stamp
from cachepod.stores.base import WriteStore

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity


@dataclass(frozen=True)
class Brought:
    """
    The nearest relative of what was asked for.

    Args:
        relative: It, and in what it differs.

        store: URL of where it is.

        report: Of the restore; None if nothing was brought, for it would have been of no use.
    """

    relative: Relative
    store: str
    report: RestoreReport | None = None


def bring_relative(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    *,
    force: bool,
    progress: Progress,
) -> Brought | None:
    """
    Bring the environment of the nearest relative, if an install can make the rest of it.

    Returns:
        None where there is no relative.

    Raises:
        ForeignDirectory, NotEnoughSpace, SpaceExhausted: As a restore of the key itself.
    """
    from cachepod.environment.check import interpreter_works

    best: tuple[WriteStore, Relative] | None = None
    for store in stores:
        try:
            relative = nearest(store, identity.fingerprint, whole=settings.signed)
        except CachepodError as error:
            progress.note(sentence(error))
            continue
        if relative and (best is None or len(relative.differences) < len(best[1].differences)):
            best = store, relative
    if best is None:
        return None
    store, relative = best
    found = Brought(relative, store.url)
    if not settings.wants_environment or not restorable(identity.fingerprint, relative):
        return found
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
            pin=partial(pinned_when_long, store),
            progress=progress,
        )
    except (CorruptObject, ObjectMissing) as damage:
        set_aside_damage(store, source, damage, progress)
        return found
    except (Miss, StoreUnreachable) as error:
        progress.note(sentence(error))
        return found
    if not interpreter_works(settings.prefix, identity.interpreter):
        write_stamp(settings.prefix, Stamp(State.INSTALLING, identity.key, ENVIRONMENT_TREE))
        return found
    return Brought(relative, store.url, report)


def set_aside_damage(
    store: WriteStore, key: str, damage: CorruptObject | ObjectMissing, progress: Progress
) -> bool:
    """Set the snapshot of *key* aside, so that the next publish stores a good one; False if not."""
    try:
        set_aside(store, key, damage)
    except CachepodError as error:  # a store that may only be read, or is full
        progress.note(f"{damage.message}, and cannot be set aside: {error.message}")
        return False
    progress.note(f"{damage.message}: the snapshot {key} is set aside")
    return True
