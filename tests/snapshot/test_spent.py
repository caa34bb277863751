"""Profiles: every second of every thread has a kind, and what is counted is what was done."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from cachepod.errors import CorruptObject
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.layout import MIB
from cachepod.model.names import PACKS
from cachepod.snapshot.publish import PublishReport, TreeSource, publish
from cachepod.snapshot.restore import RestoreReport, Target, restore
from cachepod.snapshot.spent import DECODE, IDLE, KINDS, PYTHON, READ, Profile, Spent
from cachepod.stores.base import PruneStore
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.snapshots import write_tree
from tests.support.stores import Around, FaultyStore

#: Nothing twice, for what is there twice is stored once; compressible, so that it is decoded.
FILES = {
    "big": os.urandom(5 * MIB) + bytes(4 * MIB),
    **{f"d/small{number}": f"{number} ".encode() * 300 for number in range(200)},
    "d/link@": b"small0",
    "empty": b"",
}
PLAIN = sum(len(data) for name, data in FILES.items() if not name.endswith("@"))


class Remote(Around):
    """A store that rewards several reads at once."""

    @property
    def parallel_reads(self) -> int:
        return 3


def stored(store: PruneStore, room: Path) -> PublishReport:
    root = write_tree(room / "source", FILES)
    return publish(store, "k", Fingerprint("trees", {}), [TreeSource("data", root)], threads=2)


def brought(store: PruneStore, root: Path, **options: bool) -> RestoreReport:
    return restore(store, "k", [Target("data", root)], threads=3, min_free=0.0, **options)


def check_sum(profile: Profile) -> None:
    """Two clocks were read apart from the laps: at the ends, and around the workers."""
    threads = profile.threads + profile.readers
    whole = profile.wall - profile.parallel + profile.parallel * threads
    assert sum(kind.seconds for kind in profile.kinds.values()) == pytest.approx(whole, rel=1e-6)
    assert all(kind.seconds > 0 and kind.cpu >= 0 for kind in profile.kinds.values())
    assert all(kind.cpu <= kind.seconds + 0.02 for kind in profile.kinds.values())
    assert list(profile.kinds) == [kind for kind in KINDS if kind in profile.kinds]


def test_the_kinds_of_a_restore_add_up_to_the_time_of_its_threads(room: Path) -> None:
    store = LocalStore(room / "store")
    stored(store, room)
    before = time.process_time()
    profile = brought(store, room / "there").profile
    cpu = time.process_time() - before
    assert profile is not None
    check_sum(profile)
    assert (profile.threads, profile.readers) == (2, 0)  # there are two jobs
    assert sum(kind.cpu for kind in profile.kinds.values()) <= cpu
    assert set(profile.kinds) >= {READ, "hash", DECODE, "write", "create", "swap", PYTHON}


def test_what_a_restore_decodes_and_writes_is_the_tree(room: Path) -> None:
    store = MemoryStore()
    published = stored(store, room)
    report = brought(store, room / "there")
    assert report.profile is not None
    kinds = report.profile.kinds
    assert kinds[DECODE].size == kinds["write"].size == PLAIN == published.size
    assert kinds[READ].size == report.read
    files = len([name for name in FILES if not name.endswith("@")])
    assert kinds["create"].calls == files + 2 + 1  # two directories, one link


def test_readers_ahead_are_told_apart_from_workers_and_the_wait_for_them_has_a_name(
    room: Path,
) -> None:
    store = Remote(MemoryStore())
    stored(store, room)
    report = brought(store, room / "there")
    profile = report.profile
    assert profile is not None
    check_sum(profile)
    assert (profile.threads, profile.readers) == (2, 3)
    assert profile.kinds["wait"].calls == profile.kinds[READ].calls - 1  # but for the manifest
    assert profile.kinds[READ].size == report.read
    assert profile.kinds[IDLE].seconds > 0


def test_checking_what_a_chunk_holds_counts_as_hashing(room: Path) -> None:
    store = MemoryStore()
    stored(store, room)
    plain, checked = (
        brought(store, room / name, check_ids=check).profile
        for name, check in (("plain", False), ("checked", True))
    )
    assert plain is not None
    assert checked is not None
    assert checked.kinds["hash"].size == plain.kinds["hash"].size + PLAIN


def test_the_kinds_of_a_publish_add_up_and_count_what_was_read_and_stored(room: Path) -> None:
    report = stored(LocalStore(room / "store"), room)
    profile = report.profile
    assert profile is not None
    check_sum(profile)
    kinds = profile.kinds
    assert profile.threads == 1  # so little is new that one worker does it
    assert kinds[READ].size == kinds["compress"].size == report.read == PLAIN
    assert kinds["hash"].size == PLAIN + kinds["write"].size
    assert 0 < kinds["write"].size < report.stored_new  # the tables and the manifest come to it
    assert kinds["scan"].calls == len(FILES) + 2  # the root and one directory
    assert kinds["commit"].calls >= 2  # a pack at least, and the manifest


def test_what_did_nothing_has_no_profile(room: Path) -> None:
    store = LocalStore(room / "store")
    stored(store, room)
    brought(store, room / "there")
    report = brought(store, room / "there")
    assert (report.outcome, report.profile) == ("confirmed", None)
    again = publish(store, "k", Fingerprint("trees", {}), [TreeSource("data", room / "source")])
    assert (again.outcome, again.profile) == ("present", None)


def test_bytes_that_are_read_once_more_count_twice(room: Path) -> None:
    inner = MemoryStore()
    stored(inner, room)
    in_packs = lambda _, name: name.startswith(PACKS)  # noqa: E731
    store = FaultyStore(inner, {"read_range": "X"}, in_packs)
    report = brought(store, room / "there")
    profile = report.profile
    assert profile is not None
    check_sum(profile)
    assert report.read < profile.kinds[READ].size
    assert profile.kinds[DECODE].size == PLAIN


def test_a_restore_that_fails_fails_as_it_does_without(room: Path) -> None:
    inner = MemoryStore()
    stored(inner, room)
    for store in (inner, Remote(inner)):
        damaged = FaultyStore(store, {"read_range": "C*"})
        with pytest.raises(CorruptObject):
            brought(damaged, room / "there")
        assert not (room / "there").exists()
    check_sum_after = brought(inner, room / "there").profile
    assert check_sum_after is not None


def test_the_cpu_time_of_many_small_files_is_shared_out_whole() -> None:
    spent = Spent()
    watch = spent.main
    before = time.thread_time()
    for _ in range(4):
        watch.lap("python")
        for number in range(32):
            sum(range(30_000))  # some hundred microseconds to create it, and as many to write it
            length = 100_000 if number % 3 == 1 else 7
            if watch.looks_at(number, length):
                watch.write_begins()
                sum(range(30_000))
                watch.write_ends(length)
            else:
                sum(range(30_000))
        watch.files_end(32, 700, 0.001)
    profile = spent.end()
    used = time.thread_time() - before
    told = sum(kind.cpu for kind in profile.kinds.values())
    assert told == pytest.approx(used, rel=0.2)
    assert profile.kinds["create"].cpu == pytest.approx(profile.kinds["write"].cpu, rel=0.4)
    assert (profile.kinds["write"].size, profile.kinds["write"].calls) == (2800, 128)
    assert profile.kinds["write"].seconds == pytest.approx(0.004)


def test_a_thread_that_comes_late_or_is_stuck_is_idle_for_the_rest() -> None:
    spent = Spent()
    release = threading.Event()

    def stuck() -> None:
        spent.watch(ahead=True)
        release.wait()

    with spent.in_parallel():
        watch = spent.watch()
        thread = threading.Thread(target=stuck)
        thread.start()
        watch.lap("decode")
        watch.close()
        time.sleep(0.05)
    with spent.in_parallel():  # with fewer threads than before
        time.sleep(0.05)
    profile = spent.end()
    release.set()
    thread.join()
    check_sum(profile)
    assert profile.kinds[IDLE].seconds == pytest.approx(2 * profile.parallel, rel=0.5)
