"""Columns: what is packed comes back, and what makes no sense is said to be malformed."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.model.columns import ByteStrings, ColumnReader, MalformedColumns, pack_columns

LIMITS = {"B": 1 << 8, "H": 1 << 16, "I": 1 << 32, "Q": 1 << 64}
tags = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz_ABC0123456789"), min_size=4, max_size=4)


def columns_of(typecode: str) -> st.SearchStrategy[array[int]]:
    if typecode == "q":
        items = st.integers(-(1 << 63), (1 << 63) - 1)
    else:
        items = st.integers(0, LIMITS[typecode] - 1)
    return st.lists(items, max_size=9).map(lambda found: array(typecode, found))


columns = st.one_of(*map(columns_of, "BHIQq"))
blocks = st.dictionaries(tags, st.one_of(columns, st.binary(max_size=40)), max_size=6)


def section(tag: bytes, itemsize: int, data: bytes, length: int | None = None) -> bytes:
    """A section as the picture in columns.py draws it."""
    head = tag + bytes((itemsize, 0, 0, 0))
    head += struct.pack("<Q", len(data) if length is None else length)
    return head + data + bytes(-len(data) % 8)


@given(block=blocks)
def test_columns_come_back_as_they_were(block: dict[str, array[int] | bytes]) -> None:
    reader = ColumnReader(pack_columns(block))
    for tag, column in block.items():
        if isinstance(column, bytes):
            assert reader.raw(tag) == column
        else:
            assert reader.numbers(tag, column.typecode) == column


@given(block=blocks)
def test_a_block_is_what_its_picture_says(block: dict[str, array[int] | bytes]) -> None:
    drawn = b"".join(
        section(tag.encode(), 1, column)
        if isinstance(column, bytes)
        else section(
            tag.encode(),
            column.itemsize,
            struct.pack(f"<{len(column)}{column.typecode}", *column),
        )
        for tag, column in block.items()
    )
    assert pack_columns(block) == drawn


def test_a_big_endian_machine_writes_and_reads_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    column = array("I", [1, 0x01020304])
    theirs = array("I", column)
    theirs.byteswap()  # what array("I", ...).tobytes() gives on such a machine
    block = pack_columns({"aaaa": column})
    monkeypatch.setattr(sys, "byteorder", "big")
    assert pack_columns({"aaaa": theirs}) == block
    assert ColumnReader(block).numbers("aaaa", "I") == theirs


def test_an_unknown_section_is_passed_over() -> None:
    block = section(b"aaaa", 2, b"\1\0") + section(b"\xff??!", 8, bytes(16))
    assert list(ColumnReader(block).numbers("aaaa", "H")) == [1]


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"aaaa", "header is cut short"),
        (section(b"aaaa", 1, b"abc")[:-6], "section is cut short"),
        (section(b"aaaa", 1, b"", 1 << 62), "section is cut short"),
        (section(b"aaaa", 1, b"", (1 << 64) - 1), "section is cut short"),
        (section(b"aaaa", 3, b"abc"), "items do not fit"),
        (section(b"aaaa", 0, b""), "items do not fit"),
        (section(b"aaaa", 4, b"abcdef"), "items do not fit"),
        (section(b"aaaa", 1, b"a") * 2, "section aaaa comes twice"),
    ],
)
def test_a_malformed_block_is_refused(block: bytes, why: str) -> None:
    with pytest.raises(MalformedColumns, match=why):
        ColumnReader(block)


def test_a_missing_section_is_named() -> None:
    with pytest.raises(MalformedColumns, match="section bbbb is missing"):
        ColumnReader(section(b"aaaa", 1, b"")).raw("bbbb")


def test_items_of_another_size_than_expected_are_refused() -> None:
    with pytest.raises(MalformedColumns, match="section aaaa has items of 4 bytes"):
        ColumnReader(section(b"aaaa", 4, b"abcd")).numbers("aaaa", "H")


@given(data=st.binary(max_size=200))
def test_any_bytes_are_columns_or_malformed(data: bytes) -> None:
    try:
        ColumnReader(data)
    except MalformedColumns:
        pass


@given(block=blocks, cut=st.integers(1, 60))
def test_what_is_left_of_a_block_that_was_cut_is_whole(
    block: dict[str, array[int] | bytes], cut: int
) -> None:
    packed = pack_columns(block)
    try:
        reader = ColumnReader(packed[:-cut])
    except MalformedColumns:
        return
    for tag, column in block.items():
        data = column if isinstance(column, bytes) else column.tobytes()
        try:
            assert reader.raw(tag) == data
        except MalformedColumns:
            continue  # this one was cut off


def test_the_claim_of_a_huge_section_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedColumns):
            ColumnReader(section(b"aaaa", 8, b"", 1 << 60))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(strings=st.lists(st.binary(max_size=300), max_size=20))
def test_byte_strings_come_back_as_they_were(strings: list[bytes]) -> None:
    packed = ByteStrings.of(strings)
    again = ByteStrings(packed.lengths, packed.data)
    assert list(again) == strings
    assert len(again) == len(strings)
    if strings:
        assert again[-1] == strings[-1]


@given(lengths=st.lists(st.integers(0, 65535), max_size=9), data=st.binary(max_size=40))
def test_byte_strings_whose_lengths_do_not_fit_are_refused(lengths: list[int], data: bytes) -> None:
    if sum(lengths) == len(data):
        assert b"".join(ByteStrings(array("H", lengths), data)) == data
    else:
        with pytest.raises(MalformedColumns, match="do not agree"):
            ByteStrings(array("H", lengths), data)
