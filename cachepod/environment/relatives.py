"""What a restore brings on a miss, and what it does about damage; the whole is restoration.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment.hook import sentence
from cachepod.errors import (
    CachepodError,
    CorruptObject,
    Miss,
    ObjectMissing,
    StoreUnreachable,
)
from cachepod.snapshot.catalog import Relative, Summary, nearest, restorable
from cachepod.snapshot.damage import set_aside
from cachepod.snapshot.pins import pinned_when_long
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.restore import RestoreReport, Target, confirmed, restore
from cachepod.snapshot.stamp import ENVIRONMENT_TREE, Stamp, State, read_stamp, write_stamp
from cachepod.snapshot.uses import install_seconds
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

        whole: What was brought is all of the environment that is wanted: it is the rest that
            differs.
    """

    relative: Relative
    store: str
    report: RestoreReport | None = None
    whole: bool = False


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
    targets = [Target(ENVIRONMENT_TREE, settings.prefix)]
    layered = identity.layer is not None and _has_the_layer(identity, relative)
    if layered:
        targets.append(_layer_target())
    try:
        report = _in_place(settings, relative, targets, force) or restore(
            store,
            source,
            targets,
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
    if layered:
        _merge_layer(settings, identity, progress)
    whole = _is_whole(relative)
    if whole:
        _take_over(settings.prefix, identity.key, relative.summary)
    return Brought(relative, store.url, report, whole)


def _is_whole(relative: Relative) -> bool:
    """Whether the relative's environment is the one that is wanted: what differs is the layer."""
    from cachepod.environment.layer import of_layer

    return all(map(of_layer, relative.differences))


def _in_place(
    settings: Settings, relative: Relative, targets: Sequence[Target], force: bool
) -> RestoreReport | None:
    """The report of a restore that has nothing to do, for the prefix holds the relative itself."""
    if force or len(targets) > 1 or not _is_whole(relative):
        return None
    return confirmed(targets, relative.summary.key)


def _take_over(prefix: Path, key: str, summary: Summary) -> None:
    """Stamp the relative's environment as that of *key*: an install finds it there."""
    held = read_stamp(prefix)
    write_stamp(
        prefix,
        Stamp(
            State.INSTALLED,
            key,
            ENVIRONMENT_TREE,
            held.manifest if held is not None else "",
            install_seconds=install_seconds(summary),
        ),
    )


def _has_the_layer(identity: Identity, relative: Relative) -> bool:
    """Whether the relative's apt layer is the one that is wanted, and is to be brought."""
    from cachepod.environment.layer import in_place, make_ours, of_layer
    from cachepod.system.record import TREE

    if not any(tree.name == TREE for tree in relative.summary.trees):
        return False
    if any(map(of_layer, relative.differences)) or in_place(identity):
        return False
    make_ours()
    return True


def _layer_target() -> Target:
    from cachepod.environment.layer import tree_place
    from cachepod.system.record import TREE

    return Target(TREE, tree_place())


def _merge_layer(settings: Settings, identity: Identity, progress: Progress) -> None:
    """The relative's layer into this system; where that fails, an install has apt do it."""
    from cachepod.environment.layer import adopt, apply_layer, refuse

    try:
        apply_layer(settings, progress)
        adopt(identity, State.INSTALLED)
    except CachepodError as error:
        progress.note(sentence(error))
        refuse(identity, for_all=False)
    except OSError as error:
        progress.note(f"the stamp of the apt packages cannot be written: {error.strerror}")


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
