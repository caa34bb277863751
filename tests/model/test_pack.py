"""The pack's table: it comes back, and no damage to it goes unnoticed or does harm."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from cachepod.errors import CorruptObject, NewerFormat
from cachepod.model.pack import (
    PACK_FORMAT,
    PACK_HEAD,
    TAIL_SIZE,
    StoredChunk,
    decode_table,
    encode_table,
    table_extent,
)

NAME = "packs/ab/abcd"
u32 = st.integers(0, (1 << 32) - 1)
chunks = st.lists(
    st.builds(
        StoredChunk,
        id=st.binary(min_size=32, max_size=32),
        check=st.binary(min_size=16, max_size=16),
        offset=u32,
        stored=u32,
        raw=u32,
        encoding=st.integers(0, 255),
    ),
    max_size=6,
)
ONE = StoredChunk(bytes(range(32)), bytes(16), 8, 100, 200, 1)


def tail(rows: int, table: bytes = b"", mark: bytes = b"cppack", version: int = 1) -> bytes:
    return struct.pack("<IIQ6sH", rows, 0, xxh3_64_intdigest(table), mark, version)


@given(rows=chunks, before=st.binary(max_size=50))
def test_a_table_comes_back_as_it_was(rows: list[StoredChunk], before: bytes) -> None:
    end = encode_table(rows)
    whole = before + end
    assert table_extent(whole[-TAIL_SIZE:], name=NAME) == len(end)
    assert decode_table(whole[len(before) :], name=NAME) == rows


def test_a_table_is_what_its_picture_says() -> None:
    row = bytes(range(32)) + bytes(16) + struct.pack("<III", 8, 100, 200) + b"\1" + bytes(11)
    assert encode_table([ONE]) == row + tail(1, row)
    assert PACK_HEAD == b"cppack\1\0"


@given(rows=chunks.filter(bool), data=st.data())
def test_no_changed_byte_of_a_table_goes_unnoticed(
    rows: list[StoredChunk], data: st.DataObject
) -> None:
    end = bytearray(encode_table(rows))
    # All but the four zero bytes of the tail, which say nothing.
    place = data.draw(st.sampled_from([*range(len(end) - 20), *range(len(end) - 16, len(end))]))
    end[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptObject, NewerFormat)) as caught:
        decode_table(bytes(end), name=NAME)
    assert caught.value.name == NAME


@given(rows=chunks, data=st.data())
def test_a_table_that_was_cut_is_damaged(rows: list[StoredChunk], data: st.DataObject) -> None:
    end = encode_table(rows)
    with pytest.raises((CorruptObject, NewerFormat)):
        decode_table(end[: data.draw(st.integers(0, len(end) - 1))], name=NAME)
    with pytest.raises(CorruptObject, match="cut short"):
        decode_table(end[1:], name=NAME)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_damaged(data: bytes) -> None:
    for act in (decode_table, table_extent):
        try:
            act(data, name=NAME)
        except (CorruptObject, NewerFormat):
            pass


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (b"", "cut short"),
        (tail(0)[1:], "cut short"),
        (tail(0, mark=b"notour"), "not that of a pack"),
        (tail(0, version=0), "not that of a pack"),
        (tail(1), "table is cut short"),
        (bytes(72) + tail(1, b"other"), "table is damaged"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(end: bytes, why: str) -> None:
    with pytest.raises(CorruptObject, match=why):
        decode_table(end, name=NAME)


def test_a_pack_of_a_later_format_is_not_called_damaged() -> None:
    with pytest.raises(NewerFormat) as caught:
        decode_table(tail(0, version=PACK_FORMAT + 1), name=NAME)
    assert caught.value.version == PACK_FORMAT + 1


def test_the_claim_of_four_billion_chunks_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CorruptObject):
            decode_table(bytes(72) + tail((1 << 32) - 1), name=NAME)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
