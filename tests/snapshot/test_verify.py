from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cachepod.errors import Miss, NewerFormat, StoreUnreachable
from cachepod.model.names import MANIFESTS, PACKS, manifest_name, pack_name
from cachepod.snapshot.progress import NoProgress
from cachepod.snapshot.verify import Problem, VerifyReport, verify
from cachepod.stores.base import WriteStore, put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.snapshots import fingerprint, manifest_of, publish_files
from tests.support.stores import CountingStore, FaultyStore


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


BIG = noise(1, 9_000_000)
FILES = {
    "big.bin": BIG,
    "zeros": bytes(5_000_000),
    "empty": b"",
    **{f"lib/m{i}.py": b"x = %d\n" % i * 50 for i in range(200)},
}


@pytest.fixture(scope="module")
def published() -> MemoryStore:
    store = MemoryStore()
    publish_files(store, fingerprint(), FILES)
    publish_files(store, fingerprint(handler="tts"), {**FILES, "more.bin": noise(2, 6_000_000)})
    return store


@pytest.fixture
def store(published: MemoryStore) -> MemoryStore:
    """Two snapshots that share most of their chunks."""
    store = MemoryStore()
    store._objects.update(published._objects)
    return store


FIRST, SECOND = fingerprint().key, fingerprint(handler="tts").key


def changed(store: WriteStore, name: str, change: Callable[[bytearray], None]) -> None:
    data = bytearray(store.read(name, limit=1 << 30))
    change(data)
    store.delete(name)
    put(store, name, bytes(data))


def flip(at: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] ^= 0x40

    return change


def pack_of(store: WriteStore, key: str, path: bytes) -> tuple[str, int, int]:
    """The pack that holds the first chunk of a file, its offset and its stored size there."""
    manifest = manifest_of(store, key)
    row = list(manifest.entries.paths()).index(path)
    extents, chunks = manifest.extents, manifest.chunks
    at = next(i for i in range(len(extents)) if extents.entry[i] == row and not extents.offset[i])
    chunk = next(i for i in range(len(chunks)) if extents.first[i] <= at < extents.first[i + 1])
    pack = manifest.packs[chunks.pack[chunk]].id
    return pack_name(pack), chunks.offset[chunk], chunks.stored[chunk]


def only(report: VerifyReport) -> Problem:
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_good_snapshots_have_no_problems(store: MemoryStore, threads: int) -> None:
    report = verify(store, threads=threads)
    assert report.problems == ()
    assert report.snapshots == 2
    packs = {info.name for info in store.list(PACKS)}
    assert report.objects == len(packs) + 2
    every = [info.size for prefix in (PACKS, MANIFESTS) for info in store.list(prefix)]
    assert report.size >= sum(every) * 0.999
    assert set(report.phases) == {"manifests", "packs"}


def test_a_shared_chunk_is_read_once(store: MemoryStore) -> None:
    counting = CountingStore(store)
    verify(counting)
    total = sum(info.size for prefix in (PACKS, MANIFESTS) for info in store.list(prefix))
    assert counting.bytes_read < total * 1.01
    assert counting.calls["read_range"] < 60


def test_one_snapshot_is_read_alone(store: MemoryStore) -> None:
    pack, offset, _ = pack_of(store, SECOND, b"more.bin")
    changed(store, pack, flip(offset + 5))
    assert verify(store, [FIRST]).problems == ()
    assert only(verify(store, [SECOND])).keys == (SECOND,)
    assert verify(store, [SECOND, SECOND, FIRST]).snapshots == 2


def test_a_wrong_bit_is_found_wherever_a_chunk_has_it(store: MemoryStore) -> None:
    pack, offset, stored = pack_of(store, FIRST, b"big.bin")
    for at in (offset, offset + stored // 2, offset + stored - 1):
        changed(store, pack, flip(at))
        problem = only(verify(store))
        assert problem.name == pack
        assert problem.keys == (FIRST, SECOND)
        assert str(offset) in problem.why
        changed(store, pack, flip(at))
    assert verify(store).problems == ()


def test_a_wrong_bit_in_a_compressed_chunk_is_found(store: MemoryStore) -> None:
    pack, offset, stored = pack_of(store, FIRST, b"zeros")
    assert stored < 5000
    changed(store, pack, flip(offset + stored // 2))
    assert only(verify(store)).name == pack


def test_several_wrong_chunks_of_a_pack_are_one_problem(store: MemoryStore) -> None:
    pack, offset, stored = pack_of(store, FIRST, b"big.bin")
    changed(store, pack, flip(offset + 1))
    changed(store, pack, flip(offset + stored + 1))
    problem = only(verify(store))
    assert "and 1 more fault" in problem.why


def test_a_missing_pack_names_every_snapshot_that_needs_it(store: MemoryStore) -> None:
    pack, _, _ = pack_of(store, FIRST, b"big.bin")
    store.delete(pack)
    problem = only(verify(store))
    assert problem == Problem(pack, "it is not in the store", (FIRST, SECOND))


def test_a_truncated_pack_hurts_and_what_is_left_is_still_read(store: MemoryStore) -> None:
    pack, offset, stored = pack_of(store, FIRST, b"big.bin")
    size = store.size(pack)

    def cut(data: bytearray) -> None:
        del data[offset + stored + 100 :]

    before = verify(store).chunks
    changed(store, pack, cut)
    report = verify(store)
    problem = only(report)
    assert problem.name == pack
    assert f"instead of {size}" in problem.why
    assert problem.keys == (FIRST, SECOND)
    assert 0 < report.chunks < before


def test_an_emptied_pack_is_a_problem(store: MemoryStore) -> None:
    pack, _, _ = pack_of(store, FIRST, b"big.bin")
    changed(store, pack, bytearray.clear)
    assert only(verify(store)).keys == (FIRST, SECOND)


@pytest.mark.parametrize("at", [2, -1, -5, -20, -40])
def test_damage_that_no_restore_would_meet_hurts_no_snapshot(store: MemoryStore, at: int) -> None:
    """The head of a pack, and the table at its end."""
    pack, _, _ = pack_of(store, FIRST, b"big.bin")
    changed(store, pack, flip(at))
    problem = only(verify(store))
    assert problem.name == pack
    assert problem.keys == ()


def test_a_chunk_that_is_not_the_one_its_id_names_is_found(store: MemoryStore) -> None:
    """Checksums of stored bytes that match, in a manifest that is whole: only the id is wrong."""
    manifest = manifest_of(store, FIRST)
    ids = bytearray(manifest.chunks.ids)
    ids[0] ^= 1
    chunks = dataclasses.replace(manifest.chunks, ids=bytes(ids))
    store.delete(manifest_name(FIRST))
    put(store, manifest_name(FIRST), dataclasses.replace(manifest, chunks=chunks).encode())
    report = verify(store, [FIRST])
    problem = only(report)
    assert "id" in problem.why
    assert problem.keys == (FIRST,)
    assert verify(store, [SECOND]).problems == ()


@pytest.mark.parametrize("at", [0, 20, 60, 100, -1])
def test_a_damaged_manifest_hurts_its_own_snapshot_only(store: MemoryStore, at: int) -> None:
    changed(store, manifest_name(FIRST), flip(at))
    problem = only(verify(store))
    assert problem.name == manifest_name(FIRST)
    assert problem.keys == (FIRST,)
    assert only(verify(store, [FIRST])).keys == (FIRST,)
    assert verify(store, [SECOND]).problems == ()


def later(data: bytearray) -> None:
    data[8] = 9


def test_a_snapshot_of_a_later_format_is_passed_over_unless_it_was_named(
    store: MemoryStore,
) -> None:
    changed(store, manifest_name(FIRST), later)
    report = verify(store)
    assert report.problems == ()
    assert report.skipped == (FIRST,)
    with pytest.raises(NewerFormat):
        verify(store, [FIRST])


def test_a_key_that_is_not_there_is_a_miss(store: MemoryStore) -> None:
    with pytest.raises(Miss):
        verify(store, [FIRST, "absent"])


def test_an_empty_store_is_in_order() -> None:
    report = verify(MemoryStore())
    assert (report.snapshots, report.objects, report.problems) == (0, 0, ())


def test_a_stray_file_among_the_manifests_is_told(store: MemoryStore) -> None:
    put(store, "manifests/stray/file", b"1")
    problem = only(verify(store))
    assert problem.name == "manifests/stray/file"
    assert problem.keys == ()


@pytest.mark.parametrize("read", range(14))
def test_a_bit_that_is_wrong_on_the_way_only_is_no_damage(store: MemoryStore, read: int) -> None:
    faults = {"read_range": "." * read + "X"}
    faulty = FaultyStore(store, faults, lambda method, name: name.startswith(PACKS))
    assert verify(faulty, threads=1).problems == ()


def test_a_part_that_cannot_be_read_is_a_problem_and_the_rest_is_read(store: MemoryStore) -> None:
    pack, _, _ = pack_of(store, FIRST, b"big.bin")
    faulty = FaultyStore(store, {"read_range": "U*"}, lambda method, name: name == pack)
    report = verify(faulty)
    problem = only(report)
    assert "fails by design" in problem.why
    assert problem.keys == (FIRST, SECOND)
    assert report.snapshots == 2


@pytest.mark.parametrize("faults", [{"list": "U"}, {"read": "U*", "read_range": "U*"}])
def test_a_store_of_which_nothing_can_be_read_is_unreachable(
    store: MemoryStore, faults: dict[str, str]
) -> None:
    with pytest.raises(StoreUnreachable):
        verify(FaultyStore(store, faults))


def test_progress_ends_at_what_was_announced(store: MemoryStore) -> None:
    class Told(NoProgress):
        def __init__(self) -> None:
            self.announced: dict[str, tuple[int, int]] = {}
            self.files = self.size = 0

        def phase(self, name: str, *, files: int = 0, size: int = 0) -> None:
            self.announced[name] = (files, size)

        def advance(self, files: int, size: int) -> None:
            self.files += files
            self.size += size

    told = Told()
    verify(store, threads=1, progress=told)
    assert (told.files, told.size) == told.announced["packs"]
    assert told.size > 15_000_000


def test_a_store_on_disk_is_read_and_not_changed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    publish_files(store, fingerprint(), FILES)
    before = sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert verify(store).problems == ()
    assert sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_a_missing_object_in_one_of_many_packs_leaves_the_others_judged(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    keys = [
        publish_files(store, fingerprint(handler=str(i)), {"own": noise(i, 100_000)})
        for i in range(10, 15)
    ]
    os.unlink(tmp_path / pack_of(store, keys[2], b"own")[0])
    report = verify(store)
    assert only(report).keys == (keys[2],)
    assert report.chunks == 4
