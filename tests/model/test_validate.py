"""Every lie of a manifest whose digests hold is found out."""

from __future__ import annotations

import json
import struct
from array import array
from typing import Any

import pytest

from cachepod.errors import CorruptObject
from cachepod.model.layout import CHUNK_SIZE, MAX_DEPTH, MAX_FILE_SIZE
from cachepod.model.manifest import Manifest
from cachepod.model.summary import TreeInfo
from cachepod.model.tables import Kind
from tests.support.manifests import (
    Row,
    block_of,
    build,
    contents_of,
    entries_of,
    sections_of,
    small_manifest,
    summary_of,
    take_apart,
)

NAME = "manifests/f/k"
SUMMARY, COLUMNS = take_apart(small_manifest().encode())
TYPECODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


# Row: see small_manifest(). Each case: the column, the row in it, what is written there, the words.
LIES: list[tuple[str, int, int, str]] = [
    ("ekin", 1, 4, "an entry of an unknown kind"),
    ("ekin", 0, 1, "lies in what is not a directory"),
    ("ekin", 2, 1, "lies in what is not a directory"),
    ("epar", 0, 1, "roots are not where they must be"),
    ("epar", 5, 5, "comes before its directory"),
    ("epar", 5, 6, "comes before its directory"),
    ("epar", 3, 2, "entries are not in order"),
    ("epar", 5, 3, "lies in what is not a directory"),
    ("eown", 1, 2, "belongs to an unknown distribution"),
    ("esiz", 1, MAX_FILE_SIZE + 1, "a file claims"),
    ("esiz", 1, 1 << 60, "a file claims 1152921504606846976 bytes"),
    ("esiz", 3, 1, "a symlink has no target"),
    ("esiz", 4, 0, "not another name of a file"),
    ("esiz", 4, 4, "not another name of a file"),
    ("esiz", 4, 5, "not another name of a file"),
    ("esiz", 4, 1 << 63, "not another name of a file"),
    ("enam", 0, ord("/"), "a name holds a slash"),
    ("enam", 0, 0, "a name holds a slash or a NUL"),
    ("enam", 0, ord("."), "b'.' is not a name"),
    ("enam", 0, ord("b"), "names are not in order"),
    ("enam", 0, ord("e"), "names are not in order"),
    ("etar", 0, 0, "target holds a NUL"),
    ("axro", 0, 6, "belongs to no entry"),
    ("axna", 3, 0, "an impossible name"),
    ("axnl", 0, 1, "strings and their lengths do not agree"),
    ("axvl", 0, 1, "extended attributes do not agree"),
    ("enle", 1, 2, "strings and their lengths do not agree"),
    ("cpck", 0, 1, "a chunk lies in an unknown pack"),
    ("cenc", 0, 2, "a chunk has an unknown encoding"),
    ("craw", 0, CHUNK_SIZE + 1, "a chunk claims an impossible size"),
    ("craw", 0, (1 << 32) - 1, "a chunk claims an impossible size"),
    ("craw", 0, 0, "a chunk claims an impossible size"),
    ("csto", 0, 31, "stored in an impossible size"),
    ("csto", 0, 29, "stored in an impossible size"),
    ("csto", 1, 0, "stored in an impossible size"),
    ("coff", 0, 1 << 31, "ends after its pack"),
    ("psiz", 0, 57, "ends after its pack"),
    ("xfst", 0, 1, "extents do not fit its chunks"),
    ("xfst", 2, 2, "extents do not fit its chunks"),
    ("xfst", 1, 4, "extents are not in order"),
    ("xent", 0, 6, "belongs to no entry"),
    ("xent", 0, 2, "belongs to what is not a file"),
    ("xent", 0, 4, "belongs to what is not a file"),
    ("xoff", 0, 1, "ends after its file"),
    ("xoff", 0, (1 << 64) - 1, "ends after its file"),
    ("xlen", 1, 21, "ends after its chunk"),
    ("xlen", 0, 0, "an extent is empty"),
    ("xsta", 1, 11, "ends after its chunk"),
    ("xsta", 1, (1 << 32) - 1, "ends after its chunk"),
]


@pytest.mark.parametrize(("tag", "row", "value", "why"), LIES)
def test_a_column_that_lies_is_refused(tag: str, row: int, value: int, why: str) -> None:
    sections = sections_of(COLUMNS)
    itemsize, data = sections[tag]
    column = array(TYPECODES[itemsize], data)
    column[row] = value
    sections[tag] = itemsize, column.tobytes()
    with pytest.raises(CorruptObject, match=why):
        Manifest.decode(build(SUMMARY, block_of(sections)), name=NAME)


def replaced(changes: dict[str, bytes]) -> bytes:
    sections = sections_of(COLUMNS)
    sections.update({tag: (sections[tag][0], data) for tag, data in changes.items()})
    return build(SUMMARY, block_of(sections))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"emod": bytes(10)}, "entries' columns differ in length"),
        ({"enle": bytes(14)}, "strings and their lengths do not agree"),
        ({"coff": bytes(4)}, "chunks' columns differ in length"),
        ({"c_id": bytes(63)}, "chunks' ids are not complete"),
        ({"cchk": bytes(33)}, "chunks' ids are not complete"),
        ({"xsta": b""}, "extents' columns differ in length"),
        ({"xfst": bytes(4)}, "extents do not fit its chunks"),
        ({"p_id": bytes(15)}, "packs do not agree"),
        ({"p_id": b"", "psiz": b""}, "unknown pack"),
        ({"etle": bytes(2), "etar": b""}, "target is empty or too long"),
        ({"etle": struct.pack("<H", 4096), "etar": b"a" * 4096}, "target is empty or too long"),
        ({"axnl": bytes(2), "axna": b""}, "an impossible name or size"),
        ({"axnl": struct.pack("<H", 256), "axna": b"a" * 256}, "an impossible name or size"),
        ({"axvl": struct.pack("<I", 65537), "axva": bytes(65537)}, "an impossible name or size"),
        ({"enle": struct.pack("<6H", 1, 1, 1, 1, 1, 1), "enam": b"rabcdx"}, "a root has a name"),
        ({"enle": struct.pack("<6H", 0, 1, 1, 1, 0, 1), "enam": b"abcx"}, "b'' is not a name"),
        ({"enle": struct.pack("<6H", 0, 2, 1, 1, 1, 1), "enam": b"..bcdx"}, "is not a name"),
        (
            {"enle": struct.pack("<6H", 0, 256, 257, 258, 259, 1), "enam": b"a" * 1030 + b"x"},
            "is not a name",
        ),
        (
            {"enle": struct.pack("<6H", 0, 9, 1, 1, 1, 1), "enam": b".cachepodbcdx"},
            "where cachepod keeps the state",
        ),
        ({"ekin": b"", "epar": b"", "emod": b"", "emtm": b"", "esiz": b"", "eown": b"",
          "eflg": b"", "enle": b"", "enam": b""}, "trees do not fit"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_are_refused(changes: dict[str, bytes], why: str) -> None:
    with pytest.raises(CorruptObject, match=why):
        Manifest.decode(replaced(changes), name=NAME)


def test_the_state_directorys_name_is_allowed_further_down() -> None:
    names = {"enle": struct.pack("<6H", 0, 1, 1, 1, 1, 9), "enam": b"abcd.cachepod"}
    manifest = Manifest.decode(replaced(names), name=NAME)
    assert manifest.entries.path(5) == b"b/.cachepod"


def test_extents_that_claim_more_than_their_file_are_refused() -> None:
    sections = sections_of(COLUMNS)
    sizes = array("Q", sections["esiz"][1])
    sizes[5] = 50
    # Each lies within the file, but both together are longer than it.
    offsets = array("Q", [0, 0, 10])
    sections["esiz"] = 8, sizes.tobytes()
    sections["xoff"] = 8, offsets.tobytes()
    with pytest.raises(CorruptObject, match="extents overlap"):
        Manifest.decode(build(SUMMARY, block_of(sections)), name=NAME)


def test_trees_that_do_not_fit_their_roots_are_refused() -> None:
    document: dict[str, Any] = small_manifest().summary.to_json()
    for trees in ([], [{"name": "a", "root": "/"}] * 2, [{"name": "a", "root": "/"}] * 7):
        document["trees"] = trees
        with pytest.raises(CorruptObject, match="trees do not fit"):
            Manifest.decode(build(json.dumps(document).encode(), COLUMNS), name=NAME)


def encoded(rows: list[Row], trees: int = 1) -> bytes:
    """A manifest of *rows* without contents."""
    summary = summary_of(trees=tuple(TreeInfo(f"tree-{place}", "/") for place in range(trees)))
    extents, chunks, packs = contents_of([])
    return Manifest(summary, entries_of(rows), extents, chunks, packs).encode()


@pytest.mark.parametrize(("depth", "good"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_a_tree_is_as_deep_as_a_path_may_be_and_no_deeper(depth: int, good: bool) -> None:
    chain = [Row(Kind.DIRECTORY, row, b"d") for row in range(depth)]
    data = encoded([Row(Kind.DIRECTORY, 0, b""), *chain])
    if good:
        assert len(Manifest.decode(data, name=NAME).entries) == depth + 1
    else:
        with pytest.raises(CorruptObject, match="nested too deep"):
            Manifest.decode(data, name=NAME)


def test_a_hard_link_from_one_tree_to_another_is_refused() -> None:
    roots = [Row(Kind.DIRECTORY, 0, b""), Row(Kind.DIRECTORY, 1, b"")]
    file = Row(Kind.FILE, 0, b"a")
    Manifest.decode(encoded([*roots, file, Row(Kind.HARDLINK, 0, b"b", 2)], 2), name=NAME)
    with pytest.raises(CorruptObject, match="leads from one tree to another"):
        Manifest.decode(encoded([*roots, file, Row(Kind.HARDLINK, 1, b"b", 2)], 2), name=NAME)
