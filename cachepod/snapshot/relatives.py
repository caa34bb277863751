"""What a publish need not store again: the chunks that snapshots of its family have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cachepod.errors import CachepodError, CorruptObject
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import ChunkTable
from cachepod.model.names import MANIFESTS, family_of, manifest_name
from cachepod.snapshot.census import in_parallel
from cachepod.snapshot.packing import ChunkIndex, damaged_packs
from cachepod.snapshot.pins import Pin, has_pack
from cachepod.stores.base import WriteStore

#: Relatives whose chunks are looked through; the newest ones, for they are the most alike.
_RELATIVES = 16
#: Bytes of manifests that are read ahead, for as many as the store rewards are read at a time.
_AHEAD = 32 * 1024 * 1024


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
    # A snapshot of an environment that has come a long way needs a pack of each of its versions.
    needed = {pack.id: pack.size for table in reversed(tables) for pack in table.packs}
    looked = [pack for pack in needed if pack not in without]
    there = in_parallel(store, lambda pack: has_pack(store, pack, needed[pack]), looked)
    intact = {pack for pack, found in zip(looked, there, strict=True) if found}
    index = ChunkIndex()
    for table in tables:
        index.learn(table, frozenset(pack.id for pack in table.packs if pack.id not in intact))
    return index


def _tables(store: WriteStore, key: str, held: Sequence[str]) -> list[ChunkTable]:
    """Those of what the trees held, then those of the family's newest snapshots."""
    listed = sorted(
        store.list(f"{MANIFESTS}/{family_of(key)}"), key=lambda info: info.modified, reverse=True
    )
    first = [manifest_name(each) for each in held if each != key]
    names = list(dict.fromkeys([*first, *(info.name for info in listed)]))[:_RELATIVES]

    def read(name: str) -> bytes | None:
        try:
            return store.read(name, limit=MAX_MANIFEST_SIZE)
        except CachepodError:
            return None

    tables = []
    for some in _batches(names, {info.name: info.size for info in listed}):
        for name, data in zip(some, in_parallel(store, read, some), strict=True):
            try:
                if data is not None:
                    tables.append(ChunkTable.decode(data, name=name))
            except CachepodError:
                # What cannot be read is nobody's relative; restore and verify deal with it.
                continue
    return tables


def _batches(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """*names* in order, a few at a time: as many as have :data:`_AHEAD` bytes, or one."""
    batch: list[str] = []
    total = 0
    for name in names:
        size = sizes.get(name, 0)
        if batch and total + size > _AHEAD:
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += size
    if batch:
        yield batch
