from __future__ import annotations

import errno
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachepod.stores.base import put
from cachepod.stores.handles import Handles
from cachepod.stores.local import LocalStore
from tests.support.faults import failing


def opener(path: Path, opened: list[str]):  # type: ignore[no-untyped-def]
    def open_file() -> int:
        opened.append(path.name)
        return os.open(path, os.O_RDONLY)

    return open_file


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"f{i}" for i in range(10)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 8)
    return paths


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_in_use_again_and_again_is_opened_once(files: list[Path]) -> None:
    handles, opened = Handles(4), []
    for _ in range(5):
        with handles.use("f0", opener(files[0], opened)) as descriptor:
            assert os.pread(descriptor, 8, 0) == bytes(8)
    assert opened == ["f0"]


def test_no_more_files_stay_open_than_the_capacity(files: list[Path]) -> None:
    before = open_descriptors()
    handles, opened = Handles(3), []
    for path in files:
        with handles.use(path.name, opener(path, opened)):
            pass
    assert len(handles) == 3
    assert open_descriptors() == before + 3
    handles.close()
    assert open_descriptors() == before


def test_the_file_used_longest_ago_is_closed_first(files: list[Path]) -> None:
    handles, opened = Handles(2), []
    for i in (0, 1, 0, 2, 0, 1):
        with handles.use(f"f{i}", opener(files[i], opened)):
            pass
    assert opened == ["f0", "f1", "f2", "f1"]


def test_a_file_in_use_outlives_its_place_in_the_cache(files: list[Path]) -> None:
    before = open_descriptors()
    handles, opened = Handles(1), []
    with handles.use("f1", opener(files[1], opened)) as descriptor:
        with handles.use("f2", opener(files[2], opened)):
            pass
        handles.forget("f1")
        handles.close()
        assert os.pread(descriptor, 8, 0) == b"\1" * 8
    assert open_descriptors() == before


def test_a_forgotten_file_is_opened_anew(files: list[Path]) -> None:
    handles, opened = Handles(4), []
    with handles.use("f0", opener(files[0], opened)):
        pass
    handles.forget("f0")
    handles.forget("never seen")
    with handles.use("f0", opener(files[0], opened)):
        pass
    assert opened == ["f0", "f0"]


def test_a_file_forgotten_while_it_was_being_opened_is_not_kept(files: list[Path]) -> None:
    handles = Handles(4)

    def open_and_lose() -> int:
        descriptor = os.open(files[0], os.O_RDONLY)
        handles.forget("f0")  # as if it were replaced just now
        return descriptor

    with handles.use("f0", open_and_lose) as descriptor:
        assert os.pread(descriptor, 1, 0) == b"\0"
    assert len(handles) == 0


def test_threads_never_read_a_file_that_is_not_theirs(files: list[Path]) -> None:
    before = open_descriptors()
    handles = Handles(3)

    def look(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(300):
            i = chance.randrange(10)
            with handles.use(f"f{i}", lambda i=i: os.open(files[i], os.O_RDONLY)) as descriptor:
                assert os.pread(descriptor, 8, 0) == bytes([i]) * 8
            if chance.random() < 0.05:
                handles.forget(f"f{chance.randrange(10)}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
    assert len(handles) <= 3
    handles.close()
    assert open_descriptors() == before


def test_a_store_closes_its_files_when_it_goes(tmp_path: Path) -> None:
    before = open_descriptors()
    store = LocalStore(tmp_path)
    put(store, "packs/a", b"1")
    store.read_range("packs/a", 0, memoryview(bytearray(1)))
    assert open_descriptors() == before + 1
    del store
    assert open_descriptors() == before


def test_many_reads_of_few_packs_open_each_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for name in ("packs/a", "packs/b"):
        put(store, name, bytes(1000))
    opened: list[str] = []

    def is_pack(path: object, *args: object) -> bool:
        opened.append(str(path))
        return False

    with failing("open", 0, when=is_pack):
        for offset in range(0, 1000, 100):
            for name in ("packs/a", "packs/b"):
                store.read_range(name, offset, memoryview(bytearray(100)))
    assert len(opened) == 2


def test_a_file_that_fails_to_close_is_closed(tmp_path: Path) -> None:
    """As on a FUSE mount whose daemon has died; only reads went through it, so nothing is lost."""
    path = tmp_path / "f"
    path.write_bytes(b"x")
    handles = Handles(1)

    def opened() -> int:
        return os.open(path, os.O_RDONLY)

    with failing("close", errno.ENOTCONN, calls="A*"):
        with handles.use("a", opened):
            pass
        with handles.use("b", opened):  # drops a
            handles.forget("b")
        with handles.use("c", opened):
            pass
        handles.forget("c")
        with handles.use("d", opened):
            pass
        handles.close()
