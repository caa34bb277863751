"""
Who asked a store for which key, and what came of it: for the policy of a prune, and for figures.

An object ``uses/<key>/...`` says it all in its name, so that a listing is all there is to read::

    uses/<key>/<hour>                                            asked for in this hour
    uses/<key>/<hour>.<event>.<weight>.<ms>.<bytes>.<ms>.<ms>.<id>

    hour    2026-11-24T14, of UTC, by the clock of whoever asked
    event   hit, partial, miss or publish
    weight  how many events it stands for
    ms      milliseconds that it took; then of waiting for another container; then saved, which
            may be negative
    bytes   that were moved
    id      16 hex digits, drawn at random

On a store across a network a hit writes nothing most of the time: the first one of an hour makes
the short object and is recorded, and of those after it one in 16, with weight 16. So last use is
exact to the hour and numbers are right on average. What costs minutes anyway is always recorded.

Nothing here may rest on: a record can be lost, forged, or late.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from cachepod.errors import CachepodError
from cachepod.model.names import FORMAT_OBJECT, USES, is_component
from cachepod.model.summary import Summary
from cachepod.stores.base import ObjectInfo, Store, WriteStore, exists

#: Of a record, in seconds; older ones are of no use to a policy and are swept by a prune.
KEPT = 90 * 86_400.0
#: One hit in so many is recorded on a store across a network.
_ONE_IN = 16
_PATIENCE = 1.0  # seconds that a start may be kept waiting by all this
_CREATOR = "install_seconds"

_AMOUNT = r"[0-9]{1,16}"
_HOUR = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}"
_RECORD = re.compile(
    rf"{_HOUR}(?:\.(?P<event>hit|partial|miss|publish)\.(?P<weight>[1-9][0-9]{{0,5}})"
    rf"\.(?P<seconds>{_AMOUNT})\.(?P<size>{_AMOUNT})\.(?P<waited>{_AMOUNT})\.(?P<saved>-?{_AMOUNT})"
    r"\.[0-9a-f]{16})?"
)


class Event(str, Enum):
    """What came of asking for a key."""

    HIT = "hit"  # the trees hold the snapshot now, and did not before
    PARTIAL = "partial"  # another key's install tops this snapshot up
    MISS = "miss"  # it must be installed
    PUBLISH = "publish"  # it is stored now


@dataclass(frozen=True)
class Tally:
    """
    What was recorded of one key, or of several.

    Args:
        hits, partials, misses, publishes: Numbers of events; see :class:`Event`.

        waits: Events that had to wait for another container.

        waited: Seconds that they waited, in all.

        restored: Bytes read from the store.

        published: Bytes written to it.

        restoring, publishing: Seconds that this took, in all.

        saved: Seconds that installing would have taken longer, as far as is known.

        last: When the store was last asked, in seconds since 1970 by its own clock.
    """

    hits: int = 0
    partials: int = 0
    misses: int = 0
    publishes: int = 0
    waits: int = 0
    waited: float = 0.0
    restored: int = 0
    published: int = 0
    restoring: float = 0.0
    publishing: float = 0.0
    saved: float = 0.0
    last: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            hits=self.hits + other.hits,
            partials=self.partials + other.partials,
            misses=self.misses + other.misses,
            publishes=self.publishes + other.publishes,
            waits=self.waits + other.waits,
            waited=self.waited + other.waited,
            restored=self.restored + other.restored,
            published=self.published + other.published,
            restoring=self.restoring + other.restoring,
            publishing=self.publishing + other.publishing,
            saved=self.saved + other.saved,
            last=max(self.last, other.last),
        )


@dataclass(frozen=True)
class Use:
    """
    One event.

    Args:
        seconds: It took, waiting included.

        size: Bytes moved.

        waited: Seconds of waiting for another container.

        saved: Seconds that installing would have taken longer.

        weight: How many events it stands for.
    """

    event: Event
    seconds: float = 0.0
    size: int = 0
    waited: float = 0.0
    saved: float = 0.0
    weight: int = 1

    def tally(self) -> Tally:
        """What it adds up to."""
        weight = self.weight
        restoring = self.event in (Event.HIT, Event.PARTIAL)
        publishing = self.event is Event.PUBLISH
        return Tally(
            hits=weight * (self.event is Event.HIT),
            partials=weight * (self.event is Event.PARTIAL),
            misses=weight * (self.event is Event.MISS),
            publishes=weight * publishing,
            waits=weight * (self.waited > 0),
            waited=weight * self.waited,
            restored=weight * self.size * restoring,
            published=weight * self.size * publishing,
            restoring=weight * (self.seconds - self.waited) * restoring,
            publishing=weight * self.seconds * publishing,
            saved=weight * self.saved,
        )

    def name(self, hour: str) -> str:
        """The part of its object's name after the key."""
        figures = [
            self.weight,
            _milliseconds(self.seconds),
            min(max(self.size, 0), 10**16 - 1),
            _milliseconds(self.waited),
            _milliseconds(self.saved, negative=True),
        ]
        parts = [hour, self.event.value, *map(str, figures), os.urandom(8).hex()]
        return ".".join(parts)


@dataclass
class Uses:
    """What one listing shows: of each key a :class:`Tally`."""

    tallies: dict[str, Tally] = field(default_factory=dict)

    @property
    def total(self) -> Tally:
        """Of all keys."""
        return sum(self.tallies.values(), Tally())


def record(
    store: WriteStore,
    key: str,
    use: Use,
    *,
    now: Callable[[], float] = time.time,
    chance: Callable[[], float] = random.random,
    patience: float = _PATIENCE,
) -> str:
    """
    Note *use* of the snapshot *key* in *store*, best effort.

    To be called when the trees are in place: it waits no longer than *patience* seconds, and goes
    on in a thread that nobody waits for.

    Args:
        now: Seconds since 1970 by this machine's clock.

        chance: A number from 0 to 1.

    Returns:
        Why it may not have been noted, as a sentence; empty if it was, or is one of those that
        are left out.
    """
    trouble = ["it takes too long"]

    def work() -> None:
        try:
            _record(store, key, use, time.strftime("%Y-%m-%dT%H", time.gmtime(now())), chance)
        except CachepodError as error:
            trouble[0] = error.message
        except Exception as error:  # whatever it is, the environment is there and shall be used
            trouble[0] = f"{type(error).__name__}: {error}"
        else:
            trouble[0] = ""

    thread = threading.Thread(target=work, name="uses", daemon=True)
    try:
        thread.start()
        thread.join(patience)
    except RuntimeError as error:  # no more threads
        trouble[0] = str(error)
    return f"the use of {key} is not noted: {trouble[0]}" if trouble[0] else ""


def _record(store: WriteStore, key: str, use: Use, hour: str, chance: Callable[[], float]) -> None:
    if use.event is Event.HIT and store.parallel_reads:
        short = f"{USES}/{key}/{hour}"
        if exists(store, short):
            if chance() * _ONE_IN >= 1:
                return
            use = replace(use, weight=_ONE_IN)
        else:
            # Several may find none at one moment. Each records itself, so the sum is right.
            store.replace(short, b"")
    if use.event is Event.MISS and not exists(store, FORMAT_OBJECT):
        return  # there is no store yet, and a miss is no reason to make one
    # Nobody else has this name, so whether it is taken need not be asked.
    store.replace(f"{USES}/{key}/{use.name(hour)}", b"")


def read_uses(store: Store) -> Uses:
    """
    All that is recorded in *store*; what cannot be understood is passed over.

    Raises:
        StoreUnreachable: It cannot be listed.
    """
    found: dict[str, Tally] = {}
    for key, use, info in _records(store):
        tally = (
            Tally(last=info.modified) if use is None else replace(use.tally(), last=info.modified)
        )
        found[key] = found[key] + tally if key in found else tally
    return Uses(found)


def last_used(store: Store) -> dict[str, float]:
    """
    Of each key when it was last asked for, published included, exact to the hour.

    By the clock of the store, as its listings give it, in seconds since 1970: clocks of those who
    asked count for nothing. Keys without a record are left out.

    Raises:
        StoreUnreachable: It cannot be listed.
    """
    return {key: tally.last for key, tally in read_uses(store).tallies.items()}


def stale(store: Store, now: float | None = None, *, kept: float = KEPT) -> Iterator[str]:
    """
    Names of records that are older than *kept* seconds, for a prune to delete.

    What has no name of a record is named when it is as old as that.

    Args:
        now: By the clock of the store; without it, the newest record is taken to be of now.
    """
    found = list(store.list(USES))
    latest = max((info.modified for info in found), default=0.0) if now is None else now
    for info in found:
        if latest - info.modified > kept:
            yield info.name


def _records(store: Store) -> Iterator[tuple[str, Use | None, ObjectInfo]]:
    for info in store.list(USES):
        parts = info.name.split("/")
        if len(parts) != 3 or not is_component(parts[1]):
            continue
        match = _RECORD.fullmatch(parts[2])
        if match is None:
            continue
        use: Use | None = None
        if match["event"]:
            use = Use(
                Event(match["event"]),
                seconds=int(match["seconds"]) / 1000,
                size=int(match["size"]),
                waited=int(match["waited"]) / 1000,
                saved=int(match["saved"]) / 1000,
                weight=int(match["weight"]),
            )
        yield parts[1], use, info


def _milliseconds(seconds: float, *, negative: bool = False) -> int:
    number = round(seconds * 1000)
    return max(min(number, 10**15), -(10**15) if negative else 0)


# How long an install took, on its way from the tree's stamp to whoever restores the snapshot


def creator_of(install_seconds: float) -> dict[str, str]:
    """What a manifest's creator says of an install that took so long; nothing if not known."""
    return {_CREATOR: f"{install_seconds:.1f}"} if install_seconds > 0 else {}


def install_seconds(summary: Summary) -> float:
    """Seconds that installing what *summary* is of took; 0 if not known."""
    try:
        seconds = float(summary.creator.get(_CREATOR, "0"))
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < KEPT else 0.0  # a comparison with NaN is false too
