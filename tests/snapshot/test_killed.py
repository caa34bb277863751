"""kill -9 at any moment: the old tree, the new one or none, and every snapshot still there."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from cachepod.cli.signals import Interrupted, raise_on_signals
from cachepod.errors import UsageProblem
from cachepod.model.layout import MIB
from cachepod.model.names import manifest_name
from cachepod.snapshot import publish as publishing
from cachepod.snapshot import restore as restoring
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.stamp import Stamp, State, read_stamp, write_stamp
from cachepod.stores.base import exists
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_faults import NEW, OLD, left_behind
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.faults import killed_at_every_call
from tests.support.mounts import tmpfs
from tests.support.stores import FaultyStore, SlowStore
from tests.support.trees import Directory, File, Seen, look, make

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here writes to a file that was just restored."""
    for module in (publishing, restoring):
        monkeypatch.setattr(module, "outlast", lambda newest: None)


@pytest.fixture
def room() -> Iterator[Path]:
    """In memory, for every run here makes its files last."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        yield Path(name)
        for left in Path(name).iterdir():
            remove_tree(left)


@pytest.fixture
def trees(room: Path) -> dict[str, dict[bytes, Seen]]:
    """``old`` and ``new`` as they are beside the test, by name."""
    return {name: look(make(room / name, tree)) for name, tree in (("old", OLD), ("new", NEW))}


@pytest.mark.parametrize("before", ["absent", "old", "mount point"])
def test_a_restore_killed_at_any_call_leaves_the_old_tree_the_new_one_or_none(
    room: Path, trees: dict[str, dict[bytes, Seen]], before: str
) -> None:
    store = MemoryStore()
    for key in ("old", "new"):
        store_tree(store, room / key, key)
    there = room / "work" / "there"
    there.parent.mkdir()
    seen: set[str] = set()

    def prepare() -> None:
        if before == "mount point":
            for name in os.listdir(there):
                remove_tree(there / name)
            os.chmod(there, 0o755)
        else:
            for path in there.parent.iterdir():
                remove_tree(path)
        if before != "absent":
            bring(store, there, "old")

    mounted: AbstractContextManager[object] = nullcontext()
    if before == "mount point":
        mounted = tmpfs(there, 64 * MIB)
    with mounted:
        prepare()
        for call in killed_at_every_call(lambda: bring(store, there, "new", threads=1)):
            stamp = read_stamp(there)
            if stamp is None:
                assert before == "absent", call
                assert not there.exists(), call
                seen.add("none")
            elif stamp.state == State.FILLING:
                assert before == "mount point", call
                seen.add("filling")
                with pytest.raises(UsageProblem):
                    store_tree(store, there, "never")
            else:
                assert stamp.state == State.COMPLETE
                found = look(there)
                if before == "mount point" and stamp.key == "new":
                    found[b""] = trees["new"][b""]  # the mount point's own attributes come last
                assert found == trees[stamp.key], call
                seen.add(stamp.key)
            bring(store, there, "new")
            assert look(there) == trees["new"], call
            assert not left_behind(there), call
            assert bring(store, there, "new").outcome == "confirmed"
            prepare()
        wanted = {"absent": {"none", "new"}, "old": {"old", "new"}}
        assert seen == wanted.get(before, {"old", "filling", "new"})


def test_a_publish_killed_at_any_call_loses_no_snapshot(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    there = room / "there"
    store = LocalStore(room / "store")
    store_tree(store, room / "old", "old")
    outcomes: set[bool] = set()

    def prepare() -> None:
        remove_tree(there)
        bring(store, there, "old")
        (there / "a").unlink()
        (there / "a").write_bytes(b"changed")
        write_stamp(there, Stamp(State.INSTALLED, "new", "data", ""))

    prepare()
    wanted = look(there)
    for call in killed_at_every_call(
        lambda: store_tree(LocalStore(room / "store"), there, "new", threads=1)
    ):
        stored = exists(store, manifest_name("new"))
        outcomes.add(stored)
        bring(store, room / "out-old", "old", force=True)
        assert look(room / "out-old") == trees["old"], call
        if stored:
            bring(store, room / "out", "new")
            assert look(room / "out") == wanted, call
        stamp = read_stamp(there)
        assert stamp is not None
        assert stamp.state in (State.INSTALLED, State.COMPLETE), call
        assert store_tree(store, there, "new").outcome == ("present" if stored else "stored")
        bring(store, there, "new")
        assert look(there) == wanted, call
        remove_tree(room / "out")
        store.delete(manifest_name("new"))
        prepare()
        wanted = look(there)
    assert outcomes == {False, True}


def test_a_replacement_killed_at_any_call_leaves_a_snapshot_of_the_key(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = LocalStore(room / "store")
    store_tree(store, room / "old", "k")
    found: set[int] = set()
    calls = killed_at_every_call(
        lambda: store_tree(LocalStore(room / "store"), room / "new", "k", threads=1, force=True)
    )
    for call in calls:
        bring(store, room / "out", "k", force=True)
        after = look(room / "out")
        assert after in (trees["old"], trees["new"]), call
        found.add(after == trees["new"])
        if after == trees["new"]:
            store_tree(store, room / "old", "k", force=True)
    assert found == {False, True}


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


def start(act: Callable[[], object]) -> int:
    """Run *act* in a child and return its number; it ends with 0, 143 after SIGTERM, else 1."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        raise_on_signals()
        act()
        status = 0
    except Interrupted as interrupted:
        status = interrupted.exit_code
    except BaseException as error:
        os.write(2, f"child: {error!r}\n".encode())
    finally:
        os._exit(status)


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


MANY = Directory(
    {
        **{b"%d" % n: File(os.urandom(300) * 7) for n in range(400)},
        **{b"big %d" % n: File(os.urandom(3 * MIB)) for n in range(4)},
    }
)


@pytest.mark.parametrize("what", ["restore", "publish"])
def test_a_kill_at_a_random_moment_of_threads_at_work(room: Path, what: str) -> None:
    source = make(room / "source", MANY)
    before = look(source)
    store = LocalStore(room / "store")
    store_tree(store, source, "k")
    chance = random.Random(7)

    def act() -> object:
        if what == "restore":
            return bring(LocalStore(room / "store"), room / "there", threads=4)
        return store_tree(LocalStore(room / "store"), source, "new", threads=4)

    started = time.monotonic()
    act()
    lasts = time.monotonic() - started
    for _ in range(15):
        remove_tree(room / "there")
        store.delete(manifest_name("new"))
        child = start(act)
        time.sleep(chance.uniform(0, 1.2) * lasts)
        os.kill(child, signal.SIGKILL)
        end_of(child)
        if (room / "there").exists():
            assert look(room / "there") == before
        bring(store, room / "there")
        assert look(room / "there") == before
        assert not left_behind(room / "there")
        if exists(store, manifest_name("new")):
            bring(store, room / "other", "new", force=True)
            assert look(room / "other") == before


def test_sigterm_during_a_restore_cleans_up(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = MemoryStore()
    for key in ("old", "new"):
        store_tree(store, room / key, key)
    there = room / "there"
    bring(store, there, "old")
    child = start(lambda: bring(SlowStore(store, 0.3), there, "new"))
    wait_for(lambda: bool(left_behind(there)))
    os.kill(child, signal.SIGTERM)
    assert end_of(child) == 143
    assert not left_behind(there)
    assert look(there) == trees["old"]
    assert bring(FaultyStore(MemoryStore(), {"read": "U*"}), there, "old").outcome == "confirmed"


def test_sigterm_during_a_publish_cleans_up(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = LocalStore(room / "store")
    store_tree(store, room / "old", "old")
    packs = {info.name for info in store.list("packs")}
    child = start(lambda: store_tree(SlowStore(store, 0.2), room / "new", "new", threads=2))
    wait_for(lambda: bool(list(store.temporaries("packs"))))
    os.kill(child, signal.SIGTERM)
    assert end_of(child) == 143
    assert {info.name for info in store.list("packs")} == packs
    assert not list(store.temporaries("packs"))
    assert not exists(store, manifest_name("new"))


def test_what_a_killed_restore_left_goes_when_the_tree_is_confirmed(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = MemoryStore()
    store_tree(store, room / "old", "old")
    bring(store, room / "there", "old")
    place = room / ".there.cachepod"
    make(place / "old-99-0a0b0c0d", OLD)
    make(place / "stage-99-0a0b0c0d", NEW)
    assert bring(store, room / "there", "old").outcome == "confirmed"
    assert os.listdir(place) == ["lock"]


def test_a_process_of_the_same_number_that_died_is_not_in_the_way(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    """As in containers, where every hook has the same number; and here the lock cannot be had."""
    store = MemoryStore()
    store_tree(store, room / "old", "old")
    place = room / ".there.cachepod"
    (place / "lock").mkdir(parents=True)
    for name in ("stage", "old"):
        make(place / f"{name}-{os.getpid()}", NEW)
        make(place / f"{name}-{os.getpid()}-00000000", NEW)
    bring(store, room / "there", "old")
    assert look(room / "there") == trees["old"]
