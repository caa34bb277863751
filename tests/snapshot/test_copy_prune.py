"""A copy into a store in which a prune is at work."""

from __future__ import annotations

import random
import threading
import time

import pytest

from cachepod.model.names import CONDEMNED, PACKS, PINS, manifest_name
from cachepod.snapshot.copy import copy
from cachepod.snapshot.prune import prune
from cachepod.snapshot.survey import Policy, plan_prune
from cachepod.snapshot.verify import verify
from cachepod.stores.base import exists
from cachepod.stores.memory import MemoryStore
from tests.support.cli import wait_until
from tests.support.snapshots import fingerprint, publish_files
from tests.support.stores import CountingStore

KEY, OTHER = fingerprint().key, fingerprint(handler="other").key


@pytest.fixture
def source() -> MemoryStore:
    store = MemoryStore()
    publish_files(store, fingerprint(), {"data": random.Random(1).randbytes(3_000_000)})
    return store


@pytest.fixture
def destination(source: MemoryStore) -> MemoryStore:
    """Has the packs of the snapshot and not its manifest: a prune is going to delete them."""
    store = MemoryStore()
    copy(source, store)
    store.delete(manifest_name(KEY))
    publish_files(store, fingerprint(handler="other"), {"data": b"other"})
    return store


class Clock:
    """Time that only a prune's sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def holds_all(destination: MemoryStore) -> None:
    assert verify(destination).problems == ()
    assert exists(destination, manifest_name(KEY))
    assert exists(destination, manifest_name(OTHER))
    assert not list(destination.list(PINS))
    assert not list(destination.list(CONDEMNED))


@pytest.mark.parametrize("second", [0, 100, 179])
def test_a_copy_during_the_grace_period_keeps_its_packs(
    source: MemoryStore, destination: MemoryStore, second: int
) -> None:
    clock = Clock()
    later = Clock()

    def wait(seconds: float) -> None:
        later.now += seconds

    def sleep(seconds: float) -> None:
        if clock.now == second:
            report = copy(source, destination, clock=later, sleep=wait)
            assert report.snapshots[0].outcome == "copied"
            assert report.packs == 0
        clock.now += seconds

    plan = plan_prune(destination, Policy())
    assert plan.deleted
    report = prune(destination, plan, clock=clock, sleep=sleep, period=0)
    assert report.spared
    holds_all(destination)


def test_a_copy_that_begins_while_packs_are_deleted_waits_and_brings_them_again(
    source: MemoryStore, destination: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachepod.snapshot.outwait._POLL", 0.01)
    clock = Clock()
    outcomes: list[str] = []

    def bring() -> None:
        outcomes.append(copy(source, destination).snapshots[0].outcome)

    thread = threading.Thread(target=bring)

    class Deleting(CountingStore):
        def delete(self, name: str) -> None:
            if name.startswith(PACKS) and not thread.ident:
                thread.start()
                # It has pinned the packs and sees that they are condemned; too late for this prune.
                wait_until(lambda: list(destination.list(PINS)))
            super().delete(name)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    store = Deleting(destination)
    report = prune(store, plan_prune(store, Policy()), clock=clock, sleep=sleep, period=0)
    assert report.deleted
    thread.join(60)
    assert outcomes == ["copied"]
    holds_all(destination)


def test_a_prune_that_is_killed_while_it_deletes_hinders_no_copy(
    source: MemoryStore, destination: MemoryStore
) -> None:
    class Killed(CountingStore):
        def delete(self, name: str) -> None:
            raise KeyboardInterrupt

    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    store = Killed(destination)
    with pytest.raises(KeyboardInterrupt):
        prune(store, plan_prune(store, Policy()), clock=clock, sleep=sleep, period=0)
    assert list(destination.list(CONDEMNED))
    assert copy(source, destination, clock=clock, sleep=sleep).snapshots[0].outcome == "copied"
    plan = plan_prune(destination, Policy(), now=time.time() + 3600)
    prune(destination, plan, clock=clock, sleep=sleep, period=0)
    holds_all(destination)
