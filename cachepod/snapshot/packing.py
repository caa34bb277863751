"""Chunks into packs: deduplicated, compressed, checked, and appended to the worker's own pack."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import zstandard
from blake3 import blake3
from xxhash import xxh3_128_digest

from cachepod.errors import CachepodError
from cachepod.model.layout import PACK_SIZE, WORTHWHILE
from cachepod.model.manifest import ChunkTable
from cachepod.model.names import DAMAGED, pack_name
from cachepod.model.pack import PACK_HEAD, StoredChunk, encode_table
from cachepod.model.tables import Encoding
from cachepod.snapshot.spent import COMMIT, COMPRESS, HASH, PYTHON, WRITE, Watch
from cachepod.stores.base import Store, Writer, WriteStore


@dataclass
class Place:
    """Where a chunk lies, or will: *pack* is empty while a worker still compresses it."""

    id: bytes
    pack: str = ""
    offset: int = 0
    stored: int = 0
    raw: int = 0
    encoding: int = Encoding.RAW
    check: bytes = b""


class ChunkIndex:
    """
    Chunks by id: those that the store already has, and those of the running publish.

    There is no index in a store; this one is read from the manifests of a family.
    """

    def __init__(self) -> None:
        self._places: dict[bytes, Place] = {}
        self.pack_sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def learn(self, table: ChunkTable, without: frozenset[str]) -> None:
        """Take in a manifest's chunks, except those in the packs *without*."""
        chunks, packs = table.chunks, table.packs
        self.pack_sizes.update((info.id, info.size) for info in packs if info.id not in without)
        for row in range(len(chunks)):
            pack = packs[chunks.pack[row]].id
            if pack not in without:
                identity = chunks.id(row)
                self._places.setdefault(
                    identity,
                    Place(
                        identity,
                        pack,
                        chunks.offset[row],
                        chunks.stored[row],
                        chunks.raw[row],
                        chunks.encoding[row],
                        chunks.check(row),
                    ),
                )

    def find(self, identity: bytes) -> Place | None:
        """The place of a chunk, if it is known."""
        return self._places.get(identity)

    def claim(self, identity: bytes) -> tuple[Place, bool]:
        """
        The place of a chunk, and whether the caller must store it.

        The first to ask for an unknown chunk gets a new place to fill.
        """
        with self._lock:
            place = self._places.get(identity)
            if place is not None:
                return place, False
            place = self._places[identity] = Place(identity)
            return place, True


def damaged_packs(store: Store) -> frozenset[str]:
    """Ids of the packs that a reader found damaged; nothing new may rely on them."""
    return frozenset(info.name.rpartition("/")[2] for info in store.list(DAMAGED))


@dataclass
class _OpenPack:
    id: str
    writer: Writer
    size: int
    chunks: list[StoredChunk] = field(default_factory=list)


class Packer:
    """
    One worker's way into the store. Each worker fills packs of its own, so that consecutive
    chunks of a file lie next to each other and can be read in one range.

    Args:
        level: Of zstd, 1 to 22.

        new_id: Gives each pack its id; see :meth:`.pins.Pin.pack_id`.

        committed: Told the id and size of each pack that is about to be complete.

        watch: The worker's.
    """

    def __init__(
        self,
        store: WriteStore,
        index: ChunkIndex,
        level: int,
        new_id: Callable[[], str],
        committed: Callable[[str, int], None],
        watch: Watch,
    ) -> None:
        self._store = store
        self._index = index
        self._new_id = new_id
        self._committed = committed
        self._watch = watch
        self._compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        self._pack: _OpenPack | None = None
        self.written = 0
        self.reused = 0

    def add(self, plain: memoryview) -> Place:
        """
        Store one chunk unless it is known.

        Raises:
            SpaceExhausted, StoreUnreachable: As the store has it.
        """
        watch = self._watch
        watch.lap(PYTHON)
        digest = blake3(plain).digest()
        watch.lap(HASH, len(plain))
        place, mine = self._index.claim(digest)
        if not mine:
            self.reused += len(plain)
            return place
        frame: bytes | memoryview = self._compressor.compress(plain)
        watch.lap(COMPRESS, len(plain))
        encoding = Encoding.ZSTD
        if len(frame) > len(plain) * (1 - WORTHWHILE):
            frame, encoding = plain, Encoding.RAW
        check = xxh3_128_digest(frame)
        watch.lap(HASH, len(frame))
        self._append(place, frame, len(plain), encoding, check)
        return place

    def copy(self, chunk: StoredChunk, frame: memoryview) -> Place:
        """
        Store a chunk as it is stored elsewhere, unless it is known.

        Args:
            chunk: What is known of it; its offset counts for nothing.

            frame: Its stored bytes, checked.

        Raises:
            SpaceExhausted, StoreUnreachable: As the store has it.
        """
        place, mine = self._index.claim(chunk.id)
        if mine:
            self._append(place, frame, chunk.raw, chunk.encoding, chunk.check)
        return place

    def _append(
        self, place: Place, frame: bytes | memoryview, raw: int, encoding: int, check: bytes
    ) -> None:
        pack, watch = self._pack, self._watch
        if pack is not None and pack.size + len(frame) > PACK_SIZE:
            self.finish()
            pack = None
        watch.lap(PYTHON)
        if pack is None:
            identity = self._new_id()
            pack = _OpenPack(identity, self._store.create(pack_name(identity)), len(PACK_HEAD))
            self._pack = pack
            pack.writer.write(PACK_HEAD)
        pack.writer.write(frame)
        watch.lap(WRITE, len(frame))
        place.offset, place.stored, place.raw = pack.size, len(frame), raw
        place.encoding, place.check, place.pack = encoding, check, pack.id
        pack.chunks.append(StoredChunk(place.id, check, place.offset, place.stored, raw, encoding))
        pack.size += len(frame)

    def finish(self) -> None:
        """Make the open pack durable, if there is one."""
        pack, self._pack = self._pack, None
        if pack is None:
            return
        table = encode_table(pack.chunks)
        size = pack.size + len(table)
        # Beforehand: a commit may be carried out and fail all the same.
        self._committed(pack.id, size)
        self._watch.lap(PYTHON)
        with pack.writer as writer:
            writer.write(table)
            writer.commit()
        self._watch.lap(COMMIT)
        self.written += size

    def abort(self) -> None:
        """Forget the open pack."""
        pack, self._pack = self._pack, None
        if pack is not None:
            pack.writer.abort()


def discard(store: WriteStore, packs: Iterable[str]) -> None:
    """Delete packs that no manifest came to need; what cannot be deleted is left to a prune."""
    try:
        for pack in packs:
            store.delete(pack_name(pack))
    except CachepodError:
        pass
