"""What is going on in a store: who builds what, who relies on packs, what has been left behind."""

from __future__ import annotations

from collections.abc import Iterator

from cachepod.environment.diagnosis import Check, Severity
from cachepod.errors import CachepodError, human_bytes
from cachepod.model.names import CONDEMNED, DAMAGED, LEASES, MANIFESTS
from cachepod.snapshot.claim import LIMIT, Claim, State
from cachepod.snapshot.pins import read_pins
from cachepod.stores.base import PruneStore, Store

_SHOWN = 3  # builders that are named


def activity(about: str, store: PruneStore) -> Iterator[Check]:
    """What others do in *store* right now, as far as they say so; nothing is waited for."""
    for look in (_builders, _pins, _condemned, _damaged, _unfinished):
        try:
            check = look(about, store)
        except CachepodError as error:
            yield Check(about, "activity", error.message, error.hint, Severity.WARNING)
            return
        if check is not None:
            yield check


def _builders(about: str, store: PruneStore) -> Check | None:
    latest: dict[str, int] = {}
    for info in store.list(LEASES):
        _, key, number = ("/" + info.name).rsplit("/", 2)
        if number.isdigit() and len(number) < 10:
            latest[key] = max(latest.get(key, 0), int(number))
    said = []
    for key, highest in sorted(latest.items()):
        claim = _claim(store, f"{LEASES}/{key}/{highest}")
        if claim is not None and claim.state is State.BUILDING:
            said.append(f"{key} by {claim.holder} for {claim.elapsed:.0f} s")
    if not said:
        return None
    more = f", and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return Check(
        about,
        "builders",
        "; ".join(said[:_SHOWN]) + more,
        "a container that misses one of these keys waits for it; a builder that died is noticed "
        "within a minute",
        Severity.NOTE,
    )


def _claim(store: Store, name: str) -> Claim | None:
    try:
        return Claim.decode(store.read(name, limit=LIMIT))
    except CachepodError:
        return None  # it was given back meanwhile, or is none


def _pins(about: str, store: PruneStore) -> Check | None:
    found = read_pins(store)
    if not found:
        return None
    return Check(
        about,
        "pins",
        f"{len(found)}",
        "a publish, copy or long restore each, at work or killed; a prune tells them apart",
        Severity.NOTE,
    )


def _condemned(about: str, store: PruneStore) -> Check | None:
    if next(store.list(CONDEMNED), None) is None:
        return None
    return Check(
        about,
        "prune",
        "at work, or was interrupted",
        "the next prune finishes what this one began",
        Severity.NOTE,
    )


def _damaged(about: str, store: PruneStore) -> Check | None:
    marked = sum(1 for _ in store.list(DAMAGED))
    if not marked:
        return None
    return Check(
        about,
        "damage",
        f"{marked} {'pack is' if marked == 1 else 'packs are'} marked as damaged",
        "no publish takes a chunk from there; cachepod verify says which snapshots are hurt",
        Severity.WARNING,
    )


def _unfinished(about: str, store: PruneStore) -> Check | None:
    found = list(store.leftovers())
    if not found:
        return None
    size = sum(each.size for each in found)
    return Check(
        about,
        "unfinished",
        f"{len(found)} {'object' if len(found) == 1 else 'objects'}, {human_bytes(size)}",
        "of writers at work or killed; a prune removes what nobody goes on with",
        Severity.NOTE,
    )


def contents(about: str, store: Store, *, missing: bool = False) -> Check:
    """
    Whether the store can be read and has snapshots; *missing* says that there is no such place.

    Raises:
        CachepodError: It cannot be read.
    """
    if next(iter(store.list(MANIFESTS)), None) is not None:
        return Check(about, "contents", "snapshots", "the store can be read")
    return Check(
        about,
        "contents",
        "it does not exist yet" if missing else "empty",
        "the first publish fills it",
        Severity.NOTE,
    )
