"""Damage that is repaired from another store, or set aside."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachepod.errors import Miss, SpaceExhausted, StoreUnreachable
from cachepod.model.names import (
    DAMAGED,
    INCOMING,
    MANIFESTS,
    PACKS,
    PINS,
    TRASH,
    damaged_name,
    manifest_name,
    pack_name,
)
from cachepod.snapshot.copy import copy
from cachepod.snapshot.repair import mend, set_aside_damaged
from cachepod.snapshot.verify import verify
from cachepod.stores.base import Store, WriteStore, exists, put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.faults import killed_at_every_call
from tests.support.snapshots import fingerprint, manifest_of, publish_files
from tests.support.stores import CountingStore, FaultyStore


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


FIRST, SECOND, NAMED = fingerprint().key, fingerprint(handler="tts").key, "mine"
FILES = {"a.bin": noise(1, 1_200_000), "b.txt": b"text" * 9000, "empty": b""}


@pytest.fixture(scope="module")
def published() -> MemoryStore:
    store = MemoryStore()
    publish_files(store, fingerprint(), FILES)
    publish_files(store, fingerprint(handler="tts"), {**FILES, "more.bin": noise(2, 60_000)})
    publish_files(store, fingerprint(), {"own": noise(3, 30_000)}, key=NAMED, tree="data")
    return store


def clone(store: MemoryStore) -> MemoryStore:
    new = MemoryStore()
    new._objects.update(store._objects)
    return new


@pytest.fixture
def good(published: MemoryStore) -> MemoryStore:
    return clone(published)


@pytest.fixture
def store(published: MemoryStore) -> MemoryStore:
    """The same snapshots, to be damaged."""
    return clone(published)


def contents(store: Store) -> dict[str, bytes]:
    return {
        info.name: store.read(info.name, limit=1 << 30)
        for prefix in (MANIFESTS, PACKS, INCOMING, PINS, DAMAGED)
        for info in store.list(prefix)
    }


def flipped(store: WriteStore, name: str, at: int = 0) -> None:
    """One wrong bit, in the middle unless *at* says where."""
    at = at or store.size(name) // 2
    data = bytearray(store.read(name, limit=1 << 30))
    data[at % len(data)] ^= 0x10
    store.replace(name, bytes(data))


def truncated(store: WriteStore, name: str) -> None:
    data = store.read(name, limit=1 << 30)
    store.replace(name, data[: len(data) // 2])


def emptied(store: WriteStore, name: str) -> None:
    store.replace(name, b"")


def removed(store: WriteStore, name: str) -> None:
    store.delete(name)


HARM = [flipped, truncated, emptied, removed]
Harm = Callable[[WriteStore, str], None]


def packs_of(store: WriteStore, key: str) -> list[str]:
    """The biggest first."""
    packs = sorted(manifest_of(store, key).packs, key=lambda info: -info.size)
    return [pack_name(info.id) for info in packs]


# Looking quickly


def test_a_quick_look_reads_no_pack(store: MemoryStore) -> None:
    counting = CountingStore(store)
    report = verify(counting, quick=True)
    assert report.problems == ()
    assert report.snapshots == 3
    assert not any(name.startswith(PACKS) for name in counting.names["read_range"])
    assert not any(name.startswith(PACKS) for name in counting.names["read"])
    packs = {info.name for info in store.list(PACKS)}
    assert {name for name in counting.names["size"] if name.startswith(PACKS)} == packs
    assert report.size < sum(store.size(name) for name in packs) / 2


@pytest.mark.parametrize("harm", [truncated, emptied, removed])
def test_a_quick_look_finds_what_is_missing_or_cut_short(store: MemoryStore, harm: Harm) -> None:
    pack = packs_of(store, FIRST)[0]
    harm(store, pack)
    problem = verify(store, quick=True).problems[0]
    assert problem.name == pack
    assert FIRST in problem.keys


def test_a_quick_look_does_not_see_a_wrong_bit_in_a_pack(store: MemoryStore) -> None:
    flipped(store, packs_of(store, FIRST)[0])
    assert verify(store, quick=True).problems == ()
    assert verify(store).problems


def test_a_snapshot_that_is_dropped_while_it_is_verified_is_no_damage(store: MemoryStore) -> None:
    class Pruned(CountingStore):
        def size(self, name: str) -> int:
            if name.startswith(PACKS):
                store.delete(manifest_name(NAMED))
                for pack in own:
                    store.delete(pack)
            return super().size(name)

    own = packs_of(store, NAMED)
    report = verify(Pruned(store), threads=1)
    assert report.problems == ()


# Repair


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_pack_is_brought_from_the_other_store(
    store: MemoryStore, good: MemoryStore, harm: Harm
) -> None:
    pack = packs_of(store, FIRST)[0]
    harm(store, pack)
    report = mend(store, [good])
    assert [each.name for each in report.repaired] == [pack]
    assert [each.name for each in report.found.problems] == [pack]
    assert report.problems == ()
    assert contents(store) == contents(good)


@pytest.mark.parametrize("at", [2, -1, -5, -20, -40])
def test_damage_that_hurts_no_snapshot_is_repaired_too(
    store: MemoryStore, good: MemoryStore, at: int
) -> None:
    pack = packs_of(store, FIRST)[0]
    flipped(store, pack, at)
    report = mend(store, [good])
    assert [each.name for each in report.repaired] == [pack]
    assert contents(store) == contents(good)


@pytest.mark.parametrize("harm", [flipped, truncated, emptied])
def test_a_damaged_manifest_is_brought_from_the_other_store(
    store: MemoryStore, good: MemoryStore, harm: Harm
) -> None:
    harm(store, manifest_name(FIRST))
    report = mend(store, [good])
    assert [each.name for each in report.repaired] == [manifest_name(FIRST)]
    assert report.problems == ()
    assert contents(store) == contents(good)


def test_a_named_snapshot_that_is_not_there_is_brought(
    store: MemoryStore, good: MemoryStore
) -> None:
    removed(store, manifest_name(FIRST))
    removed(store, packs_of(good, FIRST)[0])
    report = mend(store, [good], [FIRST])
    assert manifest_name(FIRST) in [each.name for each in report.repaired]
    assert report.problems == ()
    assert contents(store) == contents(good)


def test_a_snapshot_that_no_store_has_is_a_miss(store: MemoryStore, good: MemoryStore) -> None:
    with pytest.raises(Miss):
        mend(store, [good], ["absent"])


@pytest.mark.parametrize("harm", HARM)
def test_the_second_store_helps_where_the_first_is_damaged_too(
    store: MemoryStore, good: MemoryStore, published: MemoryStore, harm: Harm
) -> None:
    pack = packs_of(good, FIRST)[0]
    flipped(store, pack)
    harm(good, pack)
    assert mend(store, [good, clone(published)]).problems == ()
    assert contents(store) == contents(published)


@pytest.mark.parametrize("harm", HARM)
def test_damage_is_not_brought_from_a_store_that_has_it_too(
    store: MemoryStore, good: MemoryStore, harm: Harm
) -> None:
    pack = packs_of(store, FIRST)[0]
    flipped(store, pack)
    before = contents(store)
    harm(good, pack)
    report = mend(store, [good])
    assert report.repaired == ()
    assert {each.name for each in report.problems} == {pack}
    assert contents(store) == before


def test_the_mark_goes_with_the_damage(store: MemoryStore, good: MemoryStore) -> None:
    pack = packs_of(store, FIRST)[0]
    flipped(store, pack)
    put(store, damaged_name(pack.rpartition("/")[2]), b"{}")
    mend(store, [good])
    assert contents(store) == contents(good)


def test_another_snapshot_of_the_same_computed_key_takes_the_place_of_a_damaged_one(
    store: MemoryStore,
) -> None:
    other = MemoryStore()
    publish_files(other, fingerprint(), FILES)
    flipped(store, packs_of(store, FIRST)[0])
    report = mend(store, [other], [FIRST])
    assert report.problems == ()
    assert manifest_of(store, FIRST).digest == manifest_of(other, FIRST).digest


def test_a_snapshot_under_a_name_of_the_users_own_is_not_replaced_by_another(
    store: MemoryStore,
) -> None:
    other = MemoryStore()
    publish_files(other, fingerprint(), {"own": b"something else"}, key=NAMED, tree="data")
    for pack in packs_of(store, NAMED):
        flipped(store, pack, 100)
    report = mend(store, [other], [NAMED])
    assert report.problems
    assert manifest_of(store, NAMED).digest != manifest_of(other, NAMED).digest


@pytest.mark.parametrize("faults", [{"read": "U*", "read_range": "U*"}, {"size": "U*"}])
def test_a_store_that_cannot_be_read_is_not_taken_for_damaged(
    store: MemoryStore, good: MemoryStore, faults: dict[str, str]
) -> None:
    faulty = FaultyStore(store, faults, lambda method, name: name.startswith(PACKS))
    report = mend(faulty, [good])
    assert report.repaired == ()
    assert all(problem.unreachable for problem in report.problems)
    assert set_aside_damaged(faulty, report.problems) == ()
    assert contents(store) == contents(good)


class Elsewhere(FaultyStore):
    """A store whose URL tells it from the one that is repaired."""

    @property
    def url(self) -> str:
        return "memory:elsewhere"


@pytest.mark.parametrize("method", ["read", "read_range", "size"])
@pytest.mark.parametrize("call", range(6))
def test_a_source_that_fails_is_noted_and_the_next_one_asked(
    store: MemoryStore, good: MemoryStore, method: str, call: int
) -> None:
    for pack in packs_of(store, FIRST):
        flipped(store, pack)
    flipped(store, manifest_name(SECOND))
    failing = Elsewhere(good, {method: "." * call + "U*"})
    assert mend(store, [failing, good]).problems == ()
    assert contents(store) == contents(good)


def test_a_source_that_fails_is_named_for_it_may_have_what_is_missing(
    store: MemoryStore, good: MemoryStore
) -> None:
    flipped(store, packs_of(store, FIRST)[0])
    report = mend(store, [Elsewhere(good, {"read_range": "U*", "read": "U*"})])
    assert report.problems
    assert report.silent == ("memory:elsewhere",)


@pytest.mark.parametrize("letter", ["U", "A", "S"])
@pytest.mark.parametrize("method", ["create", "write", "commit", "replace", "move", "delete"])
def test_a_repair_that_fails_at_any_call_makes_nothing_worse_and_the_next_one_goes_on(
    published: MemoryStore, method: str, letter: str
) -> None:
    good = clone(published)
    for call in range(40):
        store = clone(published)
        for name in contents(store):
            flipped(store, name, 60)
        untouched = contents(store)
        faulty = FaultyStore(store, {method: "." * call + letter})
        with suppress(SpaceExhausted if letter == "S" else StoreUnreachable):
            mend(faulty, [Elsewhere(good, {})])
        if faulty._calls[method] <= call:
            break
        for name, data in contents(store).items():
            if not name.startswith((INCOMING, PINS)):
                assert data in (untouched[name], good.read(name, limit=1 << 30))
        assert mend(store, [good]).problems == ()
        found = contents(store)
        assert {name: found[name] for name in contents(good)} == contents(good)
    else:
        raise AssertionError("more calls than expected")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_repaired_to_the_last_byte(
    published: MemoryStore, data: st.DataObject
) -> None:
    """Whatever objects of one store are damaged in whatever way, while the other is whole."""
    good, store = clone(published), clone(published)
    names = sorted(contents(store))
    for name in data.draw(st.sets(st.sampled_from(names)), label="damaged"):
        size = store.size(name)
        kind = data.draw(st.sampled_from(["flip", "cut", "grow", "remove", "swap"]), label=name)
        if kind == "flip":
            # A manifest whose format is a later one is none of ours to judge.
            first = 12 if name.startswith(MANIFESTS) else 1
            places = st.integers(first, size - 1)
            flipped(store, name, data.draw(places))
        elif kind == "cut":
            kept = data.draw(st.integers(0, size - 1))
            store.replace(name, store.read(name, limit=1 << 30)[:kept])
        elif kind == "grow":
            store.replace(name, store.read(name, limit=1 << 30) + b"more")
        elif kind == "remove":
            store.delete(name)
        else:
            other = data.draw(st.sampled_from(names))
            store.replace(name, good.read(other, limit=1 << 30))
    report = mend(store, [good], [FIRST, SECOND, NAMED])
    assert report.problems == ()
    assert contents(store) == contents(good)
    assert verify(store).problems == ()


# Setting aside


@pytest.mark.parametrize("harm", HARM)
def test_what_stays_damaged_is_set_aside_and_the_next_publish_heals_it(
    store: MemoryStore, harm: Harm
) -> None:
    for pack in packs_of(store, FIRST):
        harm(store, pack)
    problems = mend(store, []).problems
    assert set(set_aside_damaged(store, problems)) == {FIRST, SECOND}
    assert not exists(store, manifest_name(FIRST))
    assert exists(store, manifest_name(NAMED))
    assert len(list(store.list(TRASH))) == 2
    publish_files(store, fingerprint(), FILES)
    assert verify(store).problems == ()
    assert verify(store, [FIRST]).snapshots == 1


def test_a_damaged_manifest_is_set_aside(store: MemoryStore) -> None:
    flipped(store, manifest_name(FIRST))
    assert set_aside_damaged(store, mend(store, []).problems) == (FIRST,)
    assert verify(store).snapshots == 2


def test_damage_that_hurts_no_snapshot_sets_none_aside(store: MemoryStore) -> None:
    flipped(store, packs_of(store, FIRST)[0], -1)
    problems = mend(store, []).problems
    assert problems
    assert set_aside_damaged(store, problems) == ()


def test_a_store_that_cannot_be_written_keeps_its_damage_and_says_so(store: MemoryStore) -> None:
    flipped(store, packs_of(store, FIRST)[0])
    faulty = FaultyStore(store, {"create": "U*", "move": "U*"})
    assert set_aside_damaged(faulty, mend(faulty, []).problems) == ()


def test_what_was_set_aside_is_brought_back_by_a_copy(
    store: MemoryStore, good: MemoryStore
) -> None:
    flipped(store, packs_of(store, FIRST)[0])
    set_aside_damaged(store, mend(store, []).problems)
    assert copy(good, store).problems == ()
    assert contents(store) == contents(good)


def test_a_directory_is_repaired_as_memory_is(good: MemoryStore, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    copy(good, store)
    victims = sorted(
        path for path in tmp_path.rglob("*") if "packs" in path.parts and path.is_file()
    )
    victims[0].write_bytes(b"")
    victims[1].unlink()
    victims[1].symlink_to("/etc/hostname")
    victims[2].unlink()
    assert mend(store, [good]).problems == ()
    assert contents(store) == contents(good)


def test_a_repair_killed_anywhere_makes_nothing_worse_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    good = MemoryStore()
    publish_files(good, fingerprint(), {"a": noise(3, 20_000)})
    sound = contents(good)
    for call in killed_at_every_call(lambda: mend(LocalStore(tmp_path / "now"), [good])):
        store = LocalStore(tmp_path / "now")
        if call:
            for name, data in contents(store).items():
                if not name.startswith((INCOMING, PINS)):
                    assert data in (sound[name], b"damaged")
        if call % 7 == 0:
            if call:
                assert mend(store, [good]).problems == ()
                found = contents(store)
                assert {name: found[name] for name in sound} == sound
            shutil.rmtree(tmp_path / "now", ignore_errors=True)
            copy(good, store)
            for name in sound:
                store.replace(name, b"damaged")
    assert contents(LocalStore(tmp_path / "now")).items() >= sound.items()
