"""Reading a network volume past the page cache, and where that cannot be."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from cachepod.errors import CorruptObject
from cachepod.stores import local
from cachepod.stores.base import put
from cachepod.stores.local import LocalStore
from cachepod.stores.mounts import Mount
from cachepod.stores.pastcache import _cached, read_past_cache
from tests.support.moosefs import Cluster
from tests.support.pagecache import forget, in_cache

PACK = "packs/ab/" + "ab" * 16
DATA = bytes(range(256)) * 4096  # 1 MiB


def read(store: LocalStore, offset: int, size: int) -> bytes:
    into = bytearray(size)
    store.read_range(PACK, offset, memoryview(into))
    return bytes(into)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    put(LocalStore(tmp_path / "store"), PACK, DATA)
    return tmp_path / "store" / PACK


def test_whether_a_file_is_in_the_page_cache_is_told(pack: Path) -> None:
    pack.read_bytes()
    assert in_cache(pack)
    forget(pack)
    if in_cache(pack):
        pytest.skip("this file system is its own page cache")
    with open(pack, "rb") as file:
        file.read(4096)
        # Read ahead or not, less than all of it is there.
        os.posix_fadvise(file.fileno(), len(DATA) // 2, 0, os.POSIX_FADV_DONTNEED)
        assert not _cached(file.fileno(), len(DATA))


def test_a_file_in_the_page_cache_is_read_from_there(pack: Path) -> None:
    pack.read_bytes()
    with open(pack, "rb") as file:
        assert not read_past_cache(file.fileno())
        assert not fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_DIRECT


def test_an_empty_file_needs_no_way_past_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "rb") as file:
        assert not read_past_cache(file.fileno())


@pytest.fixture
def on_a_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories of the disk are taken for ones on a network volume."""
    volume = Mount("/", "fuse", "mfs#host:9421", ())
    monkeypatch.setattr(local, "mount_of", lambda path: volume)


@pytest.mark.usefixtures("on_a_volume")
def test_where_such_reads_must_be_aligned_the_store_reads_as_before(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(pack)
    asked: list[int] = []
    preadv = os.preadv

    def aligned_only(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
        asked.append(direct)
        if direct and offset % 512:
            raise OSError(22, "Invalid argument")
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", aligned_only)
    store = LocalStore(pack.parents[2])
    if in_cache(pack):
        pytest.skip("this file system is its own page cache")
    assert read(store, 1001, 5000) == DATA[1001:6001]
    assert asked == [True, False]
    assert read(store, 7, 100) == DATA[7:107]
    assert asked == [True, False, False]


@pytest.mark.usefixtures("on_a_volume")
def test_a_pack_that_is_too_short_is_damaged_read_either_way(pack: Path) -> None:
    for direct in (True, False):
        forget(pack)
        store = LocalStore(pack.parents[2], direct=direct)
        with pytest.raises(CorruptObject, match="it ends at byte"):
            read(store, len(DATA) - 10, 100)


def test_packs_on_a_disk_are_read_through_the_page_cache(pack: Path) -> None:
    forget(pack)
    assert read(LocalStore(pack.parents[2]), 0, len(DATA)) == DATA
    assert in_cache(pack)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("direct", [True, False])
def test_packs_on_a_real_volume_leave_the_page_cache_alone_unless_asked_to_use_it(
    moose: Cluster, direct: bool
) -> None:
    root = next(iter(moose.mounts.values())).path / f"past-{direct}"
    put(LocalStore(root), PACK, DATA)
    forget(root / PACK)
    assert not in_cache(root / PACK)
    store = LocalStore(root, direct=direct)
    assert read(store, 3, 700_001) == DATA[3:700_004]  # no alignment is asked for
    assert read(store, 0, len(DATA)) == DATA
    assert in_cache(root / PACK) != direct
    # What somebody else has read is taken from there.
    (root / PACK).read_bytes()
    assert read(LocalStore(root), 5, 5000) == DATA[5:5005]
