"""Snapshots from one store into another."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cachepod.errors import (
    Miss,
    NewerFormat,
    SpaceExhausted,
    StoreUnreachable,
)
from cachepod.model.names import (
    CONDEMNED,
    DAMAGED,
    INCOMING,
    MANIFESTS,
    PACKS,
    PINS,
    damaged_name,
    manifest_name,
    pack_name,
)
from cachepod.snapshot.copy import CopyReport, copy
from cachepod.snapshot.copyplan import plan_copy
from cachepod.snapshot.signing import Trusting
from cachepod.snapshot.verify import verify
from cachepod.stores.base import PruneStore, Store, WriteStore, exists, put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.faults import killed_at_every_call
from tests.support.keys import ed25519_ring
from tests.support.snapshots import fingerprint, manifest_of, publish_files
from tests.support.stores import CountingStore, FaultyStore, SlowStore


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


FILES = {
    "big.bin": noise(1, 9_000_000),
    "zeros": bytes(5_000_000),
    "empty": b"",
    **{f"lib/m{i}.py": b"x = %d\n" % i * 50 for i in range(200)},
}
FIRST, SECOND = fingerprint().key, fingerprint(handler="tts").key


@pytest.fixture(scope="module")
def published() -> MemoryStore:
    store = MemoryStore()
    publish_files(store, fingerprint(), FILES)
    publish_files(store, fingerprint(handler="tts"), {**FILES, "more.bin": noise(2, 6_000_000)})
    return store


@pytest.fixture
def source(published: MemoryStore) -> MemoryStore:
    """Two snapshots that share most of their chunks."""
    store = MemoryStore()
    store._objects.update(published._objects)
    return store


def contents(store: Store) -> dict[str, bytes]:
    """Manifests and packs, byte for byte, and whatever should not be left behind."""
    return {
        info.name: store.read(info.name, limit=1 << 30)
        for prefix in (MANIFESTS, PACKS, INCOMING, PINS, DAMAGED)
        for info in store.list(prefix)
    }


def outcomes(report: CopyReport) -> dict[str, str]:
    return {each.key: each.outcome for each in report.snapshots}


def changed(store: WriteStore, name: str, change: Callable[[bytearray], None]) -> None:
    data = bytearray(store.read(name, limit=1 << 30))
    change(data)
    store.replace(name, bytes(data))


def flip(at: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] ^= 0x40

    return change


def packs_of(store: WriteStore, key: str) -> list[str]:
    return [pack_name(info.id) for info in manifest_of(store, key).packs]


# What is brought


def test_packs_and_manifests_are_taken_over_byte_for_byte(source: MemoryStore) -> None:
    destination = MemoryStore()
    report = copy(source, destination)
    assert outcomes(report) == {FIRST: "copied", SECOND: "copied"}
    assert contents(destination) == contents(source)
    assert report.size == sum(map(len, contents(source).values()))
    assert verify(destination).problems == ()


def test_a_directory_is_copied_as_memory_is(source: MemoryStore, tmp_path: Path) -> None:
    first, second = LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b")
    copy(source, first)
    copy(first, second)
    assert contents(second) == contents(source)


def test_only_the_named_snapshot_is_brought(source: MemoryStore) -> None:
    destination = MemoryStore()
    report = copy(source, destination, [FIRST])
    assert outcomes(report) == {FIRST: "copied"}
    assert set(contents(destination)) == {manifest_name(FIRST), *packs_of(source, FIRST)}


def test_a_second_snapshot_moves_only_what_the_first_did_not_bring(source: MemoryStore) -> None:
    destination = MemoryStore()
    copy(source, destination, [FIRST])
    reading = CountingStore(source)
    report = copy(reading, destination)
    assert outcomes(report) == {FIRST: "present", SECOND: "copied"}
    own = set(packs_of(source, SECOND)) - set(packs_of(source, FIRST))
    assert own
    assert report.packs == len(own)
    assert set(reading.names["read_range"]) == own
    assert report.there == sum(source.size(name) for name in packs_of(source, FIRST))


def test_what_is_there_is_not_moved_again_and_nothing_is_written(source: MemoryStore) -> None:
    destination = MemoryStore()
    copy(source, destination)
    writing = CountingStore(destination)
    report = copy(source, writing)
    assert outcomes(report) == {FIRST: "present", SECOND: "present"}
    assert (report.packs, report.size) == (0, 0)
    assert writing.bytes_written == 0
    assert not writing.calls.keys() & {"create", "replace", "move", "delete"}


def test_an_empty_store_has_nothing_to_copy() -> None:
    assert copy(MemoryStore(), MemoryStore()).snapshots == ()


@pytest.mark.parametrize("keys", [["absent"], [FIRST, "absent"]])
def test_a_key_that_the_source_lacks_is_a_miss_before_anything_is_written(
    source: MemoryStore, keys: list[str]
) -> None:
    destination = MemoryStore()
    with pytest.raises(Miss):
        copy(source, destination, keys)
    assert not destination._objects


def test_another_snapshot_under_the_same_key_stays_unless_forced(source: MemoryStore) -> None:
    destination = MemoryStore()
    publish_files(destination, fingerprint(), {"other": b"content"})
    before = contents(destination)
    report = copy(source, destination, [FIRST])
    assert outcomes(report) == {FIRST: "kept"}
    assert contents(destination) == before
    report = copy(source, destination, [FIRST], force=True)
    assert outcomes(report) == {FIRST: "replaced"}
    assert manifest_of(destination, FIRST).digest == manifest_of(source, FIRST).digest
    assert verify(destination).problems == ()


@pytest.mark.parametrize("at", [0, 30, 60, 200, -1])
def test_a_damaged_manifest_in_the_destination_makes_room(source: MemoryStore, at: int) -> None:
    destination = MemoryStore()
    copy(source, destination)
    changed(destination, manifest_name(FIRST), lambda data: data.__delitem__(slice(-3, None)))
    if at < 80:
        changed(destination, manifest_name(FIRST), flip(at))
    assert outcomes(copy(source, destination))[FIRST] == "replaced"
    assert contents(destination) == contents(source)


def test_a_snapshot_of_a_later_format_is_passed_over_unless_it_was_named(
    source: MemoryStore,
) -> None:
    changed(source, manifest_name(FIRST), lambda data: data.__setitem__(8, 9))
    destination = MemoryStore()
    assert outcomes(copy(source, destination)) == {FIRST: "skipped", SECOND: "copied"}
    with pytest.raises(NewerFormat):
        copy(source, destination, [FIRST])


def test_a_later_format_in_the_destination_is_kept(source: MemoryStore) -> None:
    destination = MemoryStore()
    copy(source, destination)
    changed(destination, manifest_name(FIRST), lambda data: data.__setitem__(8, 9))
    before = contents(destination)
    assert outcomes(copy(source, destination))[FIRST] == "kept"
    assert contents(destination) == before


def test_what_says_the_same_and_is_signed_by_nobody_trusted_is_replaced(
    source: MemoryStore, tmp_path: Path
) -> None:
    old, new = ed25519_ring(tmp_path, 1), ed25519_ring(tmp_path, 2)
    destination = MemoryStore()
    copy(source, destination)
    manifest = manifest_of(source, FIRST)
    for store, ring in ((destination, old), (source, new)):
        store.replace(manifest_name(FIRST), manifest.encode(ring.sign))
    copy(source, destination, [FIRST])
    assert Trusting(destination, old).read(manifest_name(FIRST), limit=1 << 30)
    report = copy(Trusting(source, new), Trusting(destination, new), [FIRST])
    assert outcomes(report) == {FIRST: "replaced"}
    assert contents(destination) == contents(source)
    again = copy(Trusting(source, new), Trusting(destination, new), [FIRST])
    assert outcomes(again) == {FIRST: "present"}


# Healing


def missing(store: MemoryStore, name: str) -> None:
    store.delete(name)


def truncated(store: MemoryStore, name: str) -> None:
    changed(store, name, lambda data: data.__delitem__(slice(len(data) // 2, None)))


def marked(store: MemoryStore, name: str) -> None:
    changed(store, name, flip(500))
    put(store, damaged_name(name.rpartition("/")[2]), b"{}")


@pytest.mark.parametrize("harm", [missing, truncated, marked])
def test_packs_that_are_missing_or_known_to_be_damaged_are_brought(
    source: MemoryStore, harm: Callable[[MemoryStore, str], None]
) -> None:
    destination = MemoryStore()
    copy(source, destination)
    pack = packs_of(source, FIRST)[0]
    harm(destination, pack)
    report = copy(source, destination)
    assert report.packs == 1
    assert outcomes(report)[FIRST] == "healed"
    assert contents(destination) == contents(source)
    assert verify(destination).problems == ()


def test_a_pack_is_replaced_without_a_moment_in_which_it_is_missing(source: MemoryStore) -> None:
    destination = MemoryStore()
    copy(source, destination)
    pack = packs_of(source, FIRST)[0]
    marked(destination, pack)
    writing = CountingStore(destination)
    copy(source, writing)
    assert pack not in writing.names["delete"]
    assert writing.calls["move"] == 1


# Damage in the source


@pytest.mark.parametrize("at", range(9))
def test_damage_is_never_replicated(source: MemoryStore, at: int) -> None:
    """Wherever a bit is wrong in a pack, the copy has none of it, or a pack without the fault."""
    good = contents(source)
    pack = packs_of(source, FIRST)[0]
    size = source.size(pack)
    changed(source, pack, flip(min(size * at // 8, size - 1)))
    destination = MemoryStore()
    report = copy(source, destination)
    for name, data in contents(destination).items():
        assert data == good[name]
    if report.problems:
        assert report.problems[0].name == pack
        assert FIRST in report.problems[0].keys
        assert not exists(destination, manifest_name(FIRST))
    else:
        assert contents(destination) == good


def test_a_damaged_table_is_made_anew_from_the_manifests(source: MemoryStore) -> None:
    good = contents(source)
    for name in packs_of(source, FIRST):
        changed(source, name, flip(-1))
        changed(source, name, flip(-40))
    destination = MemoryStore()
    assert copy(source, destination).problems == ()
    assert contents(destination) == good


@pytest.mark.parametrize("harm", [missing, truncated])
def test_other_snapshots_are_brought_past_a_damaged_one(
    source: MemoryStore, harm: Callable[[MemoryStore, str], None]
) -> None:
    own = set(packs_of(source, SECOND)) - set(packs_of(source, FIRST))
    harm(source, own.pop())
    destination = MemoryStore()
    report = copy(source, destination)
    assert outcomes(report) == {FIRST: "copied", SECOND: "damaged"}
    assert [problem.keys for problem in report.problems] == [(SECOND,)]
    assert verify(destination).problems == ()


def test_a_damaged_manifest_in_the_source_is_a_problem(source: MemoryStore) -> None:
    changed(source, manifest_name(FIRST), flip(-10))
    destination = MemoryStore()
    report = copy(source, destination)
    assert outcomes(report) == {FIRST: "damaged", SECOND: "copied"}
    assert report.problems[0].name == manifest_name(FIRST)


def test_a_chunk_that_is_not_what_its_id_names_is_found_by_a_deep_copy(source: MemoryStore) -> None:
    import dataclasses

    from cachepod.model.pack import StoredChunk, encode_table
    from cachepod.snapshot.packtable import read_table

    manifest = manifest_of(source, FIRST)
    ids = bytearray(manifest.chunks.ids)
    ids[0] ^= 1
    lying = dataclasses.replace(
        manifest, chunks=dataclasses.replace(manifest.chunks, ids=bytes(ids))
    )
    source.replace(manifest_name(FIRST), lying.encode())
    source.delete(manifest_name(SECOND))
    name = pack_name(manifest.packs[manifest.chunks.pack[0]].id)
    data = source.read(name, limit=1 << 30)
    rows = [
        StoredChunk(
            bytes(ids[:32]) if row.id == manifest.chunks.id(0) else row.id,
            *(row.check, row.offset, row.stored, row.raw, row.encoding),
        )
        for row in read_table(lambda at, length: data[at : at + length], name, len(data))
    ]
    source.replace(name, data[: -len(encode_table(rows))] + encode_table(rows))
    assert copy(source, MemoryStore()).problems == ()
    problem = copy(source, MemoryStore(), deep=True).problems[0]
    assert "id" in problem.why


@pytest.mark.parametrize("method", ["read", "read_range"])
@pytest.mark.parametrize("call", range(12))
def test_a_bit_that_is_wrong_on_the_way_only_is_no_damage(
    source: MemoryStore, method: str, call: int
) -> None:
    faulty = FaultyStore(source, {method: "." * call + "X"})
    destination = MemoryStore()
    assert copy(faulty, destination, threads=1).problems == ()
    assert contents(destination) == contents(source)


# Faults


SOURCE_CALLS = ("list", "read", "read_range", "size")
DESTINATION_CALLS = (
    *("list", "read", "read_range", "size"),
    *("create", "write", "commit", "replace", "move", "delete"),
)


def sound(store: PruneStore) -> None:
    """Whatever is committed can be restored."""
    assert verify(store).problems == ()


@pytest.mark.parametrize(
    ("method", "letter"),
    [(method, letter) for method in SOURCE_CALLS for letter in "UAM" if method + letter != "listM"],
)
def test_a_source_that_fails_at_any_call_costs_no_snapshot_and_the_next_copy_goes_on(
    source: MemoryStore, method: str, letter: str
) -> None:
    for call in range(60):
        faulty = FaultyStore(source, {method: "." * call + letter})
        destination = MemoryStore()
        try:
            report = copy(faulty, destination, threads=1)
        except (StoreUnreachable, Miss):
            pass
        else:
            if faulty._calls[method] <= call:
                break
            assert report.problems or contents(destination) == contents(source) or letter == "M"
        sound(destination)
        copy(source, destination)
        assert contents(destination) == contents(source)
    else:
        raise AssertionError("more calls than expected")


@pytest.mark.parametrize("letter", ["U", "A", "S"])
@pytest.mark.parametrize("method", DESTINATION_CALLS)
def test_a_destination_that_fails_at_any_call_stays_sound_and_the_next_copy_goes_on(
    source: MemoryStore, method: str, letter: str
) -> None:
    pack = packs_of(source, FIRST)[0]
    for call in range(60):
        destination = MemoryStore()
        publish_files(destination, fingerprint(), {"other": b"content"})
        destination._objects[pack] = (b"damaged", 0.0)
        faulty = FaultyStore(destination, {method: "." * call + letter})
        with suppress(SpaceExhausted if letter == "S" else StoreUnreachable):
            copy(source, faulty, threads=1, force=True)
        if faulty._calls[method] <= call:
            break
        sound(destination)
        copy(source, destination, force=True)
        found = contents(destination)
        assert {name: found[name] for name in contents(source)} == contents(source), call
    else:
        raise AssertionError("more calls than expected")


@pytest.mark.parametrize("call", range(8))
def test_a_full_destination_is_left_with_nothing_that_no_snapshot_needs(
    source: MemoryStore, call: int
) -> None:
    destination = MemoryStore()
    publish_files(destination, fingerprint(handler="other"), {"other": b"content"})
    before = contents(destination)
    faulty = FaultyStore(destination, {"write": "." * call + "S*"})
    with pytest.raises(SpaceExhausted):
        copy(source, faulty, threads=1)
    sound(destination)
    needed = {
        name
        for info in destination.list(MANIFESTS)
        for name in packs_of(destination, info.name.rpartition("/")[2])
    }
    left = contents(destination)
    assert before.items() <= left.items()
    assert {name for name in left if not name.startswith(MANIFESTS)} == needed
    assert outcomes(copy(source, destination)).keys() == {FIRST, SECOND}
    assert contents(source).items() <= contents(destination).items()


def test_what_another_copy_has_pinned_is_not_cleaned_up(source: MemoryStore) -> None:
    from cachepod.snapshot.pins import hold_pin

    destination = MemoryStore()
    packs = [info.id for info in manifest_of(source, FIRST).packs]
    with hold_pin(destination, period=0) as pin:
        pin.rely_on(packs)
        faulty = FaultyStore(destination, {"commit": "." * len(packs) + "S*"})
        with pytest.raises(SpaceExhausted):
            copy(source, faulty, [FIRST], threads=1)
        assert all(exists(destination, pack_name(pack)) for pack in packs)


def test_an_interrupted_copy_goes_on_where_it_ended(source: MemoryStore) -> None:
    destination = MemoryStore()
    faulty = FaultyStore(destination, {"commit": ".U*"})
    with pytest.raises(StoreUnreachable):
        copy(source, faulty, threads=1)
    there = {info.name for info in destination.list(PACKS)}
    assert there
    reading = CountingStore(source)
    report = copy(reading, destination)
    assert not there & set(reading.names["read_range"])
    assert report.there == sum(source.size(name) for name in there)
    assert contents(destination) == contents(source)


def test_a_copy_killed_anywhere_leaves_a_sound_store_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    source = MemoryStore()
    publish_files(source, fingerprint(), {"a": noise(3, 40_000)})
    publish_files(source, fingerprint(handler="tts"), {"a": noise(3, 40_000), "b": noise(4, 4000)})
    calls = 0
    for call in killed_at_every_call(lambda: copy(source, LocalStore(tmp_path / "now"), threads=1)):
        calls += 1
        destination = LocalStore(tmp_path / "now")
        sound(destination)
        if call % 5 == 0:
            copy(source, destination)
            assert contents(source).items() <= contents(destination).items()
            (tmp_path / "now").rename(tmp_path / f"then-{call}")
    assert calls > 40


# Beside a prune


def condemn(store: WriteStore, *packs: str, beat: float = 0) -> None:
    document = {"packs": [pack.rpartition("/")[2] for pack in packs], "beat": beat}
    store.replace(f"{CONDEMNED}/0123456789abcdef", json.dumps(document).encode())


class Waited:
    """A clock that only sleeping moves; *then* is done after each sleep."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.seconds = 0.0
        self.then = then

    def clock(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.then()


class Pruned(CountingStore):
    """Has a prune at work that, once it was looked for often enough, deletes what it condemned."""

    def __init__(self, store: PruneStore, packs: list[str], looks: int) -> None:
        super().__init__(store)
        self.packs = packs
        self.looks = looks

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        if prefix == CONDEMNED:
            self.looks -= 1
            if self.looks == 0:
                for pack in self.packs:
                    self.store.delete(pack)
                self.store.delete(f"{CONDEMNED}/0123456789abcdef")
        return super().list(prefix)


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_packs_that_a_prune_deletes_meanwhile_are_brought_again(
    source: MemoryStore, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachepod.snapshot.outwait._POLL", 0.01)
    destination = MemoryStore()
    copy(source, destination)
    destination.delete(manifest_name(FIRST))
    destination.delete(manifest_name(SECOND))
    packs = packs_of(source, FIRST)
    condemn(destination, *packs)
    report = copy(source, Pruned(destination, packs, looks))
    assert outcomes(report) == {FIRST: "copied", SECOND: "copied"}
    assert contents(destination) == contents(source)
    assert report.packs == len(packs)


def test_what_a_dead_prune_has_condemned_is_relied_on_after_a_while(source: MemoryStore) -> None:
    destination = MemoryStore()
    copy(source, destination)
    destination.delete(manifest_name(FIRST))
    condemn(destination, *packs_of(source, FIRST))
    waited = Waited()
    report = copy(source, destination, clock=waited.clock, sleep=waited.sleep)
    assert outcomes(report)[FIRST] == "copied"
    assert report.packs == 0
    assert contents(destination).items() >= contents(source).items()
    assert 120 <= waited.seconds < 130


def test_a_prune_that_takes_too_long_leaves_only_what_it_hinders(source: MemoryStore) -> None:
    destination = MemoryStore()
    copy(source, destination)
    for key in (FIRST, SECOND):
        destination.delete(manifest_name(key))
    own = set(packs_of(source, SECOND)) - set(packs_of(source, FIRST))
    condemn(destination, *own)
    waited = Waited(lambda: condemn(destination, *own, beat=waited.seconds))
    report = copy(source, destination, patience=300, clock=waited.clock, sleep=waited.sleep)
    assert outcomes(report) == {FIRST: "copied", SECOND: "busy"}
    assert not exists(destination, manifest_name(SECOND))
    assert 300 <= waited.seconds < 310
    assert not list(destination.list(PINS))


def test_every_pack_is_pinned_before_the_first_is_written(source: MemoryStore) -> None:
    from cachepod.snapshot.pins import read_pins

    destination = MemoryStore()
    seen: list[bool] = []

    class Watching(CountingStore):
        def create(self, name: str):  # type: ignore[no-untyped-def]
            pins = read_pins(destination)
            seen.append(all(any(p.protects(n.rpartition("/")[2]) for p in pins) for n in names))
            return super().create(name)

    names = [name for name in contents(source) if name.startswith(PACKS)]
    copy(source, Watching(destination))
    assert seen
    assert all(seen)
    assert not list(destination.list(PINS))


def test_a_snapshot_that_is_dropped_meanwhile_is_skipped(source: MemoryStore) -> None:
    class Dropping(CountingStore):
        def read_range(self, name: str, offset: int, into: memoryview) -> None:
            for key in (FIRST, SECOND):
                source.delete(manifest_name(key))
            source.delete(name)
            super().read_range(name, offset, into)

    destination = MemoryStore()
    report = copy(Dropping(source), destination, threads=1)
    assert set(outcomes(report).values()) == {"skipped"}
    assert report.problems == ()


# The plan


def test_the_plan_says_what_will_be_moved(source: MemoryStore) -> None:
    destination = MemoryStore()
    copy(source, destination, [FIRST])
    plan = plan_copy(source, destination)
    writing = CountingStore(destination)
    report = copy(source, writing)
    assert plan.size + source.size(manifest_name(SECOND)) == report.size
    assert plan.there == report.there


# Several at once


def test_several_copies_at_once_bring_one_good_copy(source: MemoryStore, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    destination = LocalStore(tmp_path)
    with ThreadPoolExecutor(6) as pool:
        reports = list(pool.map(lambda _: copy(source, destination), range(6)))
    assert not any(report.problems for report in reports)
    assert contents(destination) == contents(source)


def test_a_copy_over_a_slow_link_has_several_reads_on_their_way(source: MemoryStore) -> None:
    class Far(SlowStore):
        parallel_reads = 8

    slow = Far(source, 0.01)
    copy(slow, MemoryStore())
    assert slow.most_at_once > 1
