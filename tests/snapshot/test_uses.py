"""Use is noted for policies and figures, cheaply, and never in the way of a start."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from cachepod.model.fingerprint import Fingerprint
from cachepod.model.names import FORMAT_OBJECT, USES, is_object_name
from cachepod.model.summary import Summary
from cachepod.snapshot.uses import (
    Event,
    Tally,
    Use,
    creator_of,
    install_seconds,
    last_used,
    read_uses,
    record,
    stale,
)
from cachepod.stores.base import put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.stores import METHODS, Around, CountingStore, FaultyStore

KEY = "cp310-linux_x86_64-cu126-torch2.7.0-0123456789abcdef"
HIT = Use(Event.HIT, seconds=4.0, size=2_600_000_000, saved=180.5)
TEN = 1_795_514_400.0  # 2026-11-24 10:00 UTC


class Remote(Around):
    """As a store across a network says of itself."""

    @property
    def parallel_reads(self) -> int:
        return 8


def test_what_is_recorded_is_read_back() -> None:
    store = MemoryStore()
    put(store, FORMAT_OBJECT, b"")
    assert record(store, KEY, HIT) == ""
    assert record(store, KEY, Use(Event.HIT, 30.0, 100, waited=20.0, saved=-1.0)) == ""
    assert record(store, KEY, Use(Event.PARTIAL, 2.0, 10)) == ""
    assert record(store, KEY, Use(Event.MISS, 0.5)) == ""
    assert record(store, KEY, Use(Event.PUBLISH, 12.0, 7)) == ""
    found = read_uses(store).tallies[KEY]
    assert found == Tally(
        hits=2,
        partials=1,
        misses=1,
        publishes=1,
        waits=1,
        waited=20.0,
        restored=2_600_000_110,
        published=7,
        restoring=16.0,
        publishing=12.0,
        saved=179.5,
        last=found.last,
    )
    assert abs(found.last - time.time()) < 60


def test_every_record_is_an_object_that_any_store_takes() -> None:
    extremes = Use(Event.HIT, 1e300, 1 << 80, waited=1e300, saved=-1e300, weight=16)
    for use in (HIT, extremes, Use(Event.MISS)):
        name = f"{USES}/{'k' * 168}/{use.name('2026-11-24T10')}"
        assert is_object_name(name)
        store = MemoryStore()
        put(store, name, b"")
        assert read_uses(store).total.hits + read_uses(store).total.misses == use.weight


def test_a_local_store_has_every_hit() -> None:
    store = MemoryStore()
    for _ in range(20):
        record(store, KEY, HIT)
    assert read_uses(store).total.hits == 20


def test_a_hit_on_a_remote_store_costs_one_question_most_of_the_time() -> None:
    store = CountingStore(Remote(MemoryStore()))
    record(Remote(store), KEY, HIT, chance=lambda: 0.99)
    store.reset()
    for _ in range(100):
        record(Remote(store), KEY, HIT, chance=lambda: 0.99)
    assert store.calls == {"size": 100}


def test_the_first_hit_of_an_hour_on_a_remote_store_costs_three_requests() -> None:
    store = CountingStore(Remote(MemoryStore()))
    record(Remote(store), KEY, HIT)
    assert store.calls == {"size": 1, "replace": 2}


def test_the_first_hit_of_every_hour_leaves_its_mark_on_a_remote_store() -> None:
    store = Remote(MemoryStore())
    for hour in range(3):
        for minute in range(0, 60, 10):
            moment = TEN + hour * 3600 + minute * 60
            record(store, KEY, HIT, chance=lambda: 0.99, now=lambda moment=moment: moment)
    names = [info.name.rpartition("/")[2] for info in store.list(USES)]
    hours = ["2026-11-24T10", "2026-11-24T11", "2026-11-24T12"]
    assert sorted(name for name in names if "." not in name) == hours
    assert sorted(name.partition(".")[0] for name in names if "." in name) == hours
    assert read_uses(store).total.hits == 3
    assert KEY in last_used(store)


def test_sampled_hits_are_right_on_average() -> None:
    store = Remote(MemoryStore())
    chance = random.Random(1).random
    for _ in range(4000):
        record(store, KEY, HIT, chance=chance)
    written = sum(1 for _ in store.list(USES))
    assert written < 350
    assert 3300 < read_uses(store).total.hits < 4700
    assert read_uses(store).total.saved == pytest.approx(read_uses(store).total.hits * 180.5)


@pytest.mark.parametrize("event", [Event.MISS, Event.PARTIAL, Event.PUBLISH])
def test_what_costs_minutes_is_always_recorded(event: Event) -> None:
    store = Remote(MemoryStore())
    put(store, FORMAT_OBJECT, b"")
    record(store, KEY, Use(event), chance=lambda: 0.99)
    total = read_uses(store).total
    assert total.misses + total.partials + total.publishes == 1


def test_a_miss_makes_no_store_where_there_is_none(tmp_path: Path) -> None:
    assert record(LocalStore(tmp_path / "store"), KEY, Use(Event.MISS)) == ""
    assert not (tmp_path / "store").exists()


def test_last_use_is_by_the_clock_of_the_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record(store, KEY, HIT, now=lambda: 4_000_000_000.0)  # a machine that lives in 2096
    record(store, "other", HIT, now=lambda: 0.0)
    for path in (tmp_path / "store" / USES / KEY).iterdir():
        assert path.name.startswith("2096-")
        os.utime(path, (1000.0, 1000.0))
    used = last_used(store)
    assert used[KEY] == 1000.0
    assert abs(used["other"] - time.time()) < 60


def test_the_newest_record_says_when_a_key_was_last_used(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for moment in (5000.0, 9000.0, 7000.0):
        before = set((tmp_path / "store").rglob("*.hit.*"))
        record(store, KEY, HIT)
        (new,) = set((tmp_path / "store").rglob("*.hit.*")) - before
        os.utime(new, (moment, moment))
    assert last_used(store) == {KEY: 9000.0}


HOSTILE = [
    "2026-11-24T10.hit.16",
    "2026-11-24T10.hit.0.1.1.1.1.0123456789abcdef",
    "2026-11-24T10.hit.9999999.1.1.1.1.0123456789abcdef",
    "2026-11-24T10.hit.1.-1.1.1.1.0123456789abcdef",
    f"2026-11-24T10.hit.1.{'9' * 17}.1.1.1.0123456789abcdef",
    "2026-11-24T10.hit.1.1.1.1.1.0123456789ABCDEF",
    "2026-11-24T10.theft.1.1.1.1.1.0123456789abcdef",
    "2026-11-24",
    "x" * 200,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_that_makes_no_sense_is_passed_over(name: str) -> None:
    store = MemoryStore()
    put(store, f"{USES}/{KEY}/{name}", b"\xff" * 100)
    put(store, f"{USES}/{KEY}/deeper/{name}", b"")
    put(store, f"{USES}/{name}", b"")
    assert read_uses(store).tallies == {}
    assert last_used(store) == {}


def test_the_content_of_a_record_is_never_read() -> None:
    counting = CountingStore(MemoryStore())
    record(counting, KEY, HIT)
    counting.reset()
    read_uses(counting)
    assert counting.calls == {"list": 1}


def test_records_of_long_ago_are_stale_by_the_clock_of_the_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record(store, KEY, HIT)
    (old,) = (tmp_path / "store" / USES / KEY).iterdir()
    record(store, KEY, HIT)
    assert list(stale(store)) == []
    os.utime(old, (1000.0, 1000.0))
    assert list(stale(store)) == [f"{USES}/{KEY}/{old.name}"]
    assert list(stale(store, 2000.0)) == []
    assert len(list(stale(store, time.time() + 91 * 86_400))) == 2


@pytest.mark.parametrize("letter", "EAUMCS")
@pytest.mark.parametrize("method", METHODS)
def test_no_fault_of_a_store_is_an_error_of_a_start(method: str, letter: str) -> None:
    for store in (MemoryStore(), Remote(MemoryStore())):
        for use in (HIT, Use(Event.MISS), Use(Event.PUBLISH)):
            said = record(FaultyStore(store, {method: letter + "*"}), KEY, use)
            assert isinstance(said, str)


def test_why_a_use_is_not_noted_is_told_in_one_sentence() -> None:
    store = FaultyStore(MemoryStore(), {"replace": "U*"})
    said = record(store, KEY, HIT)
    assert said == f"the use of {KEY} is not noted: store memory:: replace fails by design"


def test_a_bug_in_a_store_is_no_error_of_a_start() -> None:
    class Broken(MemoryStore):
        def replace(self, name: str, data: object) -> None:
            raise ZeroDivisionError(name)

    assert "ZeroDivisionError" in record(Broken(), KEY, HIT)


def test_a_store_that_does_not_answer_is_not_waited_for() -> None:
    release = threading.Event()

    class Wedged(MemoryStore):
        def replace(self, name: str, data: object) -> None:
            release.wait()
            raise AssertionError("never")

    try:
        assert "takes too long" in record(Wedged(), KEY, HIT, patience=0.01)
    finally:
        release.set()


def test_how_long_an_install_took_reaches_whoever_restores_it() -> None:
    def summary(creator: dict[str, str]) -> Summary:
        return Summary("k", Fingerprint("named", {}), (), (), creator, 0.0, 0, 0, 0)

    assert install_seconds(summary(creator_of(181.26))) == pytest.approx(181.3)
    assert creator_of(0.0) == {}
    assert install_seconds(summary({})) == 0.0
    for nonsense in ("nan", "inf", "-3", "x", "1e400", ""):
        assert install_seconds(summary({"install_seconds": nonsense})) == 0.0


def test_a_record_costs_one_request_that_writes(tmp_path: Path) -> None:
    store = CountingStore(LocalStore(tmp_path / "store"))
    assert record(store, KEY, Use(Event.PUBLISH, 4.0)) == ""
    assert store.calls == {"replace": 1}
