"""Reading trees for a publish: past the page cache where that can be, and the same bytes always."""

from __future__ import annotations

import fcntl
import os
import random
from mmap import PAGESIZE, mmap
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachepod.errors import TreeChanged
from cachepod.model.layout import CHUNK_SIZE
from cachepod.snapshot.progress import NoProgress
from cachepod.snapshot.publish import publish
from cachepod.snapshot.reading import Reader, file_tasks
from cachepod.snapshot.scan import Scan, TreeSource, scan
from cachepod.stores.local import LocalStore
from tests.support.pagecache import forget, in_cache
from tests.support.snapshots import fingerprint

MIB = 1024 * 1024
DATA = random.Random(0).randbytes(3 * MIB) * 4


def scanned(root: Path) -> Scan:
    return scan([TreeSource("tree", root)], NoProgress())


def contents(found: Scan, reader: Reader) -> bytes:
    """The stretches of the only file of a scan, where they belong; the rest is holes."""
    (row,) = (row for row, size in enumerate(found.entries.size) if size)
    plain = bytearray(found.entries.size[row])
    buffer = memoryview(mmap(-1, CHUNK_SIZE))
    for task in file_tasks(found, row):
        for chunk in range(len(task)):
            pieces = task.pieces(found, chunk)
            with reader.fill(pieces, buffer) as data:
                at = 0
                for _, offset, length in pieces:
                    plain[offset : offset + length] = data[at : at + length]
                    at += length
    reader.close()
    return bytes(plain)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of some chunks whose end is not a page's."""
    (tmp_path / "tree").mkdir()
    file = tmp_path / "tree" / "big"
    file.write_bytes(DATA[: 9 * MIB + 17])
    forget(file)
    if in_cache(file):
        pytest.skip("this file system is its own page cache")
    return file


@pytest.mark.parametrize("direct", [True, False])
def test_a_publish_leaves_the_page_cache_alone_unless_asked_to_use_it(
    big: Path, tmp_path: Path, direct: bool
) -> None:
    store = LocalStore(tmp_path / "store")
    trees = [TreeSource("tree", big.parent)]
    assert publish(store, "key", fingerprint(), trees, direct=direct).outcome == "stored"
    assert in_cache(big) != direct


def test_a_file_in_the_page_cache_is_read_from_there(
    big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = big.read_bytes()
    asked = watched(monkeypatch)
    assert contents(scanned(big.parent), Reader(scanned(big.parent))) == plain
    assert asked == [False] * 3


def watched(monkeypatch: pytest.MonkeyPatch, *, refuse: bool = False) -> list[bool]:
    """Whether each read goes past the page cache; all that do are refused on request."""
    asked: list[bool] = []
    preadv = os.preadv

    def told(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        asked.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        if asked[-1] and refuse:
            raise OSError(22, "Invalid argument")
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", told)
    return asked


def test_each_chunk_is_one_read_past_the_page_cache_and_its_end_too(
    big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = watched(monkeypatch)
    found = scanned(big.parent)
    assert contents(found, Reader(found)) == DATA[: 9 * MIB + 17]
    assert asked == [True] * 3


def test_where_such_reads_are_refused_files_are_read_as_before(
    big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = watched(monkeypatch, refuse=True)
    found = scanned(big.parent)
    assert contents(found, Reader(found)) == DATA[: 9 * MIB + 17]
    assert asked == [True, False, False, False]


@pytest.mark.parametrize("change", ["shorter", "longer"])
def test_a_file_that_changes_under_the_reader_is_noticed(big: Path, change: str) -> None:
    found = scanned(big.parent)
    (row,) = (row for row, size in enumerate(found.entries.size) if size)
    (task,) = file_tasks(found, row)
    reader, buffer = Reader(found), memoryview(mmap(-1, CHUNK_SIZE))
    first, *_, last = (task.pieces(found, chunk) for chunk in range(len(task)))
    reader.fill(first, buffer).release()
    if change == "shorter":
        os.truncate(big, 8 * MIB)
        with pytest.raises(TreeChanged):
            reader.fill(last, buffer)
        reader.abandon()
        return
    with open(big, "ab") as file:
        file.write(b"more" * PAGESIZE)
    with reader.fill(last, buffer) as plain:  # no more of it than belongs to the chunk
        assert plain == DATA[8 * MIB : 9 * MIB + 17]
    with pytest.raises(TreeChanged):
        reader.close()


@given(
    stretches=st.lists(
        st.tuples(st.integers(0, 9 * MIB), st.integers(1, 2 * MIB)), min_size=1, max_size=4
    ),
    size=st.integers(MIB, 9 * MIB),
    cold=st.booleans(),
)
@example(stretches=[(1001, 5000), (4 * MIB - 3, 7)], size=8 * MIB + 1, cold=True)
def test_any_file_with_any_holes_is_read_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    stretches: list[tuple[int, int]],
    size: int,
    cold: bool,
) -> None:
    root = tmp_path_factory.mktemp("tree")
    file = root / "file"
    with open(file, "wb") as open_file:
        for offset, length in stretches:
            open_file.seek(offset)
            open_file.write(DATA[offset : offset + length])
    os.truncate(file, size)
    plain = file.read_bytes()
    if cold:
        forget(file)
    found = scanned(root)
    assert contents(found, Reader(found)) == plain
