"""A prune alone with the store: what goes, what stays, and what a fault or a kill leaves."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachepod.errors import CachepodError, ManifestUnreadable, SpaceExhausted
from cachepod.model.layout import MIB
from cachepod.model.names import CONDEMNED, PINS, damaged_name, manifest_name, pack_name
from cachepod.snapshot.survey import Policy, plan_prune
from cachepod.stores.base import PruneStore, exists, put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.faults import killed_at_every_call
from tests.support.prunes import (
    LATER,
    HookedBeat,
    Killed,
    Mortal,
    Time,
    bytes_of,
    carry_out,
    check_sound,
    keys_of,
    needed_by,
    orphan,
    packs_of,
    prune_now,
    publishers,
)
from tests.support.snapshots import manifest_of
from tests.support.stores import METHODS, Around, CountingStore, FaultyStore
from tests.support.trees import Directory, File, look, make

A, B = "a" * 32, "b" * 32
KEYS = [f"family-{number:016x}" for number in range(6)]
FIRST, SECOND, THIRD = KEYS[3:]
BIG = MIB + 5000  # more than a small file


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here writes to a file that was just published or restored."""
    for module in ("publish", "restore"):
        monkeypatch.setattr(f"cachepod.snapshot.{module}.outlast", lambda newest: None)
    monkeypatch.setattr("cachepod.snapshot.prune.Beat", HookedBeat)


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, room: Path) -> PruneStore:
    return MemoryStore() if request.param == "memory" else LocalStore(room / "store")


def source(room: Path, name: str, *files: bytes) -> Path:
    tree = Directory({b"%d" % number: File(data) for number, data in enumerate(files)})
    return make(room / name, tree)


SHARED = os.urandom(BIG)


def three(room: Path, store: PruneStore) -> dict[str, Path]:
    """Three snapshots, the oldest first; they share a chunk and have one each of their own."""
    sources = {}
    for number in range(3):
        key = KEYS[number]
        sources[key] = source(room, key, SHARED, b"%d" % number * 5000)
        store_tree(store, sources[key], key)
    return sources


def last(count: int) -> dict[str, int]:
    return {"keep_last": count}


def test_what_is_dropped_goes_and_what_stays_is_whole(room: Path, store: PruneStore) -> None:
    sources = three(room, store)
    report = prune_now(store, **last(1))
    assert sorted(report.dropped) == [KEYS[0], KEYS[1]]
    assert keys_of(store) == {KEYS[2]}
    assert packs_of(store) == needed_by(store)
    assert not [*store.list("trash"), *store.list(CONDEMNED), *store.list(PINS)]
    check_sound(store)
    bring(store, room / "there", KEYS[2])
    assert look(room / "there") == look(sources[KEYS[2]])


def test_as_many_bytes_go_as_the_plan_says(room: Path, store: PruneStore) -> None:
    three(room, store)
    orphan(store, A)
    put(store, "trash/old", b"x" * 300)
    before = bytes_of(store)
    plan = plan_prune(store, Policy(**last(1)))  # type: ignore[arg-type]
    clock = Time()
    report = carry_out(store, plan, clock)
    assert report.freed == plan.freed == before - bytes_of(store)
    assert report.deleted == len(plan.deleted)
    assert clock.now >= 1000 + 180


def test_a_plan_writes_nothing(room: Path) -> None:
    store = CountingStore(MemoryStore())
    three(room, store)
    store.reset()
    plan_prune(store, Policy(keep_last=1, max_size=0))
    assert not {"create", "replace", "move", "delete", "remove"} & store.calls.keys()


def test_where_nothing_is_to_be_done_nobody_waits(room: Path, store: PruneStore) -> None:
    three(room, store)
    clock = Time()
    report = prune_now(store, clock)
    assert not report.deleted
    assert clock.now == 1000
    assert len(keys_of(store)) == 3


def test_the_trash_goes_without_waiting(store: PruneStore) -> None:
    put(store, "trash/k.1", b"12345")
    clock = Time()
    report = prune_now(store, clock)
    assert (report.swept, report.freed) == (1, 5)
    assert clock.now == 1000
    assert not list(store.list("trash"))


def test_packs_of_a_killed_publish_go_with_its_pin(room: Path, store: PruneStore) -> None:
    clock = Time()
    with publishers(clock, alive=False):
        total = 0
        for call in itertools.count():
            dying = Mortal(store, call)
            try:
                store_tree(dying, source(room, f"t{call}", os.urandom(BIG)), f"k{call}")
            except Killed:
                total += 1
            else:
                break
    assert total > 10
    assert packs_of(store) - needed_by(store)
    keys = keys_of(store)
    prune_now(store, clock)
    assert packs_of(store) == needed_by(store)
    assert not [*store.list(PINS), *store.list(CONDEMNED)]
    assert keys_of(store) == keys
    check_sound(store)


def pin(store: PruneStore, *packs: str, beat: int = 1, identity: str = "0" * 16) -> None:
    store.replace(f"{PINS}/{identity}", json.dumps({"packs": packs, "beat": beat}).encode())


def test_what_a_living_pin_protects_stays(store: PruneStore) -> None:
    written = "c" * 16 + "0" * 16
    for pack in (A, B, written):
        orphan(store, pack)
    clock, beat = Time(), itertools.count(2)
    pin(store, A)
    clock.hooks.append(lambda: pin(store, A, beat=next(beat)))
    report = prune_now(store, clock)
    assert packs_of(store) == {A, written}
    assert report.spared == 2
    assert list(store.list(PINS))
    clock.hooks.clear()
    prune_now(store, clock)
    assert not packs_of(store)
    assert not list(store.list(PINS))


def test_a_pin_that_comes_late_protects(store: PruneStore) -> None:
    orphan(store, A)
    clock = Time()
    clock.hooks.append(lambda: clock.now > 1170 and pin(store, A))
    prune_now(store, clock)
    assert packs_of(store) == {A}


def test_a_pin_that_was_not_watched_for_long_protects(store: PruneStore) -> None:
    orphan(store, A)
    pin(store, A)
    prune_now(store, grace=30)
    assert packs_of(store) == {A}
    assert list(store.list(PINS))


def test_a_pin_that_is_renewed_in_words_not_understood_protects_everything(
    store: PruneStore,
) -> None:
    orphan(store, A)
    clock, beat = Time(), itertools.count()
    name = f"{PINS}/{'1' * 16}"
    store.replace(name, b"?")
    clock.hooks.append(lambda: store.replace(name, b"?%d" % next(beat)))
    assert prune_now(store, clock).spared == 1
    clock.hooks.clear()
    assert prune_now(store, clock).deleted == 1


def test_a_snapshot_that_comes_during_the_grace_period_keeps_its_packs(
    room: Path, store: PruneStore
) -> None:
    """It was published before the packs were condemned, and only its manifest is late."""
    tree = source(room, KEYS[0], b"of its own" * 500)
    store_tree(store, tree, KEYS[0])
    name = manifest_name(KEYS[0])
    data = store.read(name, limit=1 << 30)
    store.delete(name)
    clock = Time()
    clock.hooks.append(lambda: exists(store, name) or put(store, name, data))
    report = prune_now(store, clock)
    assert report.spared == 1
    assert keys_of(store) == {KEYS[0]}
    bring(store, room / "there", KEYS[0])
    assert look(room / "there") == look(tree)


def test_a_snapshot_that_was_published_anew_since_the_plan_stays(
    room: Path, store: PruneStore
) -> None:
    three(room, store)
    plan = plan_prune(store, Policy(keep_last=2))
    store_tree(store, source(room, "new", b"new"), KEYS[0], force=True)
    clock = Time()
    report = carry_out(store, plan, clock)
    assert report.dropped == ()
    assert KEYS[0] in report.notes[0]
    assert KEYS[0] in keys_of(store)
    check_sound(store)


def test_a_prune_that_slept_looks_again_before_it_goes_on_deleting(room: Path) -> None:
    """
    Meanwhile another prune took it for dead and removed its list, and a publish came to rely on a
    pack that was on it.
    """
    store = MemoryStore()
    orphan(store, A)
    store_tree(store, source(room, "tree", b"content" * 500), FIRST)
    name = manifest_name(FIRST)
    data = store.read(name, limit=1 << 30)
    store.delete(name)
    clock = Time()

    class Sleepy(Around):
        def around(self, method: str, name_: str, act: Callable[[], Any]) -> Any:
            if method == "delete" and name_ == pack_name(A):
                clock.now += 600
                for info in list(store.list(CONDEMNED)):
                    store.delete(info.name)
                put(store, name, data)
            return act()

    report = prune_now(Sleepy(store), clock)
    assert (report.deleted, report.spared) == (1, 1)
    check_sound(store)
    assert keys_of(store) == {FIRST}


# What cannot be read


@pytest.mark.parametrize("damage", ["cut short", "newer", "not a manifest"])
def test_a_manifest_that_cannot_be_read_stops_everything(
    room: Path, store: PruneStore, damage: str
) -> None:
    three(room, store)
    orphan(store, A)
    data = bytearray(store.read(manifest_name(KEYS[2]), limit=1 << 30))
    if damage == "newer":
        data[8] = 9
    store.replace(
        manifest_name(KEYS[2]),
        {"cut short": bytes(data[:-1]), "newer": bytes(data), "not a manifest": b"x"}[damage],
    )
    before = bytes_of(store)
    with pytest.raises(ManifestUnreadable, match=KEYS[2]) as caught:
        prune_now(store, **last(1))
    assert caught.value.exit_code == (1 if damage == "newer" else 6)
    assert bytes_of(store) == before


def test_a_manifest_that_becomes_unreadable_meanwhile_saves_every_pack(
    room: Path, store: PruneStore
) -> None:
    three(room, store)
    packs = packs_of(store)
    clock = Time()
    clock.hooks.append(lambda: store.replace(manifest_name("new"), b"?"))
    with pytest.raises(ManifestUnreadable):
        prune_now(store, clock, **last(1))
    assert packs_of(store) == packs
    assert not list(store.list(CONDEMNED))
    store.delete(manifest_name("new"))
    prune_now(store, **last(1))
    assert packs_of(store) == needed_by(store)


def test_a_manifest_that_vanishes_since_the_listing_stops_nothing(room: Path) -> None:
    store = MemoryStore()
    three(room, store)
    vanishing = FaultyStore(store, {"read": "M"}, lambda method, name: "manifests" in name)
    plan = plan_prune(vanishing, Policy())
    assert len(plan.verdicts) == 2


def test_a_manifest_under_a_strange_name_keeps_its_packs(room: Path, store: PruneStore) -> None:
    three(room, store)
    put(store, manifest_name("copy"), store.read(manifest_name(KEYS[0]), limit=1 << 30))
    old = {pack.id for pack in manifest_of(store, KEYS[0]).packs}
    prune_now(store, max_size=0, keep=frozenset({KEYS[2]}))
    assert keys_of(store) == {"copy", KEYS[2]}
    assert old <= packs_of(store)


# Rewriting


def mostly_dead(room: Path, store: PruneStore, *own: bytes) -> tuple[str, Path]:
    """A pack of four big chunks of which a later snapshot needs one; the first is dropped next."""
    shared = os.urandom(BIG)
    first = source(room, FIRST, shared, *(os.urandom(BIG) for _ in range(3)))
    store_tree(store, first, FIRST, threads=1)
    second = source(room, SECOND, shared, *own)
    store_tree(store, second, SECOND)
    [old] = [pack.id for pack in manifest_of(store, FIRST).packs]
    assert old in {pack.id for pack in manifest_of(store, SECOND).packs}
    return old, second


def test_a_pack_that_is_mostly_dead_is_written_anew(room: Path, store: PruneStore) -> None:
    old, second = mostly_dead(room, store)
    before = bytes_of(store)
    plan = plan_prune(store, Policy(keep_last=1))
    assert [pack.id for pack in plan.rewritten] == [old]
    clock = Time()
    report = carry_out(store, plan, clock)
    assert report.rewritten == 1
    assert report.freed == before - bytes_of(store)
    assert abs(report.freed - plan.freed) < 50  # other ids, and a manifest compresses otherwise
    assert old not in packs_of(store)
    assert packs_of(store) == needed_by(store)
    check_sound(store)
    bring(store, room / "there", SECOND)
    assert look(room / "there") == look(second)
    assert not plan_prune(store, Policy()).rewritten


def test_what_was_published_from_a_rewritten_snapshot_reuses_it(
    room: Path, store: PruneStore
) -> None:
    _, second = mostly_dead(room, store)
    prune_now(store, **last(1))
    report = store_tree(store, second, THIRD)
    assert report.reused > MIB
    check_sound(store)


def test_a_damaged_chunk_is_not_moved(room: Path, store: PruneStore) -> None:
    old, _ = mostly_dead(room, store)
    data = bytearray(store.read(pack_name(old), limit=1 << 30))
    data[1000:] = bytes(len(data) - 1000)
    store.replace(pack_name(old), bytes(data))
    report = prune_now(store, **last(1))
    assert report.rewritten == 0
    assert packs_of(store) == needed_by(store)
    assert old in packs_of(store)


def test_a_snapshot_that_is_published_anew_while_packs_are_written_anew_stays_new(
    room: Path,
) -> None:
    store = MemoryStore()
    mostly_dead(room, store)
    new = source(room, "new", b"new" * 500)
    name = manifest_name(SECOND)

    class Busy(Around):
        copied = False

        def around(self, method: str, name_: str, act: Callable[[], Any]) -> Any:
            result = act()
            self.copied |= method == "commit"
            if self.copied and (method, name_) == ("read", name):
                self.copied = False
                store_tree(store, new, SECOND, force=True)
            return result

    prune_now(Busy(store), **last(1))
    check_sound(store)
    bring(store, room / "there", SECOND)
    assert look(room / "there") == look(new)


def test_nothing_is_written_anew_that_relies_on_what_another_prune_condemned(room: Path) -> None:
    store = MemoryStore()
    old, _ = mostly_dead(room, store, os.urandom(BIG))
    manifest = manifest_of(store, SECOND)
    [own] = [pack.id for pack in manifest.packs if pack.id != old]
    put(store, f"{CONDEMNED}/x", json.dumps({"packs": [own]}).encode())
    prune_now(store, **last(1))
    assert manifest_of(store, SECOND).digest == manifest.digest
    assert old in packs_of(store)
    check_sound(store)


def test_without_room_a_mostly_dead_pack_stays_and_the_rest_goes(room: Path) -> None:
    store = MemoryStore()
    old, _ = mostly_dead(room, store)
    orphan(store, A)
    full = FaultyStore(store, {"create": "S*"}, lambda method, name: name.startswith("packs"))
    report = prune_now(full, **last(1))
    assert report.rewritten == 0
    assert "mostly dead" in report.notes[0]
    assert A not in packs_of(store)
    assert old in packs_of(store)
    check_sound(store)


# A full store


def test_a_full_store_can_be_pruned(room: Path) -> None:
    """The room for the list of condemned packs comes from the trash."""
    store = MemoryStore()
    three(room, store)
    put(store, "trash/old", b"x" * 300)
    full = FaultyStore(store, {"replace": "SS.*"}, lambda m, n: bool(list(store.list("trash"))))
    prune_now(full, **last(1))
    assert keys_of(store) == {KEYS[2]}
    assert packs_of(store) == needed_by(store)


def test_a_store_where_a_move_needs_room_can_be_pruned(room: Path) -> None:
    store = MemoryStore()
    three(room, store)
    report = prune_now(FaultyStore(store, {"move": "S*"}), **last(1))
    assert len(report.dropped) == 2
    assert packs_of(store) == needed_by(store)


def test_a_store_that_is_full_at_the_end_of_the_grace_period_can_be_pruned(room: Path) -> None:
    store = MemoryStore()
    three(room, store)
    full = FaultyStore(store, {"replace": ".SS."})
    prune_now(full, Time(renewing=False), **last(1))
    assert packs_of(store) == needed_by(store)


def test_a_store_so_full_that_nothing_can_be_condemned_says_so(store: PruneStore) -> None:
    orphan(store, A)
    with pytest.raises(SpaceExhausted):
        prune_now(FaultyStore(store, {"replace": "S*"}))
    assert packs_of(store) == {A}


# What others left


def lease(store: PruneStore, number: int, beat: int = 1) -> None:
    store.replace(f"leases/k/{number}", b'{"beat": %d}' % beat)


def test_leases_of_the_dead_go_and_those_of_the_living_stay(store: PruneStore) -> None:
    lease(store, 1)
    store.replace("leases/dead/1", b"{}")
    clock, beat = Time(), itertools.count(2)
    clock.hooks.append(lambda: lease(store, 1, next(beat)))
    report = prune_now(store, clock)
    assert report.swept == 1
    assert [info.name for info in store.list("leases")] == ["leases/k/1"]


def test_a_manifest_that_never_came_to_its_place_goes(store: PruneStore) -> None:
    put(store, "incoming/k.1", b"123")
    assert prune_now(store, later=0).swept == 0
    assert prune_now(store).swept == 1
    assert not list(store.list("incoming"))


def test_marks_go_with_their_packs(room: Path, store: PruneStore) -> None:
    three(room, store)
    [needed, *_] = needed_by(store)
    orphan(store, A)
    for pack in (needed, A, B):
        put(store, damaged_name(pack), b"{}")
    prune_now(store)
    assert [info.name for info in store.list("damaged")] == [damaged_name(needed)]


def test_old_records_of_use_go(store: PruneStore) -> None:
    put(store, "uses/k/2026-11-24T14", b"")
    assert prune_now(store).swept == 0
    assert prune_now(store, later=100 * 86_400).swept == 1


def test_use_keeps_a_snapshot(room: Path, store: PruneStore) -> None:
    three(room, store)
    put(store, f"uses/{KEYS[0]}/2026-11-24T14", b"")
    plan = plan_prune(store, Policy(max_size=1), now=time.time() + LATER)
    assert plan.verdicts[0].snapshot.key == KEYS[0]


def test_unfinished_objects_go_when_they_are_old(room: Path) -> None:
    store = LocalStore(room / "store")
    three(room, store)
    for name, age in (("old", 7200), ("new", 60)):
        digit = "1" if name == "old" else "2"
        path = room / "store" / "packs" / f".tmp-host-1-{digit:0>16}"
        path.write_bytes(b"12345")
        os.utime(path, (time.time() - age,) * 2)
    report = prune_now(store)
    assert (report.swept, report.freed) == (1, 5)
    assert [path.name[-1] for path, _ in store.temporaries("")] == ["2"]


def test_what_a_dead_prune_condemned_is_dealt_with(room: Path, store: PruneStore) -> None:
    sources = three(room, store)
    [needed, *_] = needed_by(store)
    orphan(store, A)
    store.replace(f"{CONDEMNED}/x", json.dumps({"packs": [A, needed], "beat": 1}).encode())
    prune_now(store)
    assert not list(store.list(CONDEMNED))
    assert packs_of(store) == needed_by(store)
    assert store_tree(store, sources[KEYS[0]], THIRD).reused > 0


def test_what_a_living_prune_condemned_is_left_to_it(store: PruneStore) -> None:
    orphan(store, A)
    clock, beat = Time(), itertools.count()

    def renew() -> None:
        text = json.dumps({"packs": [B], "beat": next(beat)})
        store.replace(f"{CONDEMNED}/x", text.encode())

    renew()
    orphan(store, B)
    clock.hooks.append(renew)
    clock.hooks.append(lambda: pin(store, B, beat=next(beat)))
    prune_now(store, clock)
    assert packs_of(store) == {B}
    assert len(list(store.list(CONDEMNED))) == 1


def test_an_interrupted_wait_condemns_nothing_any_more(room: Path, store: PruneStore) -> None:
    three(room, store)
    packs = packs_of(store)
    clock = Time()

    def interrupt() -> None:
        if clock.now > 1050:
            raise KeyboardInterrupt

    clock.hooks.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        prune_now(store, clock, **last(1))
    assert keys_of(store) == {KEYS[2]}
    assert packs_of(store) == packs
    assert not list(store.list(CONDEMNED))


# Faults and kills


def littered(room: Path, store: PruneStore) -> None:
    """One of everything that a prune has to do with."""
    mostly_dead(room, store)
    orphan(store, A)
    orphan(store, B)
    put(store, "trash/old", b"x")
    put(store, damaged_name(B), b"{}")
    pin(store, B)
    put(store, "leases/k/1", b"{}")
    put(store, f"{CONDEMNED}/x", json.dumps({"packs": [A]}).encode())
    put(store, "incoming/k.1", b"x")


def states(store: PruneStore) -> dict[str, list[str]]:
    prefixes = ("packs", "trash", "damaged", "pins", "leases", "condemned", "incoming")
    return {prefix: [info.name for info in store.list(prefix)] for prefix in prefixes}


def finished(store: PruneStore) -> None:
    """What a prune to the end leaves of :func:`littered`."""
    check_sound(store)
    assert keys_of(store) == {SECOND}
    assert packs_of(store) == needed_by(store)
    assert all(not names for prefix, names in states(store).items() if prefix != "packs")


@pytest.fixture(scope="module")
def litter(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    store = MemoryStore()
    littered(tmp_path_factory.mktemp("litter"), store)
    return store


def copy_of(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    copy._objects = dict(store._objects)
    return copy


def test_one_of_everything_is_dealt_with(litter: MemoryStore) -> None:
    store = copy_of(litter)
    prune_now(store, **last(1))
    finished(store)


@pytest.mark.parametrize("letter", "EAUS")
@pytest.mark.parametrize("method", METHODS)
def test_a_fault_at_any_store_call(litter: MemoryStore, method: str, letter: str) -> None:
    for call in itertools.count():
        store = copy_of(litter)
        faulty = CountingStore(FaultyStore(store, {method: "." * call + letter}))
        code = 0
        try:
            prune_now(faulty, **last(1))
        except CachepodError as error:
            code = error.exit_code
        assert code in (0, 5, 7)
        check_sound(store)
        prune_now(store, **last(1))
        finished(store)
        if faulty.calls[method] <= call:
            break


def test_a_kill_at_any_store_call(litter: MemoryStore) -> None:
    for call in itertools.count():
        store = copy_of(litter)
        try:
            prune_now(Mortal(store, call), **last(1))
        except Killed:
            check_sound(store)
            prune_now(store, **last(1))
            finished(store)
        else:
            break
    assert call > 40


@pytest.mark.slow
def test_a_kill_at_any_system_call(room: Path) -> None:
    import shutil

    littered(room, LocalStore(room / "litter"))
    shutil.copytree(room / "litter", room / "store")
    kills = 0
    for _ in killed_at_every_call(lambda: prune_now(LocalStore(room / "store"), **last(1))):
        kills += 1
        if kills % 3 == 0:  # reading everything back takes longer than the prune
            check_sound(LocalStore(room / "store"))
            prune_now(LocalStore(room / "store"), **last(1))
            finished(LocalStore(room / "store"))
        shutil.rmtree(room / "store")
        shutil.copytree(room / "litter", room / "store")
    assert kills > 100
