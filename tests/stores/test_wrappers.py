from __future__ import annotations

import time

import pytest

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing, StoreUnreachable
from cachepod.stores.base import PruneStore, Store, Writer, WriteStore, exists, put
from cachepod.stores.memory import MemoryStore
from cachepod.stores.wrappers import Patience, ReadOnly, Retrying
from tests.stores.conformance import DATA, NAME, PruneStoreConformance, StoreConformance
from tests.stores.stateful import compare_with_a_dictionary
from tests.support.stores import METHODS, Around, CountingStore, FaultyStore, SlowStore


class Wrapped(PruneStoreConformance):
    """Whatever is around a memory store, the memory store lies behind it."""

    leaves = False

    def memory(self, store: object) -> MemoryStore:
        while not isinstance(store, MemoryStore):
            store = getattr(store, "store", None) or store._store  # type: ignore[attr-defined]
        return store

    def put_behind(self, store: WriteStore, name: str, data: bytes) -> None:
        self.memory(store)._objects[name] = (data, time.time())

    def get_behind(self, store: WriteStore, name: str) -> bytes | None:
        return self.memory(store)._objects.get(name, (None,))[0]


class TestRetrying(Wrapped):
    @pytest.fixture
    def store(self) -> WriteStore:
        return Retrying(MemoryStore())


class TestRetryingOfAStoreThatFailsOften(Wrapped):
    """Every claim holds although the first two calls of every method fail."""

    @pytest.fixture
    def store(self) -> WriteStore:
        faulty = FaultyStore(MemoryStore(), dict.fromkeys(METHODS, "EE.E.E.E"))
        return Retrying(faulty, Patience(sleep=lambda seconds: None))


class TestAround(Wrapped):
    @pytest.fixture
    def store(self) -> WriteStore:
        return Around(CountingStore(SlowStore(FaultyStore(MemoryStore(), {}), 0)))


class TestReadOnly(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return ReadOnly(MemoryStore())

    def put_behind(self, store: ReadOnly, name: str, data: bytes) -> None:
        put(store._store, name, data)  # type: ignore[arg-type]


def test_what_is_read_only_has_nothing_to_write_with() -> None:
    store = ReadOnly(MemoryStore())
    assert not isinstance(store, WriteStore)
    for method in ("create", "move", "delete"):
        assert not hasattr(store, method)


def test_the_methods_that_faults_can_be_given_for_are_those_of_the_protocols() -> None:
    ours = {name for protocol in (PruneStore, WriteStore, Store, Writer) for name in vars(protocol)}
    ours = {name for name in ours if not name.startswith("_")}
    assert set(METHODS) | {"url", "parallel_reads", "exclusive", "abort"} == ours


def test_a_faulty_store_with_patience_behaves_as_a_dictionary() -> None:
    def make() -> WriteStore:
        faulty = FaultyStore(MemoryStore(), dict.fromkeys(METHODS, ".E.EE..E.E" * 20))
        return Retrying(faulty, Patience(sleep=lambda seconds: None))

    compare_with_a_dictionary(make)


class Waits:
    """Stands for time.sleep."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def test_the_waits_double_up_to_a_longest_and_are_shortened_at_random() -> None:
    waits = Waits()
    store = FaultyStore(MemoryStore(), {"size": "E*"})
    patience = Patience(attempts=7, delay=0.1, longest=1.0, sleep=waits)
    with pytest.raises(StoreUnreachable):
        Retrying(store, patience).size(NAME)
    most = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert len(waits.seconds) == len(most)
    for waited, at_most in zip(waits.seconds, most, strict=True):
        assert at_most / 2 <= waited <= at_most


def test_the_last_error_is_the_one_reported() -> None:
    counting = CountingStore(FaultyStore(MemoryStore(), {"size": "E*"}))
    with pytest.raises(StoreUnreachable, match="fails by design"):
        Retrying(counting, Patience(attempts=3, sleep=lambda seconds: None)).size(NAME)
    assert counting.calls["size"] == 3


@pytest.mark.parametrize("letter", "UMCS")
@pytest.mark.parametrize("method", ["read", "size", "list", "create", "move", "delete"])
def test_what_will_not_pass_is_not_tried_again(method: str, letter: str) -> None:
    waits = Waits()
    memory = MemoryStore()
    put(memory, NAME, b"")
    inner = CountingStore(FaultyStore(memory, {method: letter + "*"}))
    store = Retrying(inner, Patience(sleep=waits))
    acts = {
        "read": lambda: store.read(NAME, limit=1),
        "size": lambda: store.size(NAME),
        "list": lambda: list(store.list("packs")),
        "create": lambda: store.create(NAME),
        "move": lambda: store.move(NAME, "trash/x"),
        "delete": lambda: store.delete(NAME),
    }
    with pytest.raises(CachepodError):
        acts[method]()
    assert inner.calls[method] == 1
    assert waits.seconds == []


def test_a_range_read_again_begins_at_its_start() -> None:
    class HalfWay(Around):
        failed = False

        def read_range(self, name: str, offset: int, into: memoryview) -> None:
            if not self.failed:
                self.failed = True
                self.store.read_range(name, offset + 7, into[:10])
                raise StoreUnreachable(self.url, "half way", transient=True)
            self.store.read_range(name, offset, into)

    memory = MemoryStore()
    put(memory, NAME, DATA)
    buffer = bytearray(100)
    store = Retrying(HalfWay(memory), Patience(sleep=lambda seconds: None))
    store.read_range(NAME, 3, memoryview(buffer))
    assert buffer == DATA[3:103]


def test_a_listing_that_breaks_off_is_begun_again() -> None:
    class BreaksOff(Around):
        failed = False

        def list(self, prefix: str):  # type: ignore[no-untyped-def]
            for info in self.store.list(prefix):
                yield info
                if not self.failed:
                    self.failed = True
                    raise StoreUnreachable(self.url, "broke off", transient=True)

    memory = MemoryStore()
    for i in range(5):
        put(memory, f"packs/ab/{i}", b"")
    store = Retrying(BreaksOff(memory), Patience(sleep=lambda seconds: None))
    assert len(list(store.list("packs"))) == 5


def test_a_move_whose_answer_was_lost_is_done() -> None:
    memory = MemoryStore()
    put(memory, NAME, DATA)
    store = Retrying(FaultyStore(memory, {"move": "A"}), Patience(sleep=lambda seconds: None))
    store.move(NAME, "trash/x")
    assert memory.read("trash/x", limit=len(DATA)) == DATA


def test_a_missing_object_is_missing_even_if_the_first_try_failed() -> None:
    memory = MemoryStore()
    put(memory, "trash/x", b"another")
    store = Retrying(FaultyStore(memory, {"move": "E"}), Patience(sleep=lambda seconds: None))
    with pytest.raises(ObjectMissing):
        store.move(NAME, "trash/x")


# The stores of tests/support


def test_a_faulty_store_fails_as_its_map_says() -> None:
    store = FaultyStore(MemoryStore(), {"size": ".EU.M*"})
    put(store, NAME, DATA)

    def outcome() -> str:
        try:
            return str(store.size(NAME))
        except CachepodError as error:
            return type(error).__name__

    outcomes = [outcome() for _ in range(7)]
    size = str(len(DATA))
    lost, missing = "StoreUnreachable", "ObjectMissing"
    assert outcomes == [size, lost, lost, size, missing, missing, missing]


def test_a_faulty_store_counts_only_the_calls_it_is_told_to() -> None:
    only = FaultyStore(MemoryStore(), {"size": "E*"}, lambda method, name: name.startswith("m"))
    put(only, NAME, DATA)
    put(only, "manifests/x", DATA)
    assert exists(only, NAME)
    with pytest.raises(StoreUnreachable):
        exists(only, "manifests/x")


def test_a_wrong_bit_is_one_bit() -> None:
    store = FaultyStore(MemoryStore(), {"read": "X", "read_range": ".X"})
    put(store, NAME, bytes(100))
    assert sum(byte.bit_count() for byte in store.read(NAME, limit=100)) == 1
    assert store.read(NAME, limit=100) == bytes(100)
    buffer = bytearray(50)
    store.read_range(NAME, 0, memoryview(buffer))
    assert not any(buffer)
    store.read_range(NAME, 0, memoryview(buffer))
    assert sum(byte.bit_count() for byte in buffer) == 1


def test_a_counting_store_counts_bytes_and_calls() -> None:
    store = CountingStore(MemoryStore())
    put(store, NAME, DATA)
    store.read(NAME, limit=len(DATA))
    store.read_range(NAME, 0, memoryview(bytearray(10)))
    with pytest.raises(CorruptObject):
        store.read(NAME, limit=1)
    assert store.calls == {"create": 1, "write": 1, "commit": 1, "read": 2, "read_range": 1}
    assert store.bytes_read == len(DATA) + 10
    assert store.bytes_written == len(DATA)
    assert store.names["read"] == [NAME, NAME]
