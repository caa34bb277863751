"""What a publish need not store again: the chunks that snapshots of its family have."""

from __future__ import annotations

from collections.abc import Sequence

from cachepod.errors import CachepodError, CorruptObject
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import ChunkTable
from cachepod.model.names import MANIFESTS, family_of, manifest_name
from cachepod.snapshot.packing import ChunkIndex, damaged_packs
from cachepod.snapshot.pins import Pin, has_pack
from cachepod.stores.base import WriteStore

#: Relatives whose chunks are looked through; the newest ones, for they are the most alike.
_RELATIVES = 16


def known_chunks(store: WriteStore, key: str, held: Sequence[str], pin: Pin) -> ChunkIndex:
    """
    The chunks that may be relied on while *pin* is held, which is written here.

    Of packs that are damaged, gone, or about to be deleted by a prune there are none.

    Args:
        key: What is to be published.

        held: Keys of the snapshots that its trees were made from.

    Raises:
        SpaceExhausted, StoreUnreachable: As the store has it.
    """
    tables = _tables(store, key, held)
    try:
        condemned = pin.rely_on(pack.id for table in tables for pack in table.packs)
    except CorruptObject:
        return ChunkIndex()  # what is condemned is not known, so everything might be
    without = damaged_packs(store) | condemned
    intact: dict[str, bool] = {}
    index = ChunkIndex()
    for table in tables:
        for pack in table.packs:
            if pack.id not in intact:
                intact[pack.id] = pack.id not in without and has_pack(store, pack.id, pack.size)
        index.learn(table, frozenset(pack.id for pack in table.packs if not intact[pack.id]))
    return index


def _tables(store: WriteStore, key: str, held: Sequence[str]) -> list[ChunkTable]:
    """Those of what the trees held, then those of the family's newest snapshots."""
    names = [
        info.name
        for info in sorted(
            store.list(f"{MANIFESTS}/{family_of(key)}"),
            key=lambda info: info.modified,
            reverse=True,
        )
    ]
    first = [manifest_name(each) for each in held if each != key]
    tables = []
    for name in list(dict.fromkeys(first + names))[:_RELATIVES]:
        try:
            data = store.read(name, limit=MAX_MANIFEST_SIZE)
            tables.append(ChunkTable.decode(data, name=name))
        except CachepodError:
            # A snapshot that cannot be read is nobody's relative; restore and verify deal with it.
            continue
    return tables
