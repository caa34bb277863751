"""Reading ahead, and reading from the next store what the first has not."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing, StoreUnreachable
from cachepod.model.layout import MIB
from cachepod.model.names import PACKS, manifest_name
from cachepod.snapshot.fetch import Damage, Fetcher, Source
from cachepod.snapshot.plan import Read
from cachepod.snapshot.restore import RestoreReport, Target, restore
from cachepod.snapshot.spent import Spent, Watch
from cachepod.stores.base import Store, WriteStore, put
from cachepod.stores.memory import MemoryStore
from tests.support.snapshots import fingerprint, publish_files
from tests.support.stores import Around, CountingStore, FaultyStore, SlowStore

PACK = "packs/ab/abcdef"
DATA = os.urandom(100_000)
FILES = {"big": os.urandom(3 * MIB), "one": b"1" * 500, "d/two": os.urandom(9000)}


class Remote(Around):
    """A store that rewards several reads at once."""

    @property
    def parallel_reads(self) -> int:
        return 6


def holding(data: bytes = DATA, name: str = PACK) -> MemoryStore:
    store = MemoryStore()
    put(store, name, data)
    return store


def reads(count: int, size: int = 1000) -> list[Read]:
    return [Read(0, number * size, size, ()) for number in range(count)]


def fetcher(store: Store, workers: int = 1, threads: int = 0) -> Fetcher:
    return Fetcher(Source(store), [PACK], workers, threads, Spent())


@pytest.mark.parametrize("threads", [0, 1, 4, 40])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_ranges_come_in_order_and_whole(threads: int, count: int) -> None:
    fetching = fetcher(holding(), threads=threads)
    wanted = reads(count)
    with fetching.stream(wanted, Watch()) as ranges:
        got = [(read, bytes(stored)) for read, stored in ranges]
    fetching.leave()
    fetching.close()
    assert got == [(read, DATA[read.offset : read.offset + read.size]) for read in wanted]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(0, 7),
    st.lists(st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 9_000)), max_size=8)),
)
def test_any_number_of_workers_get_what_each_asked_for(
    workers: int, threads: int, asked: list[list[tuple[int, int]]]
) -> None:
    fetching = fetcher(holding(), workers=workers, threads=threads)
    jobs = [[Read(0, offset, size, ()) for offset, size in job] for job in asked]
    shares = [jobs[number::workers] for number in range(workers)]

    def work(share: list[list[Read]]) -> bool:
        good = True
        for job in share:
            with fetching.stream(job, Watch()) as ranges:
                for read, stored in ranges:
                    good = good and stored == DATA[read.offset : read.offset + read.size]
        fetching.leave()
        return good

    with ThreadPoolExecutor(workers) as pool:
        assert all(pool.map(work, shares))
    fetching.close()


class Meeting(Around):
    """Lets no read pass before *parties* of them are in flight."""

    def __init__(self, store: MemoryStore, parties: int) -> None:
        super().__init__(store)
        self._barrier = threading.Barrier(parties)

    def around(self, method: str, name: str, act: object) -> object:
        self._barrier.wait(20)
        return act()  # type: ignore[operator]


def test_one_worker_alone_keeps_every_reader_busy() -> None:
    fetching = fetcher(Meeting(holding(), 8), threads=8)
    with fetching.stream(reads(16), Watch()) as ranges:
        assert len(list(ranges)) == 16
    fetching.close()


def test_a_worker_gets_the_share_of_those_that_left() -> None:
    fetching = fetcher(Meeting(holding(), 8), workers=4, threads=8)
    for _ in range(3):
        fetching.leave()
    with fetching.stream(reads(16), Watch()) as ranges:
        assert len(list(ranges)) == 16
    fetching.close()


def test_a_worker_among_others_leaves_them_their_share() -> None:
    slow = SlowStore(holding(), 0.001)
    fetching = fetcher(slow, workers=4, threads=8)
    with fetching.stream(reads(50), Watch()) as ranges:
        assert len(list(ranges)) == 50
    assert 1 < slow.most_at_once <= 3  # a quarter of 8 + 4 buffers
    fetching.close()


def test_without_readers_nothing_is_read_ahead() -> None:
    counting = CountingStore(holding())
    fetching = fetcher(counting)
    with fetching.stream(reads(9), Watch()) as ranges:
        for number, _ in enumerate(ranges, 1):
            assert counting.calls["read_range"] == number
    fetching.close()


@pytest.mark.parametrize("threads", [0, 3])
def test_a_failure_reaches_the_worker_that_asked(threads: int) -> None:
    faulty = FaultyStore(holding(), {"read_range": "..U"})
    fetching = fetcher(faulty, threads=threads)
    seen: list[Read] = []

    def read_all() -> None:
        with fetching.stream(reads(9), Watch()) as ranges:
            seen.extend(read for read, _ in ranges)

    with pytest.raises(StoreUnreachable):
        read_all()
    assert len(seen) <= 2
    fetching.leave()
    fetching.close()


@pytest.mark.parametrize("threads", [0, 3])
def test_a_worker_that_fails_keeps_no_buffers(threads: int) -> None:
    fetching = fetcher(holding(), workers=2, threads=threads)
    for _ in range(20):  # more often than there are buffers
        try:
            with fetching.stream(reads(9), Watch()) as ranges:
                next(ranges)
                raise ZeroDivisionError
        except ZeroDivisionError as error:
            kept: BaseException = error  # with its traceback, and all that it refers to
    assert kept.__traceback__ is not None
    with fetching.stream(reads(5), Watch()) as ranges:
        assert len(list(ranges)) == 5
    fetching.close()


# From several stores


def test_the_first_store_is_asked_alone_while_it_answers() -> None:
    near, far = CountingStore(holding()), CountingStore(holding())
    source = Source(near, [far])
    buffer = bytearray(10)
    source.read(PACK, 5, memoryview(buffer))
    assert buffer == DATA[5:15]
    assert (near.calls["read_range"], far.calls["read_range"]) == (1, 0)
    assert source.damages == ()


@pytest.mark.parametrize("letter", ["M", "C"])
def test_what_is_damaged_in_one_store_comes_from_the_next(letter: str) -> None:
    source = Source(FaultyStore(holding(), {"read_range": letter + "*"}), [holding()])
    buffer = bytearray(10)
    source.read(PACK, 5, memoryview(buffer))
    assert buffer == DATA[5:15]
    [damage] = source.damages
    assert (damage.store, damage.name) == ("memory:", PACK)


def test_a_store_that_is_down_is_asked_last_from_then_on() -> None:
    near = CountingStore(FaultyStore(holding(), {"read_range": "U*"}))
    source = Source(near, [holding()])
    buffer = bytearray(10)
    for _ in range(5):
        source.read(PACK, 5, memoryview(buffer))
        assert buffer == DATA[5:15]
    assert near.calls["read_range"] == 1
    assert source.damages == ()  # who does not answer is not damaged


def test_a_store_that_was_down_is_asked_again_when_nobody_else_has_it() -> None:
    near = FaultyStore(holding(), {"read_range": "U"})
    source = Source(near, [MemoryStore()])
    buffer = bytearray(10)
    with pytest.raises(StoreUnreachable):
        source.read(PACK, 5, memoryview(buffer))
    source.read(PACK, 5, memoryview(buffer))
    assert buffer == DATA[5:15]


def test_where_nobody_has_it_the_first_ones_word_counts() -> None:
    source = Source(FaultyStore(holding(), {"read_range": "C*"}), [MemoryStore()])
    with pytest.raises(CorruptObject):
        source.read(PACK, 5, memoryview(bytearray(10)))
    source = Source(MemoryStore(), [FaultyStore(holding(), {"read_range": "C*"})])
    with pytest.raises(ObjectMissing):
        source.read(PACK, 5, memoryview(bytearray(10)))


def test_wrong_bytes_are_read_once_more_and_then_elsewhere() -> None:
    good = xxh3_128_digest(DATA[5:15])
    near = CountingStore(holding(b"\0" * len(DATA)))
    source = Source(near, [holding(b"\1" * len(DATA)), holding()])
    buffer = bytearray(10)
    source.read_again(PACK, 5, memoryview(buffer), good)
    assert buffer == DATA[5:15]
    assert near.calls["read_range"] == 1
    [damage] = source.damages
    assert damage == Damage("memory:", PACK, "the bytes at 5 do not match their checksum")
    with pytest.raises(CorruptObject):
        Source(near).read_again(PACK, 5, memoryview(buffer), good)


def test_wrong_bytes_on_the_way_are_no_damage() -> None:
    source = Source(holding(), [MemoryStore()])
    buffer = bytearray(10)
    source.read_again(PACK, 5, memoryview(buffer), xxh3_128_digest(DATA[5:15]))
    assert source.damages == ()


# Whole restores


@pytest.fixture(params=[Around, Remote], ids=["disk", "remote"])
def near(request: pytest.FixtureRequest) -> WriteStore:
    return request.param(MemoryStore())


def replicated(near: WriteStore) -> tuple[str, MemoryStore]:
    """A key published to *near*, and another store with the same objects."""
    key = publish_files(near, fingerprint(), FILES)
    far = MemoryStore()
    for prefix in (PACKS, "manifests"):
        for info in near.list(prefix):
            put(far, info.name, near.read(info.name, limit=1 << 30))
    return key, far


def bring(near: Store, key: str, root: Path, backups: list[Store]) -> RestoreReport:
    report = restore(near, key, [Target("env", root)], backups=backups, min_free=0.0)
    assert {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".cachepod" not in path.parts
    } == FILES
    return report


def damage(store: WriteStore, how: str) -> str:
    info = max(store.list(PACKS), key=lambda info: info.size)
    data = bytearray(store.read(info.name, limit=1 << 30))
    if how == "missing":
        store.delete(info.name)
    elif how == "short":
        store.replace(info.name, data[: len(data) // 3])
    else:
        data[1000:-1000] = bytes(len(data) - 2000)
        store.replace(info.name, data)
    return info.name


@pytest.mark.parametrize("how", ["missing", "short", "wrong"])
def test_a_pack_damaged_in_the_near_store_comes_from_the_far_one(
    near: WriteStore, tmp_path: Path, how: str
) -> None:
    key, far = replicated(near)
    name = damage(near, how)
    report = bring(near, key, tmp_path / "tree", [far])
    assert {(each.store, each.name) for each in report.damages} == {(near.url, name)}
    with pytest.raises((CorruptObject, ObjectMissing)):
        restore(near, key, [Target("env", tmp_path / "other")], min_free=0.0)
    assert not (tmp_path / "other").exists()


def test_a_near_store_that_goes_away_in_the_middle_is_made_up_for(
    near: WriteStore, tmp_path: Path
) -> None:
    key, far = replicated(near)
    going = FaultyStore(near, {"read_range": ".U*"})
    report = bring(going, key, tmp_path / "tree", [MemoryStore(), far])
    assert report.damages == ()


def test_damage_in_every_store_is_a_failure_and_no_half_tree(
    near: WriteStore, tmp_path: Path
) -> None:
    key, far = replicated(near)
    assert damage(near, "wrong") == damage(far, "missing")
    with pytest.raises(CorruptObject):
        restore(near, key, [Target("env", tmp_path / "tree")], backups=[far], min_free=0.0)
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("letter", ["E", "U", "M", "C", "X"])
@pytest.mark.parametrize("call", range(4))
def test_a_fault_at_any_read_is_made_up_for_by_the_next_store(
    tmp_path: Path, letter: str, call: int
) -> None:
    near = Remote(MemoryStore())
    key, far = replicated(near)
    faulty = FaultyStore(near, {"read_range": "." * call + letter + letter})
    bring(Remote(faulty), key, tmp_path / "tree", [far])


def test_a_remote_store_is_read_ahead_of_the_writers(tmp_path: Path) -> None:
    slow = SlowStore(MemoryStore(), 0.002)
    files = {f"big{number}": os.urandom(12 * MIB) for number in range(2)}
    key = publish_files(slow, fingerprint(), files)
    restore(
        Remote(slow), key, [Target("env", tmp_path / "tree")], threads=1, direct=False, min_free=0.0
    )
    assert slow.most_at_once > 1


def test_a_missing_manifest_is_a_miss_of_that_store_alone(tmp_path: Path) -> None:
    near = MemoryStore()
    key, far = replicated(near)
    near.delete(manifest_name(key))
    with pytest.raises(CachepodError) as caught:
        restore(near, key, [Target("env", tmp_path / "tree")], backups=[far], min_free=0.0)
    assert caught.value.exit_code == 3
