"""Sizes: those that are part of the format, and those that give the same chunks every time."""

from __future__ import annotations

from cachepod.model import layout


def test_the_limits_of_the_format_stay_what_they_are() -> None:
    # Snapshots that are stored may use them to the full: none of them can ever become smaller.
    assert layout.CHUNK_SIZE == 4 << 20
    assert layout.MAX_FILE_SIZE == 1 << 44
    assert layout.MAX_MANIFEST_SIZE == 1 << 30
    assert layout.MAX_SUMMARY_SIZE == 64 << 20


def test_a_change_of_what_is_cut_where_is_noticed() -> None:
    # Other values are no other format, but the next publish of every user stores all chunks anew.
    assert layout.SMALL_FILE == 1 << 20
    assert layout.RUN_MINIMUM == 1 << 20
    assert layout.RUN_BOUNDARY == 64


def test_every_place_in_a_pack_can_be_written_down() -> None:
    # Offsets and sizes have 32 bits; a pack is closed once it would grow past PACK_SIZE.
    assert layout.PACK_SIZE + layout.CHUNK_SIZE < 1 << 32
    assert layout.PACK_SIZE > layout.CHUNK_SIZE


def test_a_small_file_fits_into_a_chunk_beside_others() -> None:
    assert layout.SMALL_FILE <= layout.RUN_MINIMUM < layout.CHUNK_SIZE
    assert 0 <= layout.WORTHWHILE < 1
