"""
What a store holds: every snapshot, the packs and chunks that it needs, and every pack there is.

Read at one go, manifests whole and several at a time. It is what a prune plans from. Chunks are
numbers here, the pack's number and the offset in it, so that a million of them are soon counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cachepod.errors import (
    CachepodError,
    CorruptObject,
    ManifestUnreadable,
    NewerFormat,
    ObjectMissing,
)
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import HEADER, ChunkTable, Manifest
from cachepod.model.names import MANIFESTS, PACKS, family_of, is_pack_id, manifest_name
from cachepod.snapshot.pins import FoundPin, read_pins
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.stores.base import ObjectInfo, Store

T = TypeVar("T")
R = TypeVar("R")

_OFFSET = 32  # bits of an offset in a pack
_LOW = (1 << _OFFSET) - 1


def chunk_number(pack: int, offset: int) -> int:
    """The chunk at *offset* of the pack numbered *pack*."""
    return pack << _OFFSET | offset


def pack_of(chunk: int) -> int:
    """The number of the pack that a chunk lies in."""
    return chunk >> _OFFSET


def offset_of(chunk: int) -> int:
    """Where it lies there."""
    return chunk & _LOW


@dataclass(frozen=True)
class StoredSnapshot:
    """
    A snapshot as its manifest describes it.

    Args:
        name: Of the manifest's object.

        key: Empty if the object is called after another key than the manifest's: then it is
            no snapshot that anybody finds, and all the same needs its packs.

        digest: Of the manifest, in hex.

        size: Of the manifest, in bytes.

        created: Seconds since 1970, by the clock of whoever published it.

        modified: The same by the clock of the store.

        signed: Whether it carries a signature.

        packs: Numbers of the packs that it needs.

        chunks: Numbers of its chunks.
    """

    name: str
    key: str
    digest: str
    size: int
    created: float
    modified: float
    signed: bool
    packs: frozenset[int]
    chunks: array[int] = field(repr=False)

    @property
    def family(self) -> str:
        """The family of its key."""
        return family_of(self.key)


@dataclass(frozen=True)
class Census:
    """
    What was found.

    Args:
        url: Of the store.

        ids: Of each pack, by its number.

        listed: Number of each pack that is there, to its size in bytes.

        stored: Number of each chunk, to its stored bytes.

        snapshots: In no order.

        pins: What is pinned.
    """

    url: str
    ids: tuple[str, ...]
    listed: Mapping[int, int]
    stored: Mapping[int, int]
    snapshots: tuple[StoredSnapshot, ...]
    pins: tuple[FoundPin, ...]

    def missing(self) -> set[int]:
        """Packs that are needed and are not there."""
        needed: set[int] = set()
        return needed.union(*(each.packs for each in self.snapshots)) - self.listed.keys()


def take_census(store: Store, progress: Progress | None = None) -> Census:
    """
    Read all manifests of *store*, and list its packs.

    Packs are listed first, then pins are read, then manifests: what is not needed by a manifest
    and not pinned then has been left by a dead publish, or was lost by its manifests.

    Raises:
        ManifestUnreadable: It is damaged, or of a later format: what it needs is not known.

        StoreUnreachable: As the store has it.
    """
    told = progress or NoProgress()
    told.phase("packs")
    numbers: dict[str, int] = {}
    listed: dict[int, int] = {}
    for info in store.list(PACKS):
        pack = info.name.rpartition("/")[2]
        if is_pack_id(pack):  # what has another name is no pack
            listed[numbers.setdefault(pack, len(numbers))] = info.size
    pins = tuple(read_pins(store))
    infos = list(store.list(MANIFESTS))
    told.phase("manifests", files=len(infos), size=sum(info.size for info in infos))
    stored: dict[int, int] = {}
    snapshots = []
    for info, found in zip(infos, in_parallel(store, _reader(store), infos), strict=True):
        told.advance(1, info.size)
        if found is None:
            continue
        local = [numbers.setdefault(pack.id, len(numbers)) for pack in found.table.packs]
        chunks = found.table.chunks
        codes = array(
            "Q",
            (
                local[pack] << _OFFSET | offset
                for pack, offset in zip(chunks.pack, chunks.offset, strict=True)
            ),
        )
        stored.update(zip(codes, chunks.stored, strict=True))
        snapshots.append(
            StoredSnapshot(
                name=info.name,
                key=found.key if manifest_name(found.key) == info.name else "",
                digest=found.digest,
                size=found.size,
                created=found.created,
                modified=info.modified,
                signed=found.signed,
                packs=frozenset(local),
                chunks=codes,
            )
        )
    return Census(store.url, tuple(numbers), listed, stored, tuple(snapshots), pins)


@dataclass(frozen=True)
class _Read:
    key: str
    created: float
    digest: str
    size: int
    signed: bool
    table: ChunkTable


def _reader(store: Store) -> Callable[[ObjectInfo], _Read | None]:
    def read(info: ObjectInfo) -> _Read | None:
        name = info.name
        try:
            data = store.read(name, limit=MAX_MANIFEST_SIZE)
            table = ChunkTable.decode(data, name=name)
            summary = Manifest.decode_summary(data, name=name)
        except ObjectMissing:
            return None  # it vanished since the listing
        except (CorruptObject, NewerFormat) as error:
            raise ManifestUnreadable(name, error) from error
        flags = HEADER.unpack_from(data)[2]
        return _Read(
            key=summary.key,
            created=summary.created,
            digest=Manifest.digest_of(data),
            size=len(data),
            signed=bool(flags),
            table=table,
        )

    return read


def needed_packs(store: Store, known: Iterable[StoredSnapshot], ids: tuple[str, ...]) -> set[str]:
    """
    The packs that manifests need now.

    Args:
        known: Those that were read before; if one is still the same, only its head is read.

        ids: Of each pack of those, by its number.

    Raises:
        ManifestUnreadable, StoreUnreachable: As :func:`take_census`.
    """
    before = {each.name: each for each in known}
    read = _reader(store)

    def packs(info: ObjectInfo) -> Iterable[str]:
        known = before.get(info.name)
        if known is not None and read_digest(store, info.name) == known.digest:
            return [ids[number] for number in known.packs]
        found = read(info)
        return () if found is None else [pack.id for pack in found.table.packs]

    needed: set[str] = set()
    for some in in_parallel(store, packs, list(store.list(MANIFESTS))):
        needed.update(some)
    return needed


def read_digest(store: Store, name: str) -> str:
    """
    The digest of the manifest *name*, from its head alone; empty if it vanished or has none.

    Raises:
        StoreUnreachable: As the store has it.
    """
    head = bytearray(HEADER.size)
    try:
        store.read_range(name, 0, memoryview(head))
    except (ObjectMissing, CorruptObject):
        return ""
    return Manifest.digest_of(bytes(head))


def in_parallel(store: Store, act: Callable[[T], R], items: list[T]) -> Iterator[R]:
    """*act* on each of *items*, in order, as many at a time as *store* rewards."""
    if not store.parallel_reads or len(items) < 2:
        yield from map(act, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(store.parallel_reads) as pool:
        try:
            yield from pool.map(act, items)
        except CachepodError:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
