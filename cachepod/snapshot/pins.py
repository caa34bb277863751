"""
Pins: what somebody at work relies on, so that a prune leaves it alone.

``pins/<id>`` is JSON: *packs*, the ids of the packs that are relied on, and what
:class:`~cachepod.snapshot.beat.Beat` adds. The pin's id is 16 hex digits drawn at random, and every
pack that its holder writes ends in it: those are protected without being listed.

Whoever is about to rely on packs that a manifest names does it in this order::

    1  read the manifests
    2  write the pin, which names their packs
    3  read condemned/*, and rely on none of the packs named there
    4  look whether the other packs are there

A prune writes ``condemned/<id>``, waits, and reads all pins before it deletes anything. So it
either sees the pin, or had condemned the packs before step 3, or had deleted them before step 4.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cachepod.errors import CorruptObject, ObjectMissing, PinLost
from cachepod.model.names import CONDEMNED, PINS, is_pack_id, pack_name
from cachepod.snapshot.beat import PERIOD, Beat, Clock, boottime
from cachepod.stores.base import Store, WriteStore

#: A restore that takes longer than this many seconds pins its packs.
LONG = 60.0
#: Bytes of a pin or of a list of condemned packs, at most: a million packs.
PIN_LIMIT = 64 * 1024 * 1024
#: The last digits of a pack's id: the id of its writer's pin.
WRITER_DIGITS = 16
_ID = re.compile(rf"[0-9a-f]{{{WRITER_DIGITS}}}")


class Pin:
    """The right to rely on packs; see :func:`hold_pin`."""

    def __init__(self, store: WriteStore, *, clock: Clock, period: float) -> None:
        self.id = os.urandom(8).hex()
        self._store = store
        self._packs: dict[str, None] = {}
        self._beat = Beat(
            store,
            f"{PINS}/{self.id}",
            lambda: {"packs": list(self._packs)},
            clock=clock,
            period=period,
        )

    def rely_on(self, packs: Iterable[str]) -> frozenset[str]:
        """
        Name *packs* in the pin, and write it now; with none of them, for packs yet to be written.

        Returns:
            Those that must not be relied on, for a prune is about to delete them. Of the others,
            the caller looks whether they are there: one may just have been deleted.

        Raises:
            SpaceExhausted, StoreUnreachable: The pin could not be written, or *condemned/* not
                be read.

            CorruptObject: What is condemned cannot be understood.
        """
        self._packs.update(dict.fromkeys(packs))
        self._beat.start()
        return condemned_packs(self._store).intersection(self._packs)

    def pack_id(self) -> str:
        """A new id for a pack that this pin protects."""
        return os.urandom(8).hex() + self.id

    def renew(self) -> None:
        """Write the pin anew now; a thread does it every so often."""
        self._beat.renew()

    def confirm(self, packs: Mapping[str, int]) -> None:
        """
        Make sure that *packs* are still protected: to be called before they are relied on for
        good, and again after. No request is made if the pin was renewed all the time.

        Where it could not be, or the machine slept, a prune may have taken this holder for dead.
        Then the pin is written anew, and every pack looked at.

        Args:
            packs: Id and size in bytes of each.

        Raises:
            PinLost: Some of them are gone, or about to be deleted.

            SpaceExhausted, StoreUnreachable, CorruptObject: As for :meth:`rely_on`.
        """
        if self._beat.unbroken:
            return
        self._beat.mend()
        condemned = condemned_packs(self._store)
        for pack, size in packs.items():
            if pack in condemned or not has_pack(self._store, pack, size):
                raise PinLost(pack)

    def release(self) -> None:
        """Rely on nothing any more; no error if the pin cannot be deleted."""
        self._beat.stop()


@contextmanager
def hold_pin(
    store: WriteStore, *, clock: Clock = boottime, period: float = PERIOD
) -> Iterator[Pin]:
    """
    A pin for as long as the block lasts. Nothing is written before :meth:`Pin.rely_on`.

    Args:
        clock: Tells how long ago the pin was renewed.

        period: Seconds between two renewals; zero for none but those of :meth:`Pin.renew`.
    """
    pin = Pin(store, clock=clock, period=period)
    try:
        yield pin
    finally:
        pin.release()


@contextmanager
def pinned_when_long(
    store: WriteStore, packs: Iterable[str], *, after: float = LONG, period: float = PERIOD
) -> Iterator[None]:
    """
    Pin *packs* once the block has lasted for *after* seconds; for reading them.

    A prune waits for longer than that before it deletes anything, so shorter work needs no pin.
    Best effort: where the pin cannot be written, as in a store that may only be read, nothing is
    said.
    """
    named = list(packs)
    identity = os.urandom(8).hex()
    beat = Beat(store, f"{PINS}/{identity}", lambda: {"packs": named}, period=period)
    beat.start(delay=after)
    try:
        yield
    finally:
        beat.stop()


def has_pack(store: Store, pack: str, size: int) -> bool:
    """
    Whether *pack* is there, and *size* bytes long.

    Raises:
        StoreUnreachable: That cannot be found out.
    """
    try:
        return store.size(pack_name(pack)) == size
    except (ObjectMissing, CorruptObject):
        return False


def condemned_packs(store: Store) -> frozenset[str]:
    """
    The packs that a prune is about to delete.

    Raises:
        StoreUnreachable: They cannot be read.

        CorruptObject: What is there cannot be understood.
    """
    found: set[str] = set()
    for info in store.list(CONDEMNED):
        try:
            data = store.read(info.name, limit=PIN_LIMIT)
        except ObjectMissing:
            continue  # that prune is over: what it has deleted is not there any more
        found |= packs_in(data, info.name)
    return frozenset(found)


def packs_in(data: bytes, name: str) -> frozenset[str]:
    """
    The packs that a pin or a list of condemned packs names.

    Raises:
        CorruptObject: *data* are neither.
    """
    try:
        packs = json.loads(data)["packs"]
        if not isinstance(packs, list) or not all(
            isinstance(pack, str) and is_pack_id(pack) for pack in packs
        ):
            raise ValueError("packs is not a list of ids")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptObject(name, f"it names no packs: {error}") from error
    return frozenset(packs)


@dataclass(frozen=True)
class FoundPin:
    """
    A pin as it was read.

    Args:
        id: 16 hex digits.

        data: The object; a holder that lives changes it.

        packs: What it names; None if it cannot be understood.
    """

    id: str
    data: bytes
    packs: frozenset[str] | None

    @classmethod
    def parse(cls, identity: str, data: bytes) -> FoundPin:
        """The pin *identity*, which is *data*."""
        try:
            return cls(identity, data, packs_in(data, f"{PINS}/{identity}"))
        except CorruptObject:
            return cls(identity, data, None)

    def protects(self, pack: str) -> bool:
        """Whether *pack* is named, or written by the holder. What is not understood, protects."""
        return self.packs is None or pack in self.packs or pack.endswith(self.id)


def read_pins(store: Store) -> list[FoundPin]:
    """
    All pins; one that vanishes meanwhile is passed over.

    Raises:
        StoreUnreachable: They cannot be read.
    """
    found = []
    for info in store.list(PINS):
        identity = info.name.rpartition("/")[2]
        if not _ID.fullmatch(identity):
            continue  # no pin has this name
        try:
            data = store.read(info.name, limit=PIN_LIMIT)
        except ObjectMissing:
            continue
        except CorruptObject:
            data = b""
        found.append(FoundPin.parse(identity, data))
    return found
