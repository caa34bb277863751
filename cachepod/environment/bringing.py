"""
The CUDA tree of another snapshot, where there is none of the key.

A tree that is only captured cannot be installed: without this, every change of a requirement would
ask for a machine that has it of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment.around import settle
from cachepod.environment.hook import sentence
from cachepod.environment.toolkit import captured, stays
from cachepod.errors import CachepodError, NotEnoughSpace, SpaceExhausted
from cachepod.snapshot.catalog import Summary, summaries
from cachepod.snapshot.pins import pinned_when_long
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.stamp import CUDA_TREE, State, read_stamp, write_stamp
from cachepod.stores.base import WriteStore

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity

_TRIED = 4  # snapshots of one store; more of them will not be damaged


def bring_toolkit(
    settings: Settings, identity: Identity, stores: Sequence[WriteStore], progress: Progress
) -> None:
    """
    Bring the CUDA tree from the newest snapshot that was made with the same one, if it is lacking.

    Where none can be had the install says so.

    Raises:
        NotEnoughSpace, SpaceExhausted: As a restore of the key itself.
    """
    place = captured(settings)
    if place is None or stays(settings) or _is_there(place):
        return
    for store in stores:
        try:
            for key in _keys(store, identity):
                if _bring(settings, identity, store, key, place, progress):
                    settle(settings, progress, fresh=True)
                    return
        except CachepodError as error:
            if isinstance(error, NotEnoughSpace | SpaceExhausted):
                raise
            progress.note(sentence(error))


def _is_there(place: Path) -> bool:
    stamp = read_stamp(place)
    return stamp is not None and stamp.state in (State.COMPLETE, State.INSTALLED)


def _keys(store: WriteStore, identity: Identity) -> Iterator[str]:
    """Snapshots with the tree that is wanted: those of the family first, and the newest first."""
    seen: set[str] = set()
    for family in (identity.fingerprint.family, None):
        for summary in summaries(store, family):
            if summary.key not in seen and _fits(summary, identity):
                seen.add(summary.key)
                yield summary.key
                if len(seen) >= _TRIED:
                    return


def _fits(summary: Summary, identity: Identity) -> bool:
    ours, theirs = identity.fingerprint.inputs, summary.fingerprint.inputs
    same = all(ours.get(name) == theirs.get(name) for name in ("toolkit", "machine"))
    return same and any(tree.name == CUDA_TREE for tree in summary.trees)


def _bring(
    settings: Settings,
    identity: Identity,
    store: WriteStore,
    key: str,
    place: Path,
    progress: Progress,
) -> bool:
    """Whether the tree came from the snapshot *key*."""
    try:
        restore(
            store,
            key,
            [Target(CUDA_TREE, place)],
            partial=True,
            threads=settings.threads,
            direct=settings.direct,
            check_ids=settings.signed,
            min_free=settings.min_free,
            pin=partial(pinned_when_long, store),
            progress=progress,
        )
    except (NotEnoughSpace, SpaceExhausted):
        raise
    except CachepodError as error:
        progress.note(sentence(error))
        return False
    stamp = read_stamp(place)
    if stamp is None:
        return False
    # It is whole, whatever else differs: what is published with it is another key's.
    write_stamp(place, replace(stamp, state=State.INSTALLED, key=identity.key))
    progress.note(f"the CUDA toolkit in {place} comes from {key}")
    return True
