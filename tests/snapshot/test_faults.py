"""Whatever call fails: an error of ours, the old tree or none, and a retry that works."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachepod.errors import (
    CachepodError,
    CorruptObject,
    ObjectMissing,
    SpaceExhausted,
    StoreUnreachable,
    TreeUnreadable,
)
from cachepod.model.layout import MIB
from cachepod.model.names import DAMAGED, PACKS, TRASH, manifest_name
from cachepod.snapshot import publish as publishing
from cachepod.snapshot import restore as restoring
from cachepod.snapshot.damage import set_aside
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.stamp import read_stamp
from cachepod.stores.base import Store, WriteStore, exists
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from cachepod.stores.wrappers import Patience, Retrying
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.faults import failing, short_transfers
from tests.support.mounts import tmpfs
from tests.support.stores import METHODS, CountingStore, FaultyStore
from tests.support.syscalls import PLAUSIBLE, faults
from tests.support.trees import Directory, File, Link, Same, Seen, Sparse, look, make

BIG = os.urandom(MIB + 5000)  # more than a small file
OLD = Directory(
    {
        b"a": File(b"old" * 100),
        b"same": File(b"same" * 100),
        b"big": File(BIG),
        b"d": Directory({b"x": File(b"x", 0o400)}, mode=0o555),
        b"link": Link(b"a"),
    }
)
NEW = Directory(
    {
        b"a": File(b"new" * 100, 0o777),
        b"same": File(b"same" * 100),
        b"big": File(BIG[::-1]),
        b"d": Directory({b"x": File(b"y", 0o400), b"z": Same(b"a")}, mode=0o555),
        b"empty": File(),
        b"sparse": Sparse(MIB // 2, {MIB // 4: b"island"}),
        b"link": Link(b"elsewhere"),
    },
    mode=0o750,
)


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


def left_behind(there: Path) -> set[str]:
    places = (there.parent / f".{there.name}.cachepod", there / ".cachepod" / "work")
    return {path.name for place in places if place.is_dir() for path in place.iterdir()} - {"lock"}


def state_of(there: Path) -> str:
    stamp = read_stamp(there)
    return stamp.state.value if stamp else "none"


def check_error(error: Exception, code: int) -> None:
    if not isinstance(error, CachepodError):
        raise error
    assert error.exit_code in (1, 5, 6, 7), error
    if code in (errno.ENOSPC, errno.EDQUOT):
        assert error.exit_code == 7, error
    assert "\n" not in str(error)


class Problems:
    """What went wrong at which call; all of it is shown, not the first only."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def look_at(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            lines = traceback.format_exc().strip().splitlines()
            self.found.append(f"{what}: " + " | ".join(line.strip() for line in lines[-8:]))

    def end(self) -> None:
        assert not self.found, f"{len(self.found)} problems\n" + "\n".join(self.found[:12])


RESTORE_CALLS = (
    *("open", "write", "pwrite", "ftruncate", "utime", "fchmod", "chmod", "mkdir", "rename"),
    *("replace", "link", "symlink", "unlink", "rmdir", "lstat", "stat", "fstat", "scandir"),
    *("listdir", "statvfs"),
)


@pytest.mark.parametrize("before", ["absent", "old", "mount point"])
@pytest.mark.parametrize("choice", [0, 1, 2])
def test_a_fault_at_any_system_call_of_a_restore(
    room: Path, trees: dict[str, dict[bytes, Seen]], before: str, choice: int
) -> None:
    store = MemoryStore()
    for key in ("old", "new"):
        store_tree(store, room / key, key)
    problems = Problems()
    there = room / "work" / "there"

    def attempt(number: int) -> bool:
        if before != "absent":
            bring(store, there, "old")
        code = 0
        error: Exception | None = None
        warnings: tuple[str, ...] = ()

        def decide(name: str, call: int) -> int:
            nonlocal code
            if call == number:
                code = PLAUSIBLE[name][(choice + call) % len(PLAUSIBLE[name])]
                return code
            return 0

        with faults(RESTORE_CALLS, decide) as calls:
            try:
                warnings = bring(store, there, "new", threads=1).warnings
            except Exception as caught:
                error = caught
        failed_at = f"call {number}, {calls[number] if number < len(calls) else 'none'}, {code}"

        def check() -> None:
            if any("its mode stays" in warning for warning in warnings):
                found = look(there)
                found[b""] = trees["new"][b""]
                assert found == trees["new"], "more is wrong than the root's attributes"
                return
            if error is None:
                assert look(there) == trees["new"], "not the new tree"
            else:
                check_error(error, code)
                if before == "absent":
                    assert not there.exists(), "something is there"
                elif before == "old" or state_of(there) == "complete":
                    assert look(there) == trees["old"], f"not the old tree after {error}"
                else:
                    assert state_of(there) == "filling", "looks complete"
            if calls[number] not in ("unlink", "rmdir", "lstat", "scandir", "chmod"):
                assert not left_behind(there), left_behind(there)
            bring(store, there, "new")
            assert look(there) == trees["new"], "not the new tree on the second try"
            assert bring(store, there, "new").outcome == "confirmed"
            assert not left_behind(there), left_behind(there)

        more = number < len(calls)
        if more:
            problems.look_at(failed_at, check)
        return more

    def run() -> None:
        number = 0
        while attempt(number):
            if before == "mount point":
                for name in os.listdir(there):
                    remove_tree(there / name)
            else:
                remove_tree(there.parent)
            number += 1
        assert number > 30

    if before == "mount point":
        with tmpfs(there, 64 * MIB):
            run()
    else:
        run()
    problems.end()


PUBLISH_CALLS = (
    *("open", "pwrite", "preadv", "pread", "fsync", "link", "unlink", "mkdir", "rename", "replace"),
    *("lstat", "stat", "fstat", "scandir", "readlink"),
)


def names_of(store: LocalStore) -> set[str]:
    """Every object, and every temporary file."""
    objects = {
        info.name for kind in ("packs", "manifests", "incoming") for info in store.list(kind)
    }
    return objects | {str(path) for path, _ in store.temporaries(".")} if objects else set()


def everything_below(place: Path) -> set[str]:
    return {
        str(path.relative_to(place))
        for path in place.rglob("*")
        if path.is_file() and path.exists()
    }


@pytest.mark.parametrize("force", [False, True], ids=["first", "forced"])
@pytest.mark.parametrize("choice", [0, 1])
def test_a_fault_at_any_system_call_of_a_publish(
    room: Path, trees: dict[str, dict[bytes, Seen]], choice: int, force: bool
) -> None:
    """With *force* over a snapshot of the same key, which must be there whatever happens."""
    problems = Problems()
    ready = room / "ready"
    store_tree(LocalStore(ready), room / "old", "old")
    if force:
        store_tree(LocalStore(ready), room / "old", "new")
    before = everything_below(ready)

    def attempt(number: int) -> bool:
        place = room / "store"
        shutil.copytree(ready, place)
        code = 0
        error: Exception | None = None

        def decide(name: str, call: int) -> int:
            nonlocal code
            if call == number:
                code = PLAUSIBLE[name][(choice + call) % len(PLAUSIBLE[name])]
                return code
            return 0

        with faults(PUBLISH_CALLS, decide) as calls:
            try:
                store_tree(LocalStore(place), room / "new", "new", threads=1, force=force)
            except Exception as caught:
                error = caught
        failed_at = f"call {number}, {calls[number] if number < len(calls) else 'none'}, {code}"

        def check() -> None:
            store = LocalStore(place)
            stored = exists(store, manifest_name("new"))
            if error is None:
                assert stored
            else:
                check_error(error, 0)
                if not stored and calls[number] not in ("unlink", "scandir"):
                    left = everything_below(place) - before
                    assert not left, f"{left} is left after {error}"
            bring(store, room / "out-old", "old")
            assert look(room / "out-old") == trees["old"], "the earlier snapshot"
            if stored:
                bring(store, room / "out-new", "new")
                wanted = [trees["new"]] if error is None else [trees["new"], trees["old"]]
                assert look(room / "out-new") in wanted, "the snapshot of the key"
            store_tree(store, room / "new", "new", force=force)
            bring(store, room / "out", "new")
            assert look(room / "out") == trees["new"], "a second try"

        more = number < len(calls)
        if more:
            problems.look_at(failed_at, check)
        for name in ("store", "out", "out-old", "out-new"):
            remove_tree(room / name)
        return more

    number = 0
    while attempt(number):
        number += 1
    assert number > 40
    problems.end()


STORE_LETTERS = "EAUMCS"


@pytest.mark.parametrize("method", [name for name in METHODS if name != "list"])
def test_a_fault_at_any_call_of_the_store_by_a_publish(
    room: Path, trees: dict[str, dict[bytes, Seen]], method: str
) -> None:
    problems = Problems()

    def attempt(letter: str, number: int, force: bool) -> bool:
        place = room / "store"
        store = LocalStore(place)
        store_tree(store, room / "old", "old")
        store_tree(store, room / "old", "new")
        if not force:
            store.delete(manifest_name("new"))
        error: Exception | None = None
        faulty = FaultyStore(store, {method: "." * number + letter})
        counting = CountingStore(faulty)
        try:
            store_tree(counting, room / "new", "new", threads=1, force=force)
        except CachepodError as caught:
            error = caught

        def check() -> None:
            if exists(store, manifest_name("new")):
                bring(store, room / "out", "new")
                wanted = [trees["new"]] if error is None else [trees["new"], trees["old"]]
                assert look(room / "out") in wanted
            else:
                assert error is not None
            bring(store, room / "out", "old")
            assert look(room / "out") == trees["old"]
            store_tree(store, room / "new", "new", force=True)
            bring(store, room / "out", "new")
            assert look(room / "out") == trees["new"]

        problems.look_at(f"{letter} at {method} {number}, force {force}: {error}", check)
        for name in ("store", "out"):
            remove_tree(room / name)
        return counting.calls[method] > number

    for letter in STORE_LETTERS:
        for force in (False, True):
            number = 0
            while attempt(letter, number, force):
                number += 1
    problems.end()


@pytest.mark.parametrize("method", ["read", "read_range"])
@pytest.mark.parametrize("letter", "EUMCX")
def test_a_fault_at_any_call_of_the_store_by_a_restore(
    room: Path, trees: dict[str, dict[bytes, Seen]], method: str, letter: str
) -> None:
    store = MemoryStore()
    for key in ("old", "new"):
        store_tree(store, room / key, key)
    number = 0
    while True:
        bring(store, room / "there", "old")
        counting = CountingStore(FaultyStore(store, {method: "." * number + letter}))
        error: Exception | None = None
        try:
            bring(counting, room / "there", "new", threads=1)
        except CachepodError as caught:
            error = caught
        if counting.calls[method] <= number:
            break
        if error is None:  # a wrong bit on the way, and not in the store
            assert (method, letter) == ("read_range", "X")
            assert look(room / "there") == trees["new"]
        else:
            assert look(room / "there") == trees["old"]
            # What was there is known to be whole still, and nothing is read for it.
            dead = FaultyStore(MemoryStore(), {"read": "U*"})
            assert bring(dead, room / "there", "old").outcome == "confirmed"
        assert not left_behind(room / "there")
        bring(store, room / "there", "new")
        assert look(room / "there") == trees["new"]
        number += 1
    assert number >= (1 if method == "read" else 2)


def test_a_store_that_recovers_is_waited_for(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = MemoryStore()
    for key in ("old", "new"):
        store_tree(store, room / key, key)
    patience = Patience(attempts=3, sleep=lambda seconds: None)
    faulty = Retrying(FaultyStore(store, {"read": "E.", "read_range": "EE.E.X.E"}), patience)
    bring(faulty, room / "there", "new")
    assert look(room / "there") == trees["new"]


def test_a_lost_answer_to_the_commit_costs_no_snapshot(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    """The manifest is there, whatever the store said: its packs must stay."""
    store = LocalStore(room / "store")
    faulty = FaultyStore(store, {"commit": "A"}, only=lambda method, name: "manifests" in name)
    with pytest.raises(StoreUnreachable):
        store_tree(faulty, room / "new", "new")
    bring(store, room / "there", "new")
    assert look(room / "there") == trees["new"]


def test_a_lost_answer_to_a_replacement_costs_no_snapshot(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = LocalStore(room / "store")
    store_tree(store, room / "old", "k")
    with pytest.raises(StoreUnreachable):
        store_tree(FaultyStore(store, {"move": "A"}), room / "new", "k", force=True)
    bring(store, room / "there", "k")
    assert look(room / "there") == trees["new"]
    with pytest.raises(StoreUnreachable):
        store_tree(FaultyStore(store, {"move": "U"}), room / "old", "k", force=True)
    assert not list(store.list("incoming"))
    bring(store, room / "there", "k")
    assert look(room / "there") == trees["new"]


def test_a_winner_that_is_told_it_lost_keeps_its_packs(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    """As by a retry over a network, where the first try had worked."""

    class Forgetful(FaultyStore):
        def around(self, method: str, name: str, act: Callable[[], object]) -> object:
            result = super().around(method, name, act)
            return False if method == "commit" and "manifests" in name else result

    store = LocalStore(room / "store")
    assert store_tree(Forgetful(store, {}), room / "new", "new").outcome == "stored"
    bring(store, room / "there", "new")
    assert look(room / "there") == trees["new"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_during_a_restore_is_called_full(
    room: Path, trees: dict[str, dict[bytes, Seen]], code: int
) -> None:
    store = MemoryStore()
    for key in ("old", "new"):
        store_tree(store, room / key, key)
    bring(store, room / "there", "old")
    for function in ("write", "pwrite"):
        with failing(function, code), pytest.raises(SpaceExhausted) as caught:
            bring(store, room / "there", "new")
        assert caught.value.exit_code == 7
        assert "free some space" in caught.value.hint
        assert look(room / "there") == trees["old"]
        assert not left_behind(room / "there")


@pytest.mark.parametrize("most", [1000, 4097])
def test_short_reads_and_writes_are_continued(
    room: Path, trees: dict[str, dict[bytes, Seen]], most: int
) -> None:
    with short_transfers(most):
        store = LocalStore(room / "store")
        store_tree(store, room / "new", "new")
        bring(store, room / "there", "new")
    assert look(room / "there") == trees["new"]


def test_a_file_system_without_direct_io_is_written_to_all_the_same(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = MemoryStore()
    store_tree(store, room / "new", "new")

    def direct(path: object, flags: int = 0, *rest: object, **more: object) -> bool:
        return bool(flags & os.O_DIRECT)

    with failing("open", errno.EINVAL, calls="A*", when=direct):
        bring(store, room / "there", "new")
    assert look(room / "there") == trees["new"]


def test_a_machine_without_room_for_threads_still_restores_and_publishes(
    room: Path, trees: dict[str, dict[bytes, Seen]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = MemoryStore()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    store_tree(store, room / "new", "new")
    bring(store, room / "there", "new")
    assert look(room / "there") == trees["new"]


# Damage


def biggest_pack(store: Store) -> str:
    return max(store.list(PACKS), key=lambda info: info.size).name


Hurt = Callable[[Path], None]


def flip(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 3)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte[0] ^ 1,)))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def zero(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HURTS: list[Hurt] = [
    *(flip, cut, zero, Path.unlink, become_a_directory, become_a_symlink, become_a_fifo)
]


@pytest.mark.parametrize("hurt", HURTS, ids=lambda hurt: hurt.__name__)
def test_a_damaged_pack_is_set_aside_and_the_next_publish_stores_a_good_one(
    room: Path, trees: dict[str, dict[bytes, Seen]], hurt: Hurt
) -> None:
    store = LocalStore(room / "store")
    store_tree(store, room / "old", "old", threads=1)
    store_tree(store, room / "old", "twin")  # shares its pack
    assert len(list(store.list(PACKS))) == 1
    bring(store, room / "there", "old")
    hurt(room / "store" / biggest_pack(store))
    store = LocalStore(room / "store")  # which has no file open
    with pytest.raises((CorruptObject, ObjectMissing)) as caught:
        bring(store, room / "new place", "old")
    assert caught.value.exit_code == 6
    assert caught.value.name.startswith("packs/")
    assert not (room / "new place").exists()
    assert not left_behind(room / "new place")
    set_aside(store, "old", caught.value)
    assert not exists(store, manifest_name("old"))
    assert len(list(store.list(TRASH))) == 1
    # Not even what a relative says, or the tree's own memory, makes it take the damaged chunks.
    report = store_tree(store, room / "there", "old")
    assert report.outcome == "stored"
    assert report.reused == 0
    bring(store, room / "new place", "old")
    assert look(room / "new place") == trees["old"]
    with pytest.raises((CorruptObject, ObjectMissing)) as again:
        bring(store, room / "twin", "twin")
    set_aside(store, "twin", again.value)
    report = store_tree(store, room / "old", "twin")
    assert report.outcome == "stored"
    assert report.stored_new < 20_000
    bring(store, room / "twin", "twin")
    assert look(room / "twin") == trees["old"]


@pytest.mark.parametrize("hurt", [flip, cut, zero, Path.unlink, become_a_directory])
def test_a_damaged_manifest_is_set_aside_and_stored_again(
    room: Path, trees: dict[str, dict[bytes, Seen]], hurt: Hurt
) -> None:
    store = LocalStore(room / "store")
    store_tree(store, room / "old", "old")
    hurt(room / "store" / manifest_name("old"))
    with pytest.raises(CachepodError) as caught:
        bring(store, room / "there", "old")
    if isinstance(caught.value, CorruptObject):
        set_aside(store, "old", caught.value)
    elif hurt is become_a_directory:
        (room / "store" / manifest_name("old")).rmdir()
    store_tree(store, room / "old", "old")
    bring(store, room / "there", "old")
    assert look(room / "there") == trees["old"]


def test_two_that_set_the_same_aside_do_no_harm(room: Path) -> None:
    store = LocalStore(room / "store")
    store_tree(store, room / "old" if (room / "old").exists() else make(room / "old", OLD), "old")
    error = CorruptObject(biggest_pack(store), "by design")
    set_aside(store, "old", error)
    set_aside(store, "old", error)
    assert len(list(store.list(TRASH))) == 1
    assert len(list(store.list(DAMAGED))) == 1


def test_a_snapshot_that_was_published_anew_is_not_set_aside(room: Path) -> None:
    """A slow reader must not undo what another container has mended meanwhile."""
    store = LocalStore(room / "store")
    store_tree(store, make(room / "old", OLD), "old")
    pack = biggest_pack(store)
    flip(room / "store" / pack)
    error = CorruptObject(pack, "by design")
    set_aside(store, "old", error)
    assert store_tree(store, room / "old", "old").outcome == "stored"
    set_aside(store, "old", error)
    set_aside(store, "old", CorruptObject(manifest_name("old"), "read while it was damaged"))
    bring(store, room / "there", "old")


def test_a_mark_that_cannot_be_written_is_said_so(room: Path) -> None:
    store: WriteStore = MemoryStore()
    store_tree(store, make(room / "old", OLD), "old")
    error = CorruptObject(biggest_pack(store), "by design")
    with pytest.raises(StoreUnreachable):
        set_aside(FaultyStore(store, {"create": "U"}), "old", error)
    assert exists(store, manifest_name("old"))


def test_what_is_damaged_in_memory_only_heals_without_a_word(
    room: Path, trees: dict[str, dict[bytes, Seen]]
) -> None:
    store = MemoryStore()
    store_tree(store, room / "old", "old")
    faulty = FaultyStore(store, {"read_range": "X.X.X"})
    report = bring(faulty, room / "there", "old", threads=1)
    assert report.outcome == "restored"
    assert look(room / "there") == trees["old"]


def test_a_place_below_a_file_is_named(room: Path) -> None:
    store = MemoryStore()
    store_tree(store, make(room / "old", OLD), "old")
    (room / "file").write_bytes(b"")
    with pytest.raises(TreeUnreadable) as caught:
        bring(store, room / "file" / "there", "old")
    assert str(room / "file") in caught.value.message
