from __future__ import annotations

import json
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cachepod.errors import CorruptObject, PinLost, SpaceExhausted, StoreUnreachable
from cachepod.model.names import CONDEMNED, PINS, is_pack_id, manifest_name, pack_name
from cachepod.snapshot.beat import FRESH, Beat
from cachepod.snapshot.pins import (
    condemned_packs,
    hold_pin,
    pinned_when_long,
    read_pins,
)
from cachepod.stores.base import exists, put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.cli import wait_until
from tests.support.faults import killed_at_every_call
from tests.support.snapshots import manifest_of
from tests.support.stores import Around, CountingStore, FaultyStore
from tests.support.trees import Directory, File, look, make

A, B = "a" * 32, "b" * 32


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def of_pins(method: str, name: str) -> bool:
    return name.split("/")[0] in (PINS, CONDEMNED)


def condemn(store: MemoryStore | LocalStore, *packs: str) -> None:
    put(store, f"{CONDEMNED}/{os.urandom(8).hex()}", json.dumps({"packs": packs}).encode())


def pins(store: Any) -> list[str]:
    return [info.name for info in store.list(PINS)]


def test_a_pin_is_there_from_the_first_reliance_to_the_end() -> None:
    store = MemoryStore()
    with hold_pin(store) as pin:
        assert not pins(store)
        pin.rely_on([A])
        [found] = read_pins(store)
        assert found.id == pin.id
        assert found.protects(A)
        assert not found.protects(B)
        pin.rely_on([B])
        [found] = read_pins(store)
        assert found.protects(A)
        assert found.protects(B)
    assert not pins(store)


def test_what_the_holder_writes_is_protected_without_being_listed() -> None:
    store = MemoryStore()
    with hold_pin(store) as pin:
        pin.rely_on(())
        new = pin.pack_id()
        assert is_pack_id(new)
        assert new != pin.pack_id()
        assert read_pins(store)[0].protects(new)


def test_a_thread_renews_a_pin() -> None:
    store = MemoryStore()
    with hold_pin(store, period=0.01) as pin:
        pin.rely_on([A])
        first = read_pins(store)[0].data
        wait_until(lambda: read_pins(store)[0].data != first)


def test_a_pin_goes_although_the_work_fails() -> None:
    store = MemoryStore()

    def work() -> None:
        with hold_pin(store) as pin:
            pin.rely_on([A])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert not pins(store)


def test_no_write_comes_after_the_end() -> None:
    """A renewal that is under way when the work ends is waited for, then the pin goes."""
    begun, go_on = threading.Event(), threading.Event()

    class Held(Around):
        def around(self, method: str, name: str, act: Any) -> Any:
            if method == "replace" and threading.current_thread().name == "beat":
                begun.set()
                assert go_on.wait(10)
            return act()

    store = MemoryStore()
    with hold_pin(Held(store), period=0.01) as pin:
        pin.rely_on([A])
        assert begun.wait(10)
        threading.Timer(0.05, go_on.set).start()
    assert not pins(store)


def test_a_renewal_that_fails_is_tried_again() -> None:
    clock = Clock()
    store = FaultyStore(MemoryStore(), {"replace": ".EEE."})
    with hold_pin(store, clock=clock, period=0.01) as pin:
        pin.rely_on([A])
        first = read_pins(store)[0].data
        wait_until(lambda: read_pins(store)[0].data != first)


def test_condemned_packs_are_not_to_be_relied_on() -> None:
    store = MemoryStore()
    condemn(store, B)
    condemn(store)
    assert condemned_packs(store) == {B}
    with hold_pin(store) as pin:
        assert pin.rely_on([A, B]) == {B}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"packs": 3}', b'{"packs": ["x"]}', b"[" * 100_000]
)
def test_what_is_condemned_in_words_that_are_not_understood_is_an_error(data: bytes) -> None:
    store = MemoryStore()
    put(store, f"{CONDEMNED}/0", data)
    with pytest.raises(CorruptObject):
        condemned_packs(store)
    put(store, f"{PINS}/{'0' * 16}", data)
    [found] = read_pins(store)
    assert found.protects(A), "what is not understood may mean anything"


def test_what_has_no_pins_name_is_no_pin() -> None:
    store = MemoryStore()
    put(store, f"{PINS}/README", b"")
    assert read_pins(store) == []


def test_nothing_is_asked_while_a_pin_is_fresh() -> None:
    clock, store = Clock(), CountingStore(MemoryStore())
    with hold_pin(store, clock=clock, period=0) as pin:
        pin.rely_on([A])
        store.reset()
        clock.now += FRESH - 1
        pin.confirm({A: 5})
        assert not store.calls


def test_a_pin_that_was_not_renewed_for_long_is_written_anew_and_its_packs_looked_at() -> None:
    clock, store = Clock(), MemoryStore()
    put(store, pack_name(A), b"12345")
    with hold_pin(store, clock=clock, period=0) as pin:
        pin.rely_on([A])
        clock.now += FRESH
        store.delete(f"{PINS}/{pin.id}")  # as a prune would that took it for dead
        pin.confirm({A: 5})
        assert read_pins(store)[0].protects(A)
        store.delete(pack_name(A))
        pin.confirm({A: 5})  # not looked at again while the pin is renewed


def test_a_renewal_does_not_hide_that_the_machine_slept_before_it() -> None:
    clock, store = Clock(), MemoryStore()
    with hold_pin(store, clock=clock, period=0) as pin:
        pin.rely_on([A])
        clock.now += FRESH
        pin.renew()
        with pytest.raises(PinLost):
            pin.confirm({A: 5})


@pytest.mark.parametrize("what", ["gone", "cut short", "condemned"])
def test_a_pin_is_lost_with_a_pack(what: str) -> None:
    clock, store = Clock(), MemoryStore()
    if what != "gone":
        put(store, pack_name(A), b"1234" if what == "cut short" else b"12345")
    with hold_pin(store, clock=clock, period=0) as pin:
        pin.rely_on([A])
        if what == "condemned":
            condemn(store, A)
        clock.now += FRESH
        with pytest.raises(PinLost, match=A):
            pin.confirm({A: 5})


@pytest.mark.parametrize(("letter", "error"), [("S", SpaceExhausted), ("E", StoreUnreachable)])
def test_a_pin_that_cannot_be_written_is_said(letter: str, error: type[Exception]) -> None:
    store = FaultyStore(MemoryStore(), {"replace": letter})
    with pytest.raises(error), hold_pin(store) as pin:
        pin.rely_on([A])
    assert not pins(store)


def test_a_pin_that_cannot_be_deleted_is_no_error() -> None:
    store = FaultyStore(MemoryStore(), {"delete": "U"})
    with hold_pin(store) as pin:
        pin.rely_on([A])
    assert len(pins(store)) == 1


def test_a_beat_that_was_left_is_not_deleted() -> None:
    store = MemoryStore()
    beat = Beat(store, "condemned/1", dict, period=0)
    beat.start()
    beat.stop(leave=True)
    beat.renew()
    assert json.loads(store.read("condemned/1", limit=1000))["beat"] == 1


# Long readers


def test_work_that_is_over_soon_writes_no_pin() -> None:
    store = CountingStore(MemoryStore())
    with pinned_when_long(store, [A]):
        pass
    assert not store.calls


def test_work_that_takes_long_pins_what_it_reads_and_renews_the_pin() -> None:
    store = MemoryStore()
    with pinned_when_long(store, [A], after=0.01, period=0.01):
        wait_until(lambda: pins(store))
        [found] = read_pins(store)
        assert found.protects(A)
        wait_until(lambda: read_pins(store)[0].data != found.data)
    assert not pins(store)


def test_a_store_that_may_only_be_read_is_read_all_the_same() -> None:
    store = FaultyStore(MemoryStore(), {"replace": "U*", "delete": "U*"})
    tried = threading.Event()

    class Told(Around):
        def around(self, method: str, name: str, act: Any) -> Any:
            tried.set()
            return act()

    with pinned_when_long(Told(store), [A], after=0.01):
        assert tried.wait(10)


class WaitsForAPin(Around):
    """Hands out no pack before there is a pin that protects it."""

    def around(self, method: str, name: str, act: Any) -> Any:
        if method == "read_range" and name.startswith("packs/"):
            wait_until(lambda: any(p.protects(name[-32:]) for p in read_pins(self.store)))
        return act()


def test_a_long_restore_pins_the_packs_that_it_reads(room: Path, source: Path) -> None:
    store = MemoryStore()
    store_tree(store, source)
    pin = partial(pinned_when_long, store, after=0.01)
    bring(WaitsForAPin(store), room / "there", pin=pin)
    assert look(room / "there") == look(source)
    assert not pins(store)


def test_a_restore_that_fails_takes_its_pin_back(room: Path, source: Path) -> None:
    store = MemoryStore()
    store_tree(store, source)
    failing = FaultyStore(store, {"read_range": "U*"})
    with pytest.raises(StoreUnreachable):
        bring(
            WaitsForAPin(failing), room / "there", pin=partial(pinned_when_long, store, after=0.01)
        )
    assert not pins(store)


# A publish


@pytest.fixture
def source(room: Path) -> Path:
    """One file that is a chunk of its own, and small ones that are not."""
    small = {b"%d" % n: File(os.urandom(900)) for n in range(9)}
    return make(room / "source", Directory({**small, b"big": File(os.urandom(1_200_000))}))


class Watching(Around):
    """Calls *look* after the calls of one method."""

    def __init__(self, store: Any, method: str, look: Any) -> None:
        super().__init__(store)
        self._method, self._look = method, look

    def around(self, method: str, name: str, act: Any) -> Any:
        result = act()
        if method == self._method:
            self._look(name)
        return result


def test_a_publish_pins_what_it_reuses_and_what_it_writes(room: Path, source: Path) -> None:
    store = MemoryStore()
    store_tree(store, source, "first")
    (source / "new").write_bytes(os.urandom(2000))
    old = [pack.id for pack in manifest_of(store, "first").packs]
    seen = []

    def at_commit(name: str) -> None:
        [pin] = read_pins(store)
        assert all(map(pin.protects, old))
        if name.startswith("packs/"):
            assert name.endswith(pin.id)
            assert pin.protects(name.rpartition("/")[2])
        seen.append(name)

    store_tree(Watching(store, "commit", at_commit), source, "second")
    assert [name.split("/")[0] for name in seen] == ["packs", "manifests"]
    assert not pins(store)
    packs = {pack.id for pack in manifest_of(store, "second").packs}
    assert packs & set(old)
    assert packs - set(old)


def test_a_publish_takes_nothing_from_condemned_packs(room: Path, source: Path) -> None:
    store = MemoryStore()
    store_tree(store, source, "first")
    old = {pack.id for pack in manifest_of(store, "first").packs}
    condemn(store, *old)
    assert store_tree(store, source, "second").reused == 0
    assert not old & {pack.id for pack in manifest_of(store, "second").packs}


def test_a_publish_takes_nothing_from_others_where_it_cannot_tell_what_is_condemned(
    room: Path, source: Path
) -> None:
    store = MemoryStore()
    store_tree(store, source, "first")
    put(store, f"{CONDEMNED}/1", b"?")
    assert store_tree(store, source, "second").reused == 0
    bring(store, room / "there", "second")
    assert look(room / "there") == look(source)


def test_a_publish_whose_packs_went_while_the_machine_slept_publishes_nothing(
    room: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = MemoryStore(), Clock()
    monkeypatch.setattr("cachepod.snapshot.publish.hold_pin", lambda s: hold_pin(s, clock=clock))
    store_tree(store, source, "first")
    old = manifest_of(store, "first").packs
    (source / "new").write_bytes(os.urandom(2000))

    def sleep(name: str) -> None:
        if name.startswith("packs/"):
            clock.now += 10 * FRESH
            for pack in old:
                store.delete(pack_name(pack.id))

    with pytest.raises(PinLost):
        store_tree(Watching(store, "commit", sleep), source, "second")
    assert not exists(store, manifest_name("second"))
    assert [info.name for info in store.list("packs")] == []


def test_a_publish_takes_its_manifest_back_if_packs_went_just_before_it(
    room: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = MemoryStore(), Clock()
    monkeypatch.setattr("cachepod.snapshot.publish.hold_pin", lambda s: hold_pin(s, clock=clock))
    store_tree(store, source, "first")
    old = manifest_of(store, "first").packs[0].id

    def sleep(name: str) -> None:
        if name == manifest_name("second"):
            clock.now += 10 * FRESH
            store.delete(pack_name(old))

    with pytest.raises(PinLost):
        store_tree(Watching(store, "commit", sleep), source, "second")
    assert not exists(store, manifest_name("second"))
    # The trees of both are as they were, so a publish that follows stores everything anew.
    assert store_tree(store, source, "second").outcome == "stored"
    bring(store, room / "there", "second")
    assert look(room / "there") == look(source)


def test_a_publish_after_a_sleep_in_which_nothing_went_succeeds(
    room: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = MemoryStore(), Clock()
    monkeypatch.setattr("cachepod.snapshot.publish.hold_pin", lambda s: hold_pin(s, clock=clock))

    def sleep(name: str) -> None:
        clock.now += 10 * FRESH

    assert store_tree(Watching(store, "commit", sleep), source, "k").outcome == "stored"


@pytest.mark.parametrize("letter", "EUS")
def test_a_publish_that_can_write_no_pin_fails_and_leaves_nothing(
    source: Path, letter: str
) -> None:
    store = MemoryStore()
    error = SpaceExhausted if letter == "S" else StoreUnreachable
    with pytest.raises(error):
        store_tree(FaultyStore(store, {"replace": letter}, of_pins), source)
    assert not [*store.list("packs"), *store.list("manifests"), *store.list(PINS)]


def test_a_pin_costs_a_publish_three_requests(source: Path) -> None:
    store = CountingStore(MemoryStore())
    store_tree(store, source)
    requests = [(m, n) for m, names in store.names.items() for n in names if of_pins(m, n)]
    assert sorted(method for method, _ in requests) == ["delete", "list", "replace"]


def test_a_publish_killed_anywhere_leaves_no_pack_that_no_pin_protects(
    room: Path, source: Path
) -> None:
    """Else a prune that comes by while it works would take the pack."""
    store = LocalStore(room / "store")

    def act() -> None:
        store_tree(LocalStore(room / "store"), source)

    kills = 0
    for _ in killed_at_every_call(act):
        kills += 1
        found = read_pins(store)
        packs = [info.name.rpartition("/")[2] for info in store.list("packs")]
        if not exists(store, manifest_name("k")):
            assert all(any(pin.protects(pack) for pin in found) for pack in packs)
        for prefix in ("packs", "manifests", PINS):
            for info in list(store.list(prefix)):
                store.delete(info.name)
        store = LocalStore(room / "store")
    assert kills > 30
