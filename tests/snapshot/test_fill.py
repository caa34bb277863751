"""Filling a near store from a far one, by one process at a time."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from cachepod.errors import SpaceExhausted, StoreUnreachable
from cachepod.model.names import LEASES, PACKS, damaged_name, manifest_name
from cachepod.snapshot.copy import copy
from cachepod.snapshot.fill import fill
from cachepod.snapshot.lease import MOST_FAILURES, Watch, take
from cachepod.snapshot.verify import verify
from cachepod.stores.base import exists, put
from cachepod.stores.memory import MemoryStore
from tests.support.snapshots import fingerprint, publish_files
from tests.support.stores import CountingStore, FaultyStore

KEY = fingerprint().key


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def far() -> MemoryStore:
    store = MemoryStore()
    publish_files(store, fingerprint(), {"data": random.Random(1).randbytes(200_000)})
    return store


def test_what_is_lacking_is_brought_and_the_lease_goes(far: MemoryStore) -> None:
    near = MemoryStore()
    assert fill(far, near, KEY).outcome == "filled"
    assert verify(near, [KEY]).problems == ()
    assert not list(near.list(LEASES))


def test_what_is_there_costs_no_write(far: MemoryStore) -> None:
    near = MemoryStore()
    copy(far, near)
    counting = CountingStore(near)
    assert fill(far, counting, KEY).outcome == "present"
    assert not counting.calls.keys() & {"create", "replace", "move", "delete"}


def test_a_marked_pack_of_a_snapshot_that_is_there_is_healed(far: MemoryStore) -> None:
    near = MemoryStore()
    copy(far, near)
    pack = next(near.list(PACKS)).name
    near.replace(pack, b"x" * near.size(pack))
    put(near, damaged_name(pack.rpartition("/")[2]), b"{}")
    assert fill(far, near, KEY).outcome == "filled"
    assert verify(near).problems == ()


def test_another_that_is_at_it_is_left_alone(far: MemoryStore) -> None:
    near, time = MemoryStore(), Time()
    lease = take(near, f"fill.{KEY}", Watch(near, f"fill.{KEY}").look())
    assert lease is not None

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        lease.beat()

    assert fill(far, near, KEY, sleep=sleep, clock=time.clock).outcome == "busy"
    assert not exists(near, manifest_name(KEY))


def test_what_another_has_brought_meanwhile_is_not_brought_again(far: MemoryStore) -> None:
    near, time = MemoryStore(), Time()
    take(near, f"fill.{KEY}", Watch(near, f"fill.{KEY}").look())

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        copy(far, near)

    report = fill(far, near, KEY, sleep=sleep, clock=time.clock)
    assert (report.outcome, report.report) == ("present", None)


def test_one_that_died_is_followed_by_the_next(far: MemoryStore) -> None:
    near, time = MemoryStore(), Time()
    take(near, f"fill.{KEY}", Watch(near, f"fill.{KEY}").look())
    assert fill(far, near, KEY, sleep=time.sleep, clock=time.clock).outcome == "filled"
    assert 40 < time.now < 60


def test_a_store_that_is_full_again_and_again_is_not_filled_any_more(far: MemoryStore) -> None:
    near = MemoryStore()
    full = FaultyStore(near, {"create": "S*"}, lambda method, name: name.startswith(PACKS))
    for _ in range(MOST_FAILURES):
        with pytest.raises(SpaceExhausted):
            fill(far, full, KEY)
    assert fill(far, near, KEY).outcome == "full"
    for info in list(near.list(LEASES)):  # as a prune does
        near.delete(info.name)
    assert fill(far, near, KEY).outcome == "filled"


def test_a_source_that_fails_does_not_count_as_a_full_store(far: MemoryStore) -> None:
    near = MemoryStore()
    failing = FaultyStore(far, {"read_range": "U*"})
    for _ in range(MOST_FAILURES + 1):
        with pytest.raises(StoreUnreachable):
            fill(failing, near, KEY)
    assert fill(far, near, KEY).outcome == "filled"


def test_damage_in_the_far_store_is_not_said_to_be_filled(far: MemoryStore) -> None:
    for info in list(far.list(PACKS)):
        far.replace(info.name, b"x" * info.size)
    near = MemoryStore()
    assert fill(far, near, KEY).outcome == "damaged"
    assert not exists(near, manifest_name(KEY))
    assert not list(near.list(LEASES))


SOURCE = ("read", "read_range")
DESTINATION = ("size", "list", "read", "create", "write", "commit", "replace", "delete")


@pytest.mark.parametrize(
    ("end", "method"),
    [*(("far", each) for each in SOURCE), *(("near", each) for each in DESTINATION)],
)
@pytest.mark.parametrize("letter", ["U", "A"])
def test_filling_that_fails_at_any_call_leaves_a_sound_store_and_the_next_one_fills(
    far: MemoryStore, end: str, method: str, letter: str
) -> None:
    for call in range(40):
        near = MemoryStore()
        faulty = FaultyStore(far if end == "far" else near, {method: "." * call + letter})
        with suppress(StoreUnreachable):
            if end == "far":
                fill(faulty, near, KEY)
            else:
                fill(far, faulty, KEY)
        assert verify(near).problems == ()
        if faulty._calls[method] <= call:
            break
        time = Time()  # one that failed may have left its lease behind
        fill(far, near, KEY, sleep=time.sleep, clock=time.clock)
        assert verify(near, [KEY]).problems == ()
    else:
        raise AssertionError("more calls than expected")
