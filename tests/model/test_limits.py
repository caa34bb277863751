"""What a manifest claims is bounded before anything is allocated for it."""

from __future__ import annotations

import struct
import tracemalloc
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zstandard

from cachepod.errors import CorruptObject
from cachepod.model.layout import MAX_MANIFEST_SIZE, MAX_SUMMARY_SIZE
from cachepod.model.manifest import Manifest
from tests.support.manifests import (
    block_of,
    build,
    sections_of,
    small_manifest,
    take_apart,
)

NAME = "manifests/f/k"
SUMMARY, COLUMNS = take_apart(small_manifest().encode())


@contextmanager
def almost_no_memory() -> Iterator[None]:
    """Fail if more than a megabyte is allocated within."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def frame_that_claims(size: int) -> bytes:
    """The head of a zstd frame (RFC 8878, 3.1.1.1) of *size* bytes, and one empty last block."""
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", size) + b"\x01\x00\x00"


@pytest.mark.parametrize(
    "size", [1 << 20, MAX_SUMMARY_SIZE, MAX_MANIFEST_SIZE, MAX_MANIFEST_SIZE + 1, (1 << 32) - 1]
)
def test_the_claim_of_a_huge_frame_allocates_nothing(size: int) -> None:
    frame = frame_that_claims(size)
    assert zstandard.frame_content_size(frame) == size
    for data in (
        build(SUMMARY, COLUMNS, summary_frame=frame, summary_plain=size),
        build(SUMMARY, COLUMNS, columns_frame=frame, columns_plain=size),
        build(SUMMARY, COLUMNS, columns_frame=frame_that_claims(1 << 62), columns_plain=1 << 62),
    ):
        with almost_no_memory(), pytest.raises(CorruptObject, match="impossible size"):
            Manifest.decode(data, name=NAME)


def test_a_frame_that_claims_less_than_it_holds_does_not_fill_memory() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 << 20))
    head = frame_that_claims(100)[:-3]
    body = bomb[6:]  # a magic, a descriptor and a window's size are left away
    data = build(SUMMARY, COLUMNS, columns_frame=head + body, columns_plain=100)
    with almost_no_memory(), pytest.raises(CorruptObject, match="cannot be decompressed"):
        Manifest.decode(data, name=NAME)


def test_a_bomb_larger_than_any_manifest_is_not_decompressed() -> None:
    size = MAX_SUMMARY_SIZE + 1
    bomb = zstandard.ZstdCompressor().compress(bytes(size))
    data = build(b"", COLUMNS, summary_frame=bomb, summary_plain=size)
    with almost_no_memory(), pytest.raises(CorruptObject, match="impossible size"):
        Manifest.decode_summary(data, name=NAME)


@pytest.mark.parametrize("tag", ["esiz", "psiz", "xoff"])
def test_the_claim_of_a_huge_file_allocates_nothing(tag: str) -> None:
    sections = sections_of(COLUMNS)
    itemsize, data = sections[tag]
    column = array("Q", data)
    column[0 if tag != "esiz" else 1] = 1 << 63
    sections[tag] = itemsize, column.tobytes()
    packed = build(SUMMARY, block_of(sections))
    with almost_no_memory():
        try:
            Manifest.decode(packed, name=NAME)
        except CorruptObject:
            assert tag != "psiz"
