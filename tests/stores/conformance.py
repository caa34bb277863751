"""
What every store does, as claims. A store joins by subclassing and saying how it is made.

Each claim that can be checked behind the store's back is: what a writer wrote is looked at with
other means than the store's own, and the other way round.
"""

from __future__ import annotations

import array
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing
from cachepod.stores.base import ObjectInfo, PruneStore, Store, Writer, WriteStore, exists, put

NAME = "packs/ab/abcdef"
DATA = bytes(range(256)) * 40
BAD_NAMES = ["", "/", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.tmp-h-1-0", "a\0", "a b", "é"]


def infos(store: Store, prefix: str) -> dict[str, ObjectInfo]:
    """The listing as a dictionary; no name may come twice."""
    found = list(store.list(prefix))
    assert len({info.name for info in found}) == len(found)
    return {info.name: info for info in found}


class StoreConformance(ABC):
    """Reading. *store* is the one to test, fresh for each test; the rest goes behind its back."""

    @abstractmethod
    @pytest.fixture
    def store(self) -> Any:
        """An empty store."""

    @abstractmethod
    def put_behind(self, store: Any, name: str, data: bytes) -> None:
        """Place an object without the store's own methods."""

    def test_it_is_a_store_with_a_url(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert store.url
        assert store.parallel_reads >= 0

    def test_every_object_of_an_empty_store_is_missing(self, store: Store) -> None:
        with pytest.raises(ObjectMissing) as caught:
            store.read(NAME, limit=10)
        assert caught.value.name == NAME
        with pytest.raises(ObjectMissing):
            store.read_range(NAME, 0, memoryview(bytearray(1)))
        with pytest.raises(ObjectMissing):
            store.read_range(NAME, 0, memoryview(bytearray(0)))
        with pytest.raises(ObjectMissing):
            store.size(NAME)
        assert list(store.list("packs")) == []
        assert not exists(store, NAME)

    @pytest.mark.parametrize("data", [b"", b"x", DATA, b"\0" * 70_000])
    def test_an_object_is_read_whole(self, store: Store, data: bytes) -> None:
        self.put_behind(store, NAME, data)
        assert store.read(NAME, limit=100_000) == data
        assert store.size(NAME) == len(data)
        assert exists(store, NAME)

    def test_a_limit_of_exactly_the_size_is_enough(self, store: Store) -> None:
        self.put_behind(store, NAME, DATA)
        assert store.read(NAME, limit=len(DATA)) == DATA

    def test_an_object_above_the_limit_is_corrupt(self, store: Store) -> None:
        self.put_behind(store, NAME, DATA)
        with pytest.raises(CorruptObject) as caught:
            store.read(NAME, limit=len(DATA) - 1)
        assert caught.value.name == NAME

    @pytest.mark.parametrize(
        ("offset", "length"), [(0, 0), (0, 1), (0, len(DATA)), (17, 4096), (len(DATA) - 3, 3)]
    )
    def test_a_range_fills_the_buffer(self, store: Store, offset: int, length: int) -> None:
        self.put_behind(store, NAME, DATA)
        buffer = bytearray(b"\xff" * length)
        store.read_range(NAME, offset, memoryview(buffer))
        assert buffer == DATA[offset : offset + length]

    def test_a_range_fills_only_the_part_of_a_buffer_it_is_given(self, store: Store) -> None:
        self.put_behind(store, NAME, DATA)
        buffer = bytearray(b"\xff" * 100)
        store.read_range(NAME, 5, memoryview(buffer)[10:20])
        assert buffer == b"\xff" * 10 + DATA[5:15] + b"\xff" * 80

    @pytest.mark.parametrize("offset", [len(DATA) - 3, len(DATA), len(DATA) + 9, 2**62, 2**70])
    def test_a_range_past_the_end_is_corrupt(self, store: Store, offset: int) -> None:
        self.put_behind(store, NAME, DATA)
        with pytest.raises(CorruptObject) as caught:
            store.read_range(NAME, offset, memoryview(bytearray(4)))
        assert caught.value.name == NAME

    def test_a_listing_gives_the_names_below_a_prefix_with_their_sizes(self, store: Store) -> None:
        for name in ("packs/ab/one", "packs/cd/two", "packs2/three", "manifests/f/k", "packs/x"):
            self.put_behind(store, name, name.encode())
        found = infos(store, "packs")
        assert set(found) == {"packs/ab/one", "packs/cd/two", "packs/x"}
        assert found["packs/cd/two"].size == len("packs/cd/two")
        assert set(infos(store, "packs/ab")) == {"packs/ab/one"}
        assert infos(store, "nothing") == {}

    def test_a_prefix_ends_at_a_slash(self, store: Store) -> None:
        self.put_behind(store, "manifests/cp310/key", b"")
        assert infos(store, "manifests/cp3") == {}
        assert infos(store, "manifests/cp310/key") == {}

    def test_a_listing_says_about_when_an_object_was_made(self, store: Store) -> None:
        self.put_behind(store, NAME, DATA)
        # A volume's clock and whole seconds may be off; an hour is not.
        assert abs(infos(store, "packs")[NAME].modified - time.time()) < 3600

    def test_a_name_in_the_middle_of_another_is_no_object(self, store: Store) -> None:
        self.put_behind(store, NAME, DATA)
        assert not exists(store, "packs/ab")
        with pytest.raises(ObjectMissing):
            store.read("packs", limit=10)
        with pytest.raises(ObjectMissing):
            store.read_range("packs/ab", 0, memoryview(bytearray(1)))

    def test_a_name_below_an_object_is_no_object(self, store: Store) -> None:
        self.put_behind(store, NAME, DATA)
        assert not exists(store, NAME + "/below")
        with pytest.raises(ObjectMissing):
            store.read(NAME + "/below", limit=10)

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_what_is_no_name_never_reaches_the_store(self, store: Store, name: str) -> None:
        with pytest.raises(ValueError, match="name"):
            store.read(name, limit=1)
        with pytest.raises(ValueError, match="name"):
            store.read_range(name, 0, memoryview(bytearray(1)))
        with pytest.raises(ValueError, match="name"):
            store.size(name)
        with pytest.raises(ValueError, match="name"):
            list(store.list(name))

    def test_threads_may_read_the_same_and_different_objects(self, store: Store) -> None:
        contents = {f"packs/ab/{i}": bytes([i]) * 5000 + DATA for i in range(5)}
        for name, data in contents.items():
            self.put_behind(store, name, data)

        def look(i: int) -> bool:
            name = f"packs/ab/{i % 5}"
            buffer = bytearray(3000)
            offset = i * 37 % 6000
            store.read_range(name, offset, memoryview(buffer))
            return buffer == contents[name][offset : offset + 3000]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(look, range(400)))


class WriteStoreConformance(StoreConformance):
    """Reading and writing."""

    @abstractmethod
    def get_behind(self, store: Any, name: str) -> bytes | None:
        """The bytes of an object by other means than the store's own; None if there is none."""

    def test_it_is_a_write_store(self, store: WriteStore) -> None:
        assert isinstance(store, WriteStore)

    @pytest.mark.parametrize("data", [b"", b"x", DATA])
    def test_an_object_is_written_whole(self, store: WriteStore, data: bytes) -> None:
        assert put(store, NAME, data)
        assert self.get_behind(store, NAME) == data
        assert store.read(NAME, limit=100_000) == data
        assert infos(store, "packs")[NAME].size == len(data)

    def test_an_object_is_written_in_pieces_of_any_kind_of_buffer(self, store: WriteStore) -> None:
        with store.create(NAME) as writer:
            writer.write(b"ab")
            writer.write(b"")
            writer.write(bytearray(b"cd"))
            writer.write(memoryview(b"..ef..")[2:4])
            writer.write(memoryview(array.array("H", [0x6767])))
            assert writer.commit()
        assert self.get_behind(store, NAME) == b"abcdefgg"

    def test_a_buffer_may_be_reused_after_it_was_written(self, store: WriteStore) -> None:
        buffer = bytearray(b"1" * 1000)
        with store.create(NAME) as writer:
            writer.write(buffer)
            buffer[:] = b"2" * 1000
            writer.write(buffer)
            writer.commit()
        assert self.get_behind(store, NAME) == b"1" * 1000 + b"2" * 1000

    def test_nobody_sees_an_object_before_it_is_committed(self, store: WriteStore) -> None:
        with store.create(NAME) as writer:
            writer.write(DATA)
            assert self.get_behind(store, NAME) is None
            assert not exists(store, NAME)
            assert infos(store, "packs") == {}
            assert writer.commit()
            assert self.get_behind(store, NAME) == DATA

    def test_an_aborted_object_never_appears(self, store: WriteStore) -> None:
        writer = store.create(NAME)
        writer.write(DATA)
        writer.abort()
        writer.abort()
        assert self.get_behind(store, NAME) is None
        assert infos(store, "packs") == {}

    def test_an_object_is_aborted_by_an_error_of_its_writer(self, store: WriteStore) -> None:
        def fail(writer: Writer) -> None:
            writer.write(DATA)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), store.create(NAME) as writer:
            fail(writer)
        assert self.get_behind(store, NAME) is None
        assert put(store, NAME, b"the next one is first")

    def test_leaving_a_writer_without_a_commit_aborts(self, store: WriteStore) -> None:
        with store.create(NAME) as writer:
            writer.write(DATA)
        assert self.get_behind(store, NAME) is None

    def test_an_abort_after_the_commit_is_harmless(self, store: WriteStore) -> None:
        with store.create(NAME) as writer:
            writer.write(DATA)
            assert writer.commit()
            writer.abort()
        assert self.get_behind(store, NAME) == DATA

    def test_a_writer_that_is_done_takes_nothing_more(self, store: WriteStore) -> None:
        with store.create(NAME) as writer:
            assert writer.commit()
            with pytest.raises(ValueError, match="not being written"):
                writer.write(b"more")
            with pytest.raises(ValueError, match="not being written"):
                writer.commit()
        assert self.get_behind(store, NAME) == b""

    def test_the_second_object_of_a_name_changes_nothing(self, store: WriteStore) -> None:
        assert put(store, NAME, b"first")
        assert not put(store, NAME, b"second")
        assert self.get_behind(store, NAME) == b"first"

    def test_the_first_to_commit_wins_not_the_first_to_begin(self, store: WriteStore) -> None:
        with store.create(NAME) as slow, store.create(NAME) as quick:
            slow.write(b"slow")
            quick.write(b"quick")
            assert quick.commit()
            assert not slow.commit()
        assert self.get_behind(store, NAME) == b"quick"

    def test_of_many_threads_that_write_one_name_one_is_first(self, store: WriteStore) -> None:
        barrier = threading.Barrier(8)

        def write(i: int) -> tuple[bool, bytes]:
            data = bytes([i]) * 3000
            with store.create(NAME) as writer:
                writer.write(data)
                barrier.wait(30)
                return writer.commit(), data

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(write, range(8)))
        winners = [data for first, data in outcomes if first]
        assert len(winners) == 1
        assert self.get_behind(store, NAME) == winners[0]

    def test_an_object_is_replaced_whole(self, store: WriteStore) -> None:
        store.replace(NAME, b"the first needs nothing to replace")
        assert self.get_behind(store, NAME) == b"the first needs nothing to replace"
        buffer = bytearray(3)
        store.read_range(NAME, 0, memoryview(buffer))
        store.replace(NAME, bytearray(DATA))
        assert self.get_behind(store, NAME) == DATA
        store.replace(NAME, memoryview(b"..short..")[2:7])
        assert store.read(NAME, limit=100) == b"short"
        store.read_range(NAME, 0, memoryview(buffer))
        assert buffer == b"sho"
        assert store.size(NAME) == 5
        assert set(infos(store, "packs")) == {NAME}

    def test_a_reader_finds_the_old_object_or_the_new_one(self, store: WriteStore) -> None:
        store.replace(NAME, b"0" * 3000)
        stop = threading.Event()

        def read() -> set[bytes]:
            seen = set()
            while not stop.is_set():
                seen.add(store.read(NAME, limit=10_000))
            return seen

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for i in range(1, 30):
                    store.replace(NAME, b"%d" % (i % 10) * (3000 + i))
            finally:
                stop.set()
        for reader in readers:
            for data in reader.result():
                assert len(set(data)) == 1
                assert len(data) >= 3000

    def test_a_replaced_name_is_taken(self, store: WriteStore) -> None:
        store.replace(NAME, b"there")
        assert not put(store, NAME, b"late")
        assert self.get_behind(store, NAME) == b"there"

    def test_a_moved_object_has_only_its_new_name(self, store: WriteStore) -> None:
        put(store, NAME, DATA)
        store.read_range(NAME, 0, memoryview(bytearray(9)))
        store.move(NAME, "trash/abcdef")
        assert self.get_behind(store, NAME) is None
        assert self.get_behind(store, "trash/abcdef") == DATA
        assert set(infos(store, "trash")) == {"trash/abcdef"}
        with pytest.raises(ObjectMissing):
            store.read_range(NAME, 0, memoryview(bytearray(9)))

    def test_a_move_replaces_what_has_the_name(self, store: WriteStore) -> None:
        put(store, "trash/x", b"old old old")
        store.read_range("trash/x", 0, memoryview(bytearray(3)))
        put(store, NAME, b"new")
        store.move(NAME, "trash/x")
        buffer = bytearray(3)
        store.read_range("trash/x", 0, memoryview(buffer))
        assert buffer == b"new"
        assert self.get_behind(store, "trash/x") == b"new"
        assert store.size("trash/x") == 3

    def test_a_missing_object_cannot_be_moved(self, store: WriteStore) -> None:
        put(store, "trash/x", b"stays")
        with pytest.raises(ObjectMissing):
            store.move(NAME, "trash/x")
        assert self.get_behind(store, "trash/x") == b"stays"

    def test_a_deleted_object_is_missing_and_its_name_free(self, store: WriteStore) -> None:
        put(store, NAME, DATA)
        buffer = memoryview(bytearray(4))
        store.read_range(NAME, 0, buffer)
        store.delete(NAME)
        assert self.get_behind(store, NAME) is None
        with pytest.raises(ObjectMissing):
            store.read_range(NAME, 0, buffer)
        assert put(store, NAME, b"again")
        store.read_range(NAME, 0, buffer)
        assert bytes(buffer) == b"agai"

    def test_deleting_what_is_not_there_is_no_error(self, store: WriteStore) -> None:
        store.delete(NAME)
        put(store, NAME, DATA)
        store.delete("packs/ab/other")
        store.delete(NAME)
        store.delete(NAME)
        store.delete("packs")
        store.delete(NAME + "/below")

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_what_is_no_name_is_never_written(self, store: WriteStore, name: str) -> None:
        put(store, NAME, DATA)
        with pytest.raises(ValueError, match="name"):
            store.create(name)
        with pytest.raises(ValueError, match="name"):
            store.replace(name, b"")
        with pytest.raises(ValueError, match="name"):
            store.move(NAME, name)
        with pytest.raises(ValueError, match="name"):
            store.move(name, "trash/x")
        with pytest.raises(ValueError, match="name"):
            store.delete(name)
        assert self.get_behind(store, NAME) == DATA


class PruneStoreConformance(WriteStoreConformance):
    """Sweeping too."""

    #: Whether a writer that is dropped in the middle leaves something.
    leaves = True

    def test_it_is_a_prune_store(self, store: PruneStore) -> None:
        assert isinstance(store, PruneStore)

    def test_what_is_whole_is_no_leftover(self, store: PruneStore) -> None:
        assert list(store.leftovers()) == []
        put(store, NAME, DATA)
        store.replace("leases/k/1", b"x")
        assert list(store.leftovers()) == []

    def test_an_unfinished_object_is_a_leftover_until_it_is_removed(
        self, store: PruneStore
    ) -> None:
        put(store, "packs/ab/whole", DATA)
        writer = store.create(NAME)
        writer.write(self.big)
        self.settle(store)
        found = list(store.leftovers())
        assert len(found) == int(self.leaves)
        for leftover in found:
            assert -5 < leftover.age < 3600
            store.remove(leftover)
            store.remove(leftover)
        assert list(store.leftovers()) == []
        assert set(infos(store, "packs")) == {"packs/ab/whole"}
        with contextlib.suppress(CachepodError):
            writer.abort()

    def test_an_aborted_object_leaves_nothing(self, store: PruneStore) -> None:
        with store.create(NAME) as writer:
            writer.write(self.big)
        assert list(store.leftovers()) == []

    def settle(self, store: Any) -> None:
        """Wait until what was written has arrived, where that happens in the background."""

    @property
    def big(self) -> bytes:
        """Enough for an unfinished object to leave a trace."""
        return DATA
