"""
Named columns of numbers in one block of bytes; what the body of a manifest is made of.

A section, repeated to the end of the block, everything little-endian::

    offset  size  what
    0       4     tag, ASCII
    4       1     bytes per item: 1, 2, 4 or 8
    5       3     zero
    8       8     bytes of data, a multiple of the item's size
    16      n     data
    16+n    0-7   zero, up to a multiple of 8

Columns rather than records: a million entries are read by a dozen memory copies instead of a
million parses, stay at some 60 bytes an entry, and compress better.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

_HEADER = struct.Struct("<4sB3xQ")


class MalformedColumns(ValueError):
    """The bytes are not a block of columns."""


def _little_endian(column: array[int]) -> array[int]:
    if sys.byteorder == "big" and column.itemsize > 1:
        column = column[:]
        column.byteswap()
    return column


def pack_columns(columns: Mapping[str, array[int] | bytes]) -> bytes:
    """One block with every column of *columns*, in that order; a tag is four ASCII letters."""
    out = bytearray()
    for tag, column in columns.items():
        if isinstance(column, bytes):
            itemsize, data = 1, column
        else:
            itemsize, data = column.itemsize, _little_endian(column).tobytes()
        out += _HEADER.pack(tag.encode("ascii"), itemsize, len(data))
        out += data
        out += bytes(-len(out) % 8)
    return bytes(out)


class ColumnReader:
    """
    The columns of one block, by tag.

    Raises:
        MalformedColumns: The block is cut short or makes no sense.
    """

    def __init__(self, block: bytes) -> None:
        self._sections: dict[str, tuple[int, memoryview]] = {}
        view = memoryview(block)
        position = 0
        while position < len(view):
            if position + _HEADER.size > len(view):
                raise MalformedColumns("a section's header is cut short")
            tag, itemsize, length = _HEADER.unpack_from(view, position)
            start = position + _HEADER.size
            if length > len(view) - start:
                raise MalformedColumns("a section is cut short")
            if itemsize not in (1, 2, 4, 8) or length % itemsize:
                raise MalformedColumns("a section's items do not fit its length")
            name = tag.decode("ascii", "replace")
            if name in self._sections:
                raise MalformedColumns(f"section {name} comes twice")
            self._sections[name] = (itemsize, view[start : start + length])
            position = start + length
            position += -position % 8

    def numbers(self, tag: str, typecode: str) -> array[int]:
        """Column *tag* as an array of *typecode*; its items must have that size."""
        column: array[int] = array(typecode)
        itemsize, data = self._section(tag)
        if itemsize != column.itemsize:
            raise MalformedColumns(f"section {tag} has items of {itemsize} bytes")
        column.frombytes(data)
        return _little_endian(column)

    def raw(self, tag: str) -> bytes:
        """Column *tag* as bytes."""
        return bytes(self._section(tag)[1])

    def _section(self, tag: str) -> tuple[int, memoryview]:
        try:
            return self._sections[tag]
        except KeyError:
            raise MalformedColumns(f"section {tag} is missing") from None


class ByteStrings(Sequence[bytes]):
    """
    Many byte strings in one: a column of lengths and the bytes one after another.

    Args:
        lengths: Bytes of each string, typecode ``H``.

        data: All of them.

    Raises:
        MalformedColumns: Lengths and data do not agree.
    """

    def __init__(self, lengths: array[int], data: bytes) -> None:
        self.lengths = lengths
        self.data = data
        self._ends: array[int] = array("Q", accumulate(lengths))
        if (self._ends[-1] if self._ends else 0) != len(data):
            raise MalformedColumns("strings and their lengths do not agree")

    @classmethod
    def of(cls, strings: Iterable[bytes]) -> ByteStrings:
        """From single strings of at most 65,535 bytes each."""
        lengths: array[int] = array("H")
        data = bytearray()
        for string in strings:
            lengths.append(len(string))
            data += string
        return cls(lengths, bytes(data))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # no slices
        end = self._ends[index]
        return self.data[end - self.lengths[index] : end]
