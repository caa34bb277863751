"""What a publish asks a store about the snapshots of its family: how much, and how much at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cachepod.model.names import MANIFESTS, PACKS, manifest_name, pack_name
from cachepod.snapshot import relatives
from cachepod.snapshot.pins import hold_pin
from cachepod.snapshot.relatives import known_chunks
from cachepod.stores.base import PruneStore
from cachepod.stores.memory import MemoryStore
from tests.support.snapshots import fingerprint, manifest_of, publish_files
from tests.support.stores import Around

AT_ONCE = 4


class Across(Around):
    """
    A store across a network, in which calls meet: each waits until some are there.

    Whoever calls one after another waits in vain, and is found out by :attr:`most`.
    """

    def __init__(self, store: PruneStore) -> None:
        super().__init__(store)
        self.calls: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._met: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def parallel_reads(self) -> int:
        return AT_ONCE

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        call = f"{method} {name.partition('/')[0]}"
        with self._lock:
            self.calls[call] += 1
            self._now[call] += 1
            self.most[call] = max(self.most[call], self._now[call])
            met = self._met.setdefault(call, threading.Event())
            if self._now[call] >= AT_ONCE:
                met.set()
        if call in (f"size {PACKS}", f"read {MANIFESTS}"):
            met.wait(1)
        try:
            return act()
        finally:
            with self._lock:
                self._now[call] -= 1


@pytest.fixture
def evolved() -> tuple[MemoryStore, list[str]]:
    """A store of twenty versions of an environment, each with one file of its own; their keys."""
    store, keys, files = MemoryStore(), [], {}
    for version in range(20):
        files[f"file-{version:02d}"] = b"%d " % version * 600_000
        keys.append(publish_files(store, fingerprint(own=f"own=={version}"), files, tree="scale"))
    return store, keys


def known(store: Around) -> Any:
    with hold_pin(store) as pin:
        return known_chunks(store, fingerprint(own="own==wanted").key, [], pin)


def test_packs_and_manifests_of_relatives_are_asked_for_several_at_a_time(
    evolved: tuple[MemoryStore, list[str]],
) -> None:
    store, keys = evolved
    packs = {pack.id for key in keys for pack in manifest_of(store, key).packs}
    assert len(packs) == len(keys)  # the newest version needs a pack of each
    across = Across(store)
    index = known(across)
    assert across.most[f"size {PACKS}"] == AT_ONCE
    assert across.most[f"read {MANIFESTS}"] == AT_ONCE
    manifest = manifest_of(store, keys[-1])
    assert all(index.find(manifest.chunks.id(row)) for row in range(len(manifest.chunks)))


def test_each_pack_is_asked_for_once_and_a_bounded_number_of_manifests_is_read(
    evolved: tuple[MemoryStore, list[str]],
) -> None:
    store, keys = evolved
    across = Across(store)
    known(across)
    assert across.calls[f"size {PACKS}"] == len(keys)
    assert across.calls[f"read {MANIFESTS}"] == relatives._RELATIVES
    assert across.calls[f"list {MANIFESTS}"] == 1


def test_a_relative_that_cannot_be_read_and_a_pack_that_is_gone_are_not_relied_on(
    evolved: tuple[MemoryStore, list[str]],
) -> None:
    store, keys = evolved
    newest = manifest_of(store, keys[-1])
    gone = newest.packs[0].id
    store.delete(pack_name(gone))
    store.replace(manifest_name(keys[5]), b"no manifest")
    index = known(Across(store))
    found = {
        newest.packs[newest.chunks.pack[row]].id
        for row in range(len(newest.chunks))
        if index.find(newest.chunks.id(row)) is not None
    }
    assert found == {pack.id for pack in newest.packs[1:]}


def test_large_manifests_are_read_ahead_only_within_bounds() -> None:
    sizes = {"a": 1, "b": 2, "c": relatives._AHEAD, "d": 5, "e": relatives._AHEAD + 1}
    batches = list(relatives._batches(["a", "b", "x", "c", "d", "e", "a"], sizes))
    assert batches == [["a", "b", "x"], ["c"], ["d"], ["e"], ["a"]]
