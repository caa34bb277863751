"""Which holders are dead: their objects did not change while they were watched here."""

from __future__ import annotations

from collections.abc import Sequence

from cachepod.errors import CorruptObject, ObjectMissing
from cachepod.model.names import CONDEMNED, INCOMING, PACKS
from cachepod.snapshot.beat import UNCHANGED, Clock
from cachepod.snapshot.pins import PIN_LIMIT, FoundPin, packs_in, read_pins
from cachepod.stores.base import ObjectInfo, Store


class Watch:
    """
    Looks at *objects* and all pins when it is made, and later once more.

    Args:
        clock: Says for how long they were watched. Before UNCHANGED seconds are over, nobody is
            taken for dead.
    """

    def __init__(self, store: Store, objects: Sequence[ObjectInfo], clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._pins = {pin.id: pin.data for pin in read_pins(store)}
        self._seen: list[FoundPin] = []
        self._objects = [(info, self._content(info.name)) for info in objects]
        self._began = clock()

    @property
    def _long_enough(self) -> bool:
        return self._clock() - self._began >= UNCHANGED

    def glance(self) -> None:
        """
        Remember the pins of now, in the middle of the time of watching.

        Where a listing lags behind, it may be long before it shows the manifest that was committed
        just before a pin went. So a pin that goes in the second half counts as if it were there.

        Raises:
            StoreUnreachable: They cannot be read.
        """
        self._seen = read_pins(self._store)

    def living_pins(self) -> list[FoundPin]:
        """
        The pins of now, without those of the dead, and those that have gone lately.

        Raises:
            StoreUnreachable: They cannot be read.
        """
        long_enough = self._long_enough
        now = read_pins(self._store)
        there = {pin.id for pin in now}
        return [
            *(pin for pin in now if not (long_enough and self._pins.get(pin.id) == pin.data)),
            *(pin for pin in self._seen if pin.id not in there),
        ]

    def dead(self) -> list[ObjectInfo]:
        """
        The objects of the dead, in the order in which they may be deleted. A list of condemned
        packs of which none is there is of no use, whoever wrote it.

        Raises:
            StoreUnreachable: As the store has it.
        """
        long_enough = self._long_enough
        found = []
        for info, before in self._objects:
            now = self._content(info.name)
            if now is None:
                continue
            if (long_enough and now == before) or self._is_done(info.name, now):
                found.append(info)
        # Of the objects of one lease the highest number last: it is the one that counts.
        return sorted(found, key=lambda info: (len(info.name), info.name))

    def _content(self, name: str) -> bytes | None:
        try:
            if name.startswith(f"{INCOMING}/"):  # as large as a pack, and never changed
                return b"%d" % self._store.size(name)
            return self._store.read(name, limit=PIN_LIMIT)
        except ObjectMissing:
            return None
        except CorruptObject:
            return b""

    def _is_done(self, name: str, data: bytes) -> bool:
        if not name.startswith(f"{CONDEMNED}/"):
            return False
        try:
            condemned = packs_in(data, name)
        except CorruptObject:
            return False
        # Listed after the list was read: what it names and is new would be seen.
        there = {info.name.rpartition("/")[2] for info in self._store.list(PACKS)}
        return not condemned & there
