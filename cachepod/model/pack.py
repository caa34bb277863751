"""
The pack: stored chunks one after another, and a table of them at the end.

The object, everything little-endian::

    offset   size  what
    0        8     "cppack" and format version as u16, 1
    8        ...   stored bytes of the chunks, without gaps
    t        72*n  table, one row a chunk in order of offset:
                     0   32  BLAKE3-256 of the plain bytes
                     32  16  XXH3-128 (canonical, big-endian) of the stored bytes
                     48  4   offset
                     52  4   stored bytes
                     56  4   plain bytes
                     60  1   encoding: 0 raw, 1 one zstd frame
                     61  11  zero
    t+72*n   4     n
    t+72*n+4 4     zero
    t+72*n+8 8     XXH3-64 of the table
    end-8    8     "cppack" and format version as u16, 1

A restore never reads the table, for the manifest holds all of it that it needs. It is there so
that a pack can be checked, and a store be salvaged, when manifests are lost.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from cachepod.errors import CorruptObject, NewerFormat

PACK_FORMAT = 1
_MARK = struct.Struct("<6sH")
_ROW = struct.Struct("<32s16sIIIB11x")
_TAIL = struct.Struct("<IIQ6sH")
_NAME = b"cppack"

PACK_HEAD = _MARK.pack(_NAME, PACK_FORMAT)
TAIL_SIZE = _TAIL.size


@dataclass(frozen=True)
class StoredChunk:
    """A row of the table; sizes and *offset* in bytes, *id* and *check* as in Chunks."""

    id: bytes
    check: bytes
    offset: int
    stored: int
    raw: int
    encoding: int


def pack_size(chunks: int, stored: int) -> int:
    """Bytes of a pack of so many *chunks* that have *stored* bytes together."""
    return len(PACK_HEAD) + stored + chunks * _ROW.size + TAIL_SIZE


def encode_table(chunks: Sequence[StoredChunk]) -> bytes:
    """What follows the last chunk."""
    table = b"".join(
        _ROW.pack(c.id, c.check, c.offset, c.stored, c.raw, c.encoding) for c in chunks
    )
    return table + _TAIL.pack(len(chunks), 0, xxh3_64_intdigest(table), _NAME, PACK_FORMAT)


def table_extent(tail: bytes, *, name: str) -> int:
    """
    How many bytes table and tail take, from the last :data:`TAIL_SIZE` bytes of a pack.

    Raises:
        NewerFormat, CorruptObject: It is not the end of a pack that can be read.
    """
    if len(tail) < TAIL_SIZE:
        raise CorruptObject(name, "it is cut short")
    rows, _, _, mark, version = _TAIL.unpack(tail[-TAIL_SIZE:])
    if mark != _NAME or version < 1:
        raise CorruptObject(name, "its end is not that of a pack")
    if version > PACK_FORMAT:
        raise NewerFormat(name, version, PACK_FORMAT)
    return int(rows) * _ROW.size + TAIL_SIZE


def decode_table(end: bytes, *, name: str) -> list[StoredChunk]:
    """
    The table, from the last :func:`table_extent` bytes of a pack.

    Raises:
        NewerFormat, CorruptObject: It cannot be read, or does not match its checksum.
    """
    if table_extent(end, name=name) != len(end):
        raise CorruptObject(name, "its table is cut short")
    table = end[:-TAIL_SIZE]
    if _TAIL.unpack(end[-TAIL_SIZE:])[2] != xxh3_64_intdigest(table):
        raise CorruptObject(name, "its table is damaged")
    return [StoredChunk(*row) for row in _ROW.iter_unpack(table)]
