"""
One pack from one store into another, every byte of it checked on the way.

How a pack comes to be in the destination, and what a crash leaves after each step::

    1  its table is read from the source              nothing
    2  runs of chunks are read, checked, written      at most what a dead writer leaves
    3  the object is committed                        the pack

A pack that lies there already and is damaged, or that cannot be relied on, is replaced: step 3
commits it under ``incoming/``, and a move puts it over the old one, so that readers find one of
the two at every moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from xxhash import xxh3_128_digest

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing
from cachepod.model.layout import CHUNK_SIZE
from cachepod.model.names import INCOMING, damaged_name, pack_name
from cachepod.model.pack import PACK_HEAD
from cachepod.model.tables import Encoding
from cachepod.snapshot.chunks import ChunkAt, ChunkReader, adjacent, extent_of
from cachepod.snapshot.packtable import whole_table
from cachepod.snapshot.plan import READ_SIZE
from cachepod.stores.base import Store, WriteStore


class PackMover:
    """
    Brings packs; for one thread.

    Args:
        source: Where they are read.

        destination: Where they are written.

        moved: Told the bytes that were written, as they are.

        deep: Also decompress every chunk and compare it with its id.
    """

    def __init__(
        self,
        source: Store,
        destination: WriteStore,
        moved: Callable[[int], None],
        *,
        deep: bool = False,
    ) -> None:
        self._source = source
        self._destination = destination
        self._moved = moved
        self._deep = deep
        self._reader = ChunkReader(source)

    def bring(self, pack: str, size: int, described: Mapping[int, ChunkAt], *, over: bool) -> bool:
        """
        Write the pack *pack* as the source has it; nothing is written of a damaged one.

        Args:
            pack: Its id.

            size: In bytes, as manifests have it.

            described: By their offset, the chunks that manifests say it holds.

            over: Put it in the place of the one that lies there, and take the mark from it that
                says it is damaged.

        Returns:
            Whether it was written; False if another writer was first.

        Raises:
            CorruptObject, NewerFormat, ObjectMissing: The source's is damaged, or gone.

            SpaceExhausted, StoreUnreachable: As the stores have it.
        """
        name = pack_name(pack)
        chunks, end = whole_table(
            lambda at, length: self._bytes(name, at, length), name, size, described
        )
        if not over:
            if self._write(name, name, pack, chunks, end):
                return True
            try:
                if self._destination.size(name) == size:
                    return False
            except (CorruptObject, ObjectMissing):
                pass
        incoming = f"{INCOMING}/{pack}.{os.urandom(8).hex()}"
        self._write(incoming, name, pack, chunks, end)
        try:
            self._destination.move(incoming, name)
        except BaseException:
            try:
                self._destination.delete(incoming)
            except CachepodError:
                pass
            raise
        self._destination.delete(damaged_name(pack))
        return True

    def _write(self, to: str, name: str, pack: str, chunks: list[ChunkAt], end: bytes) -> bool:
        with self._destination.create(to) as writer:
            writer.write(PACK_HEAD)
            for run in adjacent(chunks):
                writer.write(self._checked(name, pack, run))
                self._moved(extent_of(run))
            writer.write(end)
            self._moved(len(PACK_HEAD) + len(end))
            return writer.commit()

    def _checked(self, name: str, pack: str, run: tuple[ChunkAt, ...]) -> memoryview:
        """The stored bytes of *run*; valid until the next call."""
        begin, size = run[0].offset, extent_of(run)
        if size > READ_SIZE:
            raise CorruptObject(name, f"the chunk at {begin} is larger than a chunk can be")
        stored = self._reader.fetch(pack, begin, size)
        for chunk in run:
            own = stored[chunk.offset - begin : chunk.offset - begin + chunk.stored]
            if self._deep:
                self._compare(name, pack, chunk, own)
                continue
            if xxh3_128_digest(own) != chunk.check:
                # Once more: a wrong byte on the way is not a wrong byte in the store.
                self._source.read_range(name, chunk.offset, own)
                if xxh3_128_digest(own) != chunk.check:
                    raise CorruptObject(
                        name, f"the bytes at {chunk.offset} do not match their checksum"
                    )
        return stored

    def _compare(self, name: str, pack: str, chunk: ChunkAt, stored: memoryview) -> None:
        known = chunk.encoding in (Encoding.RAW, Encoding.ZSTD) and chunk.raw <= CHUNK_SIZE
        if not known or (chunk.encoding == Encoding.RAW and chunk.raw != chunk.stored):
            raise CorruptObject(name, f"the chunk at {chunk.offset} makes no sense")
        self._reader.plain(pack, chunk, stored)

    def _bytes(self, name: str, offset: int, size: int) -> bytes:
        data = bytearray(size)
        self._source.read_range(name, offset, memoryview(data))
        return bytes(data)
