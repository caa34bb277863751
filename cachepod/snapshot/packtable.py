"""What a pack says of itself: its head, and the table at its end, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cachepod.errors import CorruptObject, NewerFormat
from cachepod.model.pack import (
    PACK_HEAD,
    TAIL_SIZE,
    StoredChunk,
    decode_table,
    encode_table,
    table_extent,
)
from cachepod.snapshot.chunks import ChunkAt

_TABLE_LIMIT = 64 * 1024 * 1024
_GUESS = 16 * 1024

ReadBytes = Callable[[int, int], bytes]  # offset and size of a part of one pack


def read_table(read: ReadBytes, name: str, size: int) -> list[ChunkAt]:
    """
    The chunks of the pack *name* as its own table lists them.

    Args:
        read: Gives bytes of the pack.

        size: Of the pack, in bytes.

    Raises:
        CorruptObject, NewerFormat: Head or table are not those of a pack that can be read.

        ObjectMissing, StoreUnreachable: As *read* has it.
    """
    if size < len(PACK_HEAD) + TAIL_SIZE:
        raise CorruptObject(name, "it is cut short")
    if read(0, len(PACK_HEAD)) != PACK_HEAD:
        raise CorruptObject(name, "its beginning is not that of a pack")
    # Most tables are shorter: one read, then, and for a longer one a second.
    guess = min(size, _GUESS)
    end = read(size - guess, guess)
    extent = table_extent(end[-TAIL_SIZE:], name=name)
    if extent > min(size, _TABLE_LIMIT):
        raise CorruptObject(name, "its table is cut short")
    table = end[-extent:] if extent <= guess else read(size - extent, extent)
    rows = decode_table(table, name=name)
    if encode_table(rows) != table:
        raise CorruptObject(name, "its table is damaged")
    return [
        ChunkAt(row.offset, row.stored, row.raw, row.encoding, row.id, row.check) for row in rows
    ]


def whole_table(
    read: ReadBytes, name: str, size: int, described: Mapping[int, ChunkAt]
) -> tuple[list[ChunkAt], bytes]:
    """
    All chunks of a pack, in order, and the bytes that follow the last of them.

    Together with the head they are the whole pack, byte for byte. Where the table is damaged and
    manifests describe every chunk, it is made anew from them, as it was.

    Args:
        read: Gives bytes of the pack.

        name: Of the object.

        size: Of the pack as manifests have it, in bytes.

        described: By their offset, the chunks that manifests say are there.

    Raises:
        CorruptObject, NewerFormat: The pack cannot be told whole.

        ObjectMissing, StoreUnreachable: As *read* has it.
    """
    try:
        try:
            chunks = read_table(read, name, size)
        except CorruptObject:
            chunks = read_table(read, name, size)  # a wrong byte on the way is not one in the store
    except (CorruptObject, NewerFormat) as error:
        chunks = sorted(described.values())
        end = _encoded(chunks)
        if not _is_whole(chunks, size - len(end)):
            raise error
        return chunks, end
    listed = {chunk.offset: chunk for chunk in chunks}
    if any(listed.get(offset) != chunk for offset, chunk in described.items()):
        raise CorruptObject(name, "its table lacks chunks that manifests name")
    end = _encoded(chunks)
    if not _is_whole(chunks, size - len(end)):
        raise CorruptObject(name, "its table does not fit its chunks")
    return chunks, end


def _encoded(chunks: list[ChunkAt]) -> bytes:
    return encode_table(
        [
            StoredChunk(each.id, each.check, each.offset, each.stored, each.raw, each.encoding)
            for each in chunks
        ]
    )


def _is_whole(chunks: list[ChunkAt], end: int) -> bool:
    """Whether *chunks* lie one after another from the head to *end*."""
    position = len(PACK_HEAD)
    for chunk in chunks:
        if chunk.offset != position:
            return False
        position += chunk.stored
    return position == end
