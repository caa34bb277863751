from __future__ import annotations

import time

import pytest

from cachepod.stores.memory import MemoryStore
from tests.stores.conformance import PruneStoreConformance
from tests.stores.stateful import compare_with_a_dictionary


class TestMemoryStore(PruneStoreConformance):
    leaves = False

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    def put_behind(self, store: MemoryStore, name: str, data: bytes) -> None:
        store._objects[name] = (data, time.time())

    def get_behind(self, store: MemoryStore, name: str) -> bytes | None:
        return store._objects.get(name, (None,))[0]


def test_a_memory_store_behaves_as_a_dictionary() -> None:
    compare_with_a_dictionary(MemoryStore, examples=100)
