"""Several publishers and restores at once, in processes of their own."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachepod.model.names import manifest_name, pack_name
from cachepod.snapshot.publish import PublishReport
from cachepod.snapshot.restore import RestoreReport
from cachepod.stores.base import exists
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.snapshots import manifest_of
from tests.support.trees import Directory, File, look, make

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def at_once(acts: Sequence[Callable[[], object]]) -> list[Any]:
    """Run each of *acts* in a process of its own, all let go together; what each returned."""
    gate_out, gate_in = os.pipe()
    pipes = []
    for act in acts:
        result_out, result_in = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(gate_in)
                os.read(gate_out, 1)  # until every child is there, and the gate is closed
                with open(result_in, "wb") as pipe:
                    pickle.dump(act(), pipe)
                status = 0
            except BaseException as error:
                os.write(2, f"child: {error!r}\n".encode())
            finally:
                os._exit(status)
        os.close(result_in)
        pipes.append((child, result_out))
    os.close(gate_in)
    os.close(gate_out)
    results = []
    for child, result_out in pipes:
        with open(result_out, "rb") as pipe:
            data = pipe.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        results.append(pickle.loads(data))
    return results


@pytest.fixture
def source(room: Path) -> Path:
    tree = {b"%d" % n: File(os.urandom(900)) for n in range(60)}
    return make(room / "source", Directory({**tree, b"big": File(os.urandom(5_000_000))}))


@pytest.mark.parametrize("count", [2, 4])
def test_publishers_of_one_key_all_succeed_and_leave_one_good_snapshot(
    room: Path, source: Path, count: int
) -> None:
    reports: list[PublishReport] = at_once(
        [lambda: store_tree(LocalStore(room / "store"), source)] * count
    )
    outcomes = sorted(report.outcome for report in reports)
    assert outcomes.count("stored") == 1
    assert set(outcomes) <= {"stored", "lost", "present"}
    store = LocalStore(room / "store")
    needed = {pack_name(pack.id) for pack in manifest_of(store, "k").packs}
    assert {info.name for info in store.list("packs")} == needed
    assert not list(store.temporaries("packs"))
    assert not list(store.temporaries("manifests"))
    bring(store, room / "there")
    assert look(room / "there") == look(source)


def test_publishers_of_different_trees_of_one_key_leave_one_of_them(room: Path) -> None:
    trees = [make(room / f"tree{n}", Directory({b"f": File(b"%d" % n * 9000)})) for n in range(4)]
    reports: list[PublishReport] = at_once(
        [lambda tree=tree: store_tree(LocalStore(room / "store"), tree) for tree in trees]  # type: ignore[misc]
    )
    assert [report.outcome for report in reports].count("stored") == 1
    bring(LocalStore(room / "store"), room / "there")
    winner = next(n for n, report in enumerate(reports) if report.outcome == "stored")
    assert look(room / "there") == look(trees[winner])


def test_publishers_of_related_keys_do_not_disturb_each_other(room: Path, source: Path) -> None:
    store = LocalStore(room / "store")
    store_tree(store, source, "base")
    at_once([lambda n=n: store_tree(LocalStore(room / "store"), source, f"k{n}") for n in range(4)])  # type: ignore[misc]
    for n in range(4):
        bring(store, room / f"there{n}", f"k{n}")
        assert look(room / f"there{n}") == look(source)


def test_restores_to_one_place_all_succeed(room: Path, source: Path) -> None:
    store_tree(LocalStore(room / "store"), source)
    reports: list[RestoreReport] = at_once(
        [lambda: bring(LocalStore(room / "store"), room / "there")] * 4
    )
    assert sorted(report.outcome for report in reports) == ["confirmed"] * 3 + ["restored"]
    assert look(room / "there") == look(source)
    assert os.listdir(room / ".there.cachepod") == ["lock"]


def test_restores_of_different_snapshots_to_one_place_leave_one_of_them(room: Path) -> None:
    store = LocalStore(room / "store")
    seen = {}
    for n in range(4):
        tree = {b"%d" % i: File(b"%d of %d" % (i, n) * 100) for i in range(50)}
        seen[f"k{n}"] = look(make(room / f"tree{n}", Directory(tree)))
        store_tree(store, room / f"tree{n}", f"k{n}")

    def restore_often(key: str) -> Callable[[], None]:
        def act() -> None:
            for _ in range(5):
                bring(LocalStore(room / "store"), room / "there", key)

        return act

    at_once([restore_often(key) for key in seen])
    assert look(room / "there") in seen.values()
    assert os.listdir(room / ".there.cachepod") == ["lock"]


def test_a_tree_that_another_restore_puts_there_at_this_moment_is_ours(
    room: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    store_tree(store, source)
    original = os.listdir

    def listdir(path: object = ".") -> list[str]:
        if path == room / "there":
            monkeypatch.undo()
            bring(store, room / "there")
        return original(path)  # type: ignore[arg-type,return-value,call-overload]

    monkeypatch.setattr(os, "listdir", listdir)
    assert bring(store, room / "there").outcome == "confirmed"


def test_threads_of_one_process_restore_to_one_place(room: Path, source: Path) -> None:
    store = MemoryStore()
    store_tree(store, source)
    outcomes: list[str] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(bring(store, room / "there").outcome))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["confirmed"] * 3 + ["restored"]


def test_a_restore_while_the_snapshot_is_replaced_brings_one_of_the_two(room: Path) -> None:
    store = LocalStore(room / "store")
    sources = [
        make(room / f"s{n}", Directory({b"%d" % i: File(os.urandom(5000)) for i in range(30)}))
        for n in range(2)
    ]
    seen = [look(source) for source in sources]
    store_tree(store, sources[0])

    def replace_often() -> None:
        for turn in range(12):
            store_tree(LocalStore(room / "store"), sources[turn % 2], force=True)
        (room / "over").touch()

    def restore_often(number: int) -> Callable[[], int]:
        def act() -> int:
            count = 0
            there = room / f"there{number}"
            while not (room / "over").exists():
                bring(LocalStore(room / "store"), there, force=bool(count % 2))
                assert look(there) in seen
                count += 1
            return count

        return act

    counts = at_once([replace_often, restore_often(1), restore_often(2)])
    assert min(counts[1:]) > 0
    assert exists(store, manifest_name("k"))


def test_a_publish_that_relies_on_a_snapshot_survives_its_being_set_aside(
    room: Path, source: Path
) -> None:
    """Nothing but a prune deletes packs, so those of a snapshot in the trash are still there."""
    from cachepod.errors import CorruptObject
    from cachepod.snapshot.damage import set_aside

    store = LocalStore(room / "store")
    store_tree(store, source, "first")
    assert store_tree(store, source, "second").read > 0
    manifest = room / "store" / manifest_name("first")
    manifest.write_bytes(manifest.read_bytes()[:-1])
    set_aside(store, "first", CorruptObject(manifest_name("first"), "by design"))
    assert not exists(store, manifest_name("first"))
    bring(store, room / "there", "second")
    assert look(room / "there") == look(source)
