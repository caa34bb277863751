"""The manifest: it comes back as it was, and nothing that could do harm is believed."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachepod.errors import CorruptObject, NewerFormat
from cachepod.model.columns import pack_columns
from cachepod.model.layout import CHUNK_SIZE
from cachepod.model.manifest import (
    HEADER,
    MANIFEST_FORMAT,
    ChunkTable,
    Manifest,
    summary_extent,
)
from cachepod.model.tables import Kind
from tests.support.manifests import (
    block_of,
    build,
    manifests,
    plain,
    sections_of,
    small_manifest,
    take_apart,
)

NAME = "manifests/f/k"
BAD = (CorruptObject, NewerFormat)
GOOD = small_manifest().encode()
SUMMARY, COLUMNS = take_apart(GOOD)
TYPECODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def decode_everything(data: bytes) -> Manifest:
    """Parse *data* in every way there is; the manifest, or one of BAD."""
    for act in (summary_extent, Manifest.decode_summary, ChunkTable.decode):
        try:
            act(data, name=NAME)
        except BAD:
            continue
    return Manifest.decode(data, name=NAME)


def use(manifest: Manifest) -> None:
    """Do with a manifest what a restore does, without looking whether its rows are in range."""
    entries, extents, chunks = manifest.entries, manifest.extents, manifest.chunks
    for row, path in enumerate(entries.paths()):
        assert path == entries.path(row)
        assert not path.startswith(b"/")
        assert b".." not in path.split(b"/")
        if entries.kind[row] == Kind.SYMLINK:
            assert entries.targets[entries.size[row]]
        if entries.kind[row] == Kind.HARDLINK:
            assert entries.kind[entries.size[row]] == Kind.FILE
    for row, _, _ in entries.xattrs:
        assert row < len(entries)
    for chunk in range(len(chunks)):
        pack = manifest.packs[chunks.pack[chunk]]
        assert chunks.offset[chunk] + chunks.stored[chunk] <= pack.size
        for at in range(extents.first[chunk], extents.first[chunk + 1]):
            assert extents.start[at] + extents.length[at] <= chunks.raw[chunk] <= CHUNK_SIZE
            assert extents.offset[at] + extents.length[at] <= entries.size[extents.entry[at]]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifest=manifests())
def test_a_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    data = manifest.encode()
    again = Manifest.decode(data, name=NAME)
    assert plain(again) == plain(manifest)
    assert again.digest == Manifest.digest_of(data) == data[48:80].hex()
    assert again.encode() == data
    use(again)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifest=manifests(), more=st.binary(max_size=20))
def test_a_part_of_a_manifest_is_read_without_the_rest(manifest: Manifest, more: bytes) -> None:
    data = manifest.encode()
    beginning = data[: summary_extent(data[: HEADER.size], name=NAME)]
    assert Manifest.decode_summary(beginning + more, name=NAME) == manifest.summary
    assert ChunkTable.decode(data, name=NAME) == ChunkTable(manifest.chunks, manifest.packs)
    with pytest.raises(CorruptObject, match="damaged"):
        Manifest.decode_summary(beginning[:-1], name=NAME)


def test_the_columns_are_those_that_are_documented() -> None:
    assert {tag: size for tag, (size, _) in sections_of(COLUMNS).items()} == {
        "ekin": 1,
        "epar": 4,
        "emod": 2,
        "emtm": 8,
        "esiz": 8,
        "eown": 4,
        "eflg": 1,
        "enle": 2,
        "enam": 1,
        "etle": 2,
        "etar": 1,
        "axro": 4,
        "axnl": 2,
        "axna": 1,
        "axvl": 4,
        "axva": 1,
        "xfst": 4,
        "xent": 4,
        "xoff": 8,
        "xlen": 4,
        "xsta": 4,
        "cpck": 4,
        "coff": 4,
        "csto": 4,
        "craw": 4,
        "cenc": 1,
        "c_id": 1,
        "cchk": 1,
        "p_id": 1,
        "psiz": 8,
    }
    assert json.loads(SUMMARY) == small_manifest().summary.to_json()


@given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(GOOD[:12].__add__)))
def test_any_bytes_are_a_manifest_or_damaged(data: bytes) -> None:
    with pytest.raises(BAD):
        decode_everything(data)


@given(place=st.integers(0, len(GOOD) - 1), change=st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, change: int) -> None:
    data = bytearray(GOOD)
    data[place] ^= change
    with pytest.raises(BAD):
        decode_everything(bytes(data))
    try:
        summary = Manifest.decode_summary(bytes(data), name=NAME)
    except BAD:
        return
    assert summary == small_manifest().summary


@given(cut=st.integers(1, len(GOOD)), more=st.binary(min_size=1, max_size=20))
def test_a_manifest_that_is_too_short_or_too_long_is_damaged(cut: int, more: bytes) -> None:
    for data in (GOOD[:-cut], GOOD + more):
        with pytest.raises(CorruptObject):
            decode_everything(data)


@st.composite
def odd_columns(draw: st.DrawFn) -> bytes:
    """The columns of a good manifest with some numbers changed, columns cut, doubled or dropped."""
    sections = sections_of(COLUMNS)
    for _ in range(draw(st.integers(1, 3))):
        tag = draw(st.sampled_from(list(sections)))
        itemsize, data = sections[tag]
        column = array(TYPECODES[itemsize], data)
        act = draw(st.sampled_from(["change", "change", "change", "cut", "add", "drop", "size"]))
        if act == "change" and column:
            top = (1 << 8 * itemsize) - 1
            odd = [0, 1, 2, 3, len(column), 1 << 7, 1 << 15, CHUNK_SIZE, 1 << 31, 1 << 60, top]
            column[draw(st.integers(0, len(column) - 1))] = min(draw(st.sampled_from(odd)), top)
        elif act == "cut":
            column = column[: draw(st.integers(0, len(column)))]
        elif act == "add":
            column.append(draw(st.integers(0, 3)))
        elif act == "drop":
            del sections[tag]
            return block_of(sections)
        elif act == "size":
            sections[tag] = draw(st.sampled_from([0, 1, 2, 3, 4, 8])), data
            return block_of(sections)
        sections[tag] = itemsize, column.tobytes()
    return block_of(sections)


@settings(max_examples=500)
@given(columns=odd_columns())
def test_columns_that_were_tampered_with_are_harmless_or_refused(columns: bytes) -> None:
    try:
        manifest = decode_everything(build(SUMMARY, columns))
    except CorruptObject:
        return
    use(manifest)


@settings(max_examples=200)
@given(columns=st.binary(max_size=300), summary=st.binary(max_size=100))
def test_any_bytes_within_good_frames_are_harmless_or_refused(
    columns: bytes, summary: bytes
) -> None:
    for data in (build(SUMMARY, columns), build(summary, COLUMNS)):
        with pytest.raises(CorruptObject):
            decode_everything(data)


def test_what_is_not_known_is_passed_over() -> None:
    document = small_manifest().summary.to_json()
    document["mood"] = {"of": ["the", "publisher"]}
    columns = COLUMNS + pack_columns({"zzzz": array("Q", [1, 2, 3])})
    found = Manifest.decode(build(json.dumps(document).encode(), columns), name=NAME)
    assert plain(found) == plain(small_manifest())


@pytest.mark.parametrize("change", [{"version": MANIFEST_FORMAT + 1}, {"flags": 2}])
def test_a_manifest_of_a_later_format_is_not_called_damaged(change: dict[str, int]) -> None:
    data = build(b"not json", b"no columns", **change)  # type: ignore[arg-type]
    parsers: list[Callable[..., object]]
    parsers = [Manifest.decode, Manifest.decode_summary, ChunkTable.decode, summary_extent]
    for act in parsers:
        with pytest.raises(NewerFormat) as caught:
            act(data, name=NAME)
        assert caught.value.version > MANIFEST_FORMAT
        assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is cut short"),
        (GOOD[:79], "it is cut short"),
        (b"cachepoD" + GOOD[8:], "it is not a manifest"),
        (build(SUMMARY, COLUMNS, version=0), "it is not a manifest"),
        (GOOD[:-1], "cut short or too long"),
        (GOOD + b"\0", "cut short or too long"),
        (GOOD[:48] + bytes(32) + GOOD[80:], "digest does not match"),
        (build(SUMMARY, COLUMNS, columns_plain=len(COLUMNS) + 8), "sizes do not agree"),
        (build(SUMMARY, COLUMNS, summary_plain=len(SUMMARY) - 1), "sizes do not agree"),
        (build(SUMMARY, COLUMNS, columns_frame=b"no frame at all"), "cannot be decompressed"),
        (build(SUMMARY, COLUMNS, summary_frame=GOOD[80:90], summary_plain=9), "do not agree|decom"),
        (build(SUMMARY, COLUMNS, columns_frame=b"", columns_plain=0), "cannot be decompressed"),
        (build(SUMMARY, COLUMNS[:-8]), "a section is cut short"),
    ],
)
def test_what_is_wrong_with_an_object_is_said(data: bytes, why: str) -> None:
    with pytest.raises(CorruptObject, match=why):
        Manifest.decode(data, name=NAME)
