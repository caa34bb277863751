"""Figures of a store: what it holds, and what it has been good for."""

from __future__ import annotations

import os

import pytest

from cachepod.errors import StoreUnreachable
from cachepod.model.names import FORMAT_OBJECT, manifest_name
from cachepod.snapshot.stats import stats
from cachepod.snapshot.uses import Event, Use, record
from cachepod.stores.base import put
from cachepod.stores.memory import MemoryStore
from tests.support.hostile import replace_manifest
from tests.support.snapshots import fingerprint, publish_files
from tests.support.stores import METHODS, CountingStore, FaultyStore


def two_that_share(store: MemoryStore) -> tuple[str, str]:
    """Two snapshots that need the same six incompressible megabytes."""
    big = os.urandom(6 << 20)
    first = publish_files(store, fingerprint(), {"big": big, "own": os.urandom(100)})
    second = fingerprint(requirement__numpy="numpy==2")
    return first, publish_files(store, second, {"big": big, "own": os.urandom(100)})


def test_an_empty_store_has_figures_too() -> None:
    found = stats(MemoryStore())
    assert (found.snapshots, found.size, found.stored, found.packs) == ((), 0, 0, 0)
    assert (found.compression, found.sharing, found.hit_rate) == (0.0, 0.0, None)


def test_what_two_snapshots_share_is_stored_once_and_needed_twice() -> None:
    store = MemoryStore()
    two_that_share(store)
    found = stats(store)
    assert len(found.snapshots) == 2
    assert found.size == 2 * (6 << 20) + 200
    assert found.needed == found.size  # it cannot be compressed
    assert found.sharing == pytest.approx(2.0, rel=0.01)
    assert found.compression == 1.0
    assert found.stored == sum(info.size for info in store.list("packs"))
    assert found.packs == len(list(store.list("packs")))
    assert found.described == sum(info.size for info in store.list("manifests"))


def test_one_that_cannot_be_read_is_named_and_keeps_nothing_back() -> None:
    store = MemoryStore()
    first, second = two_that_share(store)
    replace_manifest(store, first, b"nonsense")
    found = stats(store)
    assert [each.key for each in found.snapshots] == [second]
    assert found.unreadable == {first: "it is cut short"}


def test_what_was_recorded_is_added_up_over_all_keys() -> None:
    store = MemoryStore()
    put(store, FORMAT_OBJECT, b"")
    for key in ("one", "two"):
        record(store, key, Use(Event.HIT, 5.0, 1000, waited=1.0, saved=60.0))
    record(store, "two", Use(Event.MISS, 1.0))
    found = stats(store)
    assert (found.use.hits, found.use.misses, found.use.waits) == (2, 1, 2)
    assert (found.use.restored, found.use.saved, found.use.restoring) == (2000, 120.0, 8.0)
    assert found.hit_rate == pytest.approx(2 / 3)
    assert {key: tally.hits for key, tally in found.keys.items()} == {"one": 1, "two": 1}


def test_no_manifest_is_read_whole() -> None:
    store = MemoryStore()
    key, _ = two_that_share(store)
    counting = CountingStore(store)
    stats(counting)
    assert counting.calls.keys() == {"list", "read_range"}
    assert counting.calls["read_range"] == 2
    assert counting.names["read_range"].count(manifest_name(key)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_store_that_fails_is_an_error_or_a_snapshot_that_cannot_be_read(method: str) -> None:
    store = MemoryStore()
    two_that_share(store)
    try:
        found = stats(FaultyStore(store, {method: "U*"}))
    except StoreUnreachable:
        assert method == "list"
    else:
        assert len(found.snapshots) + len(found.unreadable) == 2
