"""Reading single chunks back, checked at every step: for what is not in a hurry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import zstandard
from blake3 import blake3
from xxhash import xxh3_128_digest

from cachepod.errors import CorruptObject
from cachepod.model.layout import CHUNK_SIZE
from cachepod.model.names import pack_name
from cachepod.model.tables import Chunks, Encoding
from cachepod.snapshot.engine import decode_chunk
from cachepod.snapshot.plan import READ_SIZE
from cachepod.stores.base import Store


class ChunkAt(NamedTuple):
    """A chunk as a manifest describes it; the fields are those of Chunks."""

    offset: int
    stored: int
    raw: int
    encoding: int
    id: bytes
    check: bytes

    @classmethod
    def of(cls, chunks: Chunks, row: int) -> ChunkAt:
        """Chunk *row* of a manifest."""
        return cls(
            chunks.offset[row],
            chunks.stored[row],
            chunks.raw[row],
            chunks.encoding[row],
            chunks.id(row),
            chunks.check(row),
        )


class ChunkReader:
    """Reads chunks of *store* into buffers of its own; for one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stored = memoryview(bytearray(READ_SIZE))
        self._plain = memoryview(bytearray(CHUNK_SIZE))
        self._decompressor = zstandard.ZstdDecompressor()

    def fetch(self, pack: str, offset: int, size: int) -> memoryview:
        """
        Bytes of a pack, at most READ_SIZE of them; valid until the next call.

        Raises:
            CorruptObject, ObjectMissing, StoreUnreachable: As the store has it.
        """
        stored = self._stored[:size]
        self._store.read_range(pack_name(pack), offset, stored)
        return stored

    def plain(self, pack: str, chunk: ChunkAt, stored: memoryview | None = None) -> memoryview:
        """
        The plain bytes of *chunk*; valid until the next call.

        Args:
            stored: Its stored bytes, where they were fetched already.

        Raises:
            CorruptObject: They do not match a checksum, cannot be decoded, or are not what the
                chunk is named after.

            ObjectMissing, StoreUnreachable: As the store has it.
        """
        name = pack_name(pack)
        if stored is None:
            stored = self.fetch(pack, chunk.offset, chunk.stored)
        if xxh3_128_digest(stored) != chunk.check:
            # Once more: a wrong byte on the way is not a wrong byte in the store.
            self._store.read_range(name, chunk.offset, stored)
            if xxh3_128_digest(stored) != chunk.check:
                raise CorruptObject(
                    name, f"the bytes at {chunk.offset} do not match their checksum"
                )
        plain = decode_chunk(
            self._decompressor, stored, Encoding(chunk.encoding), self._plain[: chunk.raw], name
        )
        if blake3(plain).digest() != chunk.id:
            raise CorruptObject(
                name, f"the chunk at {chunk.offset} is not the one that its id names"
            )
        return plain


def extent_of(run: Sequence[ChunkAt]) -> int:
    """Stored bytes from the first to the last chunk of *run*."""
    return run[-1].offset + run[-1].stored - run[0].offset


def adjacent(chunks: Sequence[ChunkAt]) -> Iterator[tuple[ChunkAt, ...]]:
    """Chunks in order of offset, those together that can be read in one range."""
    run: list[ChunkAt] = []
    for chunk in chunks:
        if run and (
            chunk.offset != run[-1].offset + run[-1].stored
            or chunk.offset + chunk.stored - run[0].offset > READ_SIZE
        ):
            yield tuple(run)
            run = []
        run.append(chunk)
    if run:
        yield tuple(run)
