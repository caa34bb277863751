"""Restores onto what containers and machines have: real file systems, mounted for the test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cachepod.errors import (
    CachepodError,
    ForeignDirectory,
    NotEnoughSpace,
    SpaceExhausted,
    TreeUnreadable,
)
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.stamp import State, read_stamp
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_roundtrip import bring, everything, store_tree
from tests.support.faults import in_a_child
from tests.support.mounts import MIB, bind, image, need_root, overlay, tmpfs
from tests.support.stores import FaultyStore
from tests.support.trees import Directory, File, Link, Same, Seen, look, make

pytestmark = [
    pytest.mark.root,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

#: What the tree of ``everything()`` becomes; the rest of it stays.
OTHER = {
    b"empty": Directory({b"now": File(b"a directory")}),
    b"empty directory": File(b"now a file"),
    b"closed": Directory({b"inside": File(b"x" * 10, 0o400), b"more": File(b"y")}, mode=0o555),
    b"dangling": Link(b"elsewhere"),
    b"to a directory": Directory({b"no": Directory({b"link": File(b"any more")})}),
    b"first name": File(b"not linked any more"),
    b"new": Link(b"first name"),
    b"twice": Same(b"first name"),
    b"big": File(os.urandom(5 * MIB)),
}


class Snapshots:
    """Two related snapshots, ``one`` and ``two``, and the trees they were made from."""

    def __init__(self, room: Path) -> None:
        tree = everything()
        kept = {
            name: node
            for name, node in tree.children.items()
            if name not in (b"second name", b"deep", b"old")
        }
        self.store = MemoryStore()
        make(room / "one", tree)
        make(room / "two", Directory({**kept, **OTHER}, mode=0o750))
        self.trees: dict[str, dict[bytes, Seen]] = {}
        for key in ("one", "two"):
            store_tree(self.store, room / key, key)
            self.trees[key] = look(room / key)

    def check(self, there: Path, key: str, *, seconds: bool = False) -> None:
        """That *there* is *key*, and known to be without a look into the store."""
        found, wanted = look(there), self.trees[key]
        if seconds:
            found, wanted = whole_seconds(found), whole_seconds(wanted)
        found.pop(b"lost+found", None)
        assert found == wanted
        assert bring(unreachable(), there, key).outcome == "confirmed"
        left = [*there.parent.glob(".*.cachepod/*"), *(there / ".cachepod" / "work").glob("*")]
        assert {path.name for path in left} <= {"lock"}


def unreachable() -> FaultyStore:
    """A store of which every call fails."""
    methods = ("read", "read_range", "size", "list", "create", "move", "delete")
    return FaultyStore(MemoryStore(), dict.fromkeys(methods, "U*"))


def whole_seconds(seen: dict[bytes, Seen]) -> dict[bytes, Seen]:
    return {
        path: Seen(it.kind, it.mode, it.mtime // 10**9, it.content, it.xattrs, it.same)
        for path, it in seen.items()
    }


@pytest.fixture(scope="module")
def snapshots() -> Iterator[Snapshots]:
    with tempfile.TemporaryDirectory() as name:
        yield Snapshots(Path(name))
        for tree in Path(name).iterdir():
            remove_tree(tree)


def ext4(place: Path) -> AbstractContextManager[Path]:
    return image(place, "ext4", 256 * MIB, ["-I", "256"])


def ext4_of_whole_seconds(place: Path) -> AbstractContextManager[Path]:
    return image(place, "ext4", 256 * MIB, ["-I", "128"])


def xfs(place: Path) -> AbstractContextManager[Path]:
    return image(place, "xfs", 320 * MIB)


def tmpfs_of_enough(place: Path) -> AbstractContextManager[Path]:
    return tmpfs(place, 256 * MIB)


@contextmanager
def container(place: Path) -> Iterator[Path]:
    """An overlayfs whose lower layer holds what ``place.lower`` does."""
    disk = place.parent / "disk"
    lower = place.parent / "lower"
    lower.mkdir(parents=True, exist_ok=True)
    with ext4(disk), overlay(lower, disk, place):
        yield place


KINDS: list[Callable[[Path], AbstractContextManager[Path]]] = [
    *(ext4, ext4_of_whole_seconds, xfs, tmpfs_of_enough, container)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_restore_is_right_on(
    kind: Callable[[Path], AbstractContextManager[Path]], room: Path, snapshots: Snapshots
) -> None:
    seconds = kind is ext4_of_whole_seconds
    with kind(room / "disk-of-it" / "mount") as mount:
        there = mount / "app" / "there"
        assert bring(snapshots.store, there, "one").outcome == "restored"
        snapshots.check(there, "one", seconds=seconds)
        report = bring(snapshots.store, there, "two")
        assert report.outcome == "updated"
        assert report.written < 20 * MIB
        snapshots.check(there, "two", seconds=seconds)
        assert bring(snapshots.store, there, "one", direct=False).outcome == "updated"
        snapshots.check(there, "one", seconds=seconds)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_restored_there_can_be_published_from(
    kind: Callable[[Path], AbstractContextManager[Path]], room: Path, snapshots: Snapshots
) -> None:
    with kind(room / "disk-of-it" / "mount") as mount:
        there = mount / "there"
        bring(snapshots.store, there, "one")
        report = store_tree(snapshots.store, there, f"again-{kind.__name__}")
        assert report.outcome == "stored"
        assert report.read == 0
        if kind is not ext4_of_whole_seconds:
            bring(snapshots.store, room / "copy", f"again-{kind.__name__}")
            assert look(room / "copy") == snapshots.trees["one"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_mount_point_is_filled_in_place(
    kind: Callable[[Path], AbstractContextManager[Path]], room: Path, snapshots: Snapshots
) -> None:
    seconds = kind is ext4_of_whole_seconds
    with kind(room / "disk-of-it" / "mount") as mount:
        kept = os.stat(mount / "lost+found") if (mount / "lost+found").exists() else None
        assert bring(snapshots.store, mount, "one").outcome == "restored"
        snapshots.check(mount, "one", seconds=seconds)
        assert bring(snapshots.store, mount, "two").outcome == "updated"
        snapshots.check(mount, "two", seconds=seconds)
        bring(snapshots.store, mount, "one", force=True)
        snapshots.check(mount, "one", seconds=seconds)
        if kept is not None:
            assert os.stat(mount / "lost+found").st_ino == kept.st_ino
        assert not list(room.glob("disk-of-it/.*.cachepod"))


def test_a_bind_mount_within_one_file_system_is_filled_in_place(
    room: Path, snapshots: Snapshots
) -> None:
    (room / "real").mkdir()
    with bind(room / "real", room / "there") as there:
        bring(snapshots.store, there, "one")
        snapshots.check(there, "one")
        bring(snapshots.store, there, "two")
        snapshots.check(there, "two")
    assert look(room / "real") == snapshots.trees["two"]


def test_a_tree_in_the_lower_layer_is_filled_in_place(room: Path, snapshots: Snapshots) -> None:
    """An image that was built with a restore in it; renaming what lies there gives EXDEV."""
    image_tree = room / "disk-of-it" / "lower" / "app" / "there"
    bring(snapshots.store, image_tree, "one")
    before = look(image_tree)
    with container(room / "disk-of-it" / "mount") as mount:
        there = mount / "app" / "there"
        assert bring(snapshots.store, there, "two").outcome in ("restored", "updated")
        snapshots.check(there, "two")
        bring(snapshots.store, there, "one")
        snapshots.check(there, "one")
    assert look(image_tree) == before


def test_an_empty_directory_in_the_lower_layer_is_filled_in_place(
    room: Path, snapshots: Snapshots
) -> None:
    (room / "disk-of-it" / "lower" / "app" / "there").mkdir(parents=True)
    with container(room / "disk-of-it" / "mount") as mount:
        there = mount / "app" / "there"
        for key in ("one", "two"):
            bring(snapshots.store, there, key)
            snapshots.check(there, key)


def test_a_foreign_directory_in_the_lower_layer_is_left_alone_but_for_force(
    room: Path, snapshots: Snapshots
) -> None:
    lower = room / "disk-of-it" / "lower"
    make(room / "disk-of-it", Directory())
    make(lower, Directory())
    foreign = make(lower / "there", Directory({b"a": File(b"foreign"), b"d": Directory()}))
    before = look(foreign)
    with container(room / "disk-of-it" / "mount") as mount:
        with pytest.raises(ForeignDirectory):
            bring(snapshots.store, mount / "there", "one")
        assert look(mount / "there") == before
        assert os.listdir(mount) == ["there"]
        bring(snapshots.store, mount / "there", "one", force=True)
        snapshots.check(mount / "there", "one")
    assert look(foreign) == before


def test_an_edit_in_the_second_of_the_restore_is_noticed_where_only_seconds_are_kept(
    room: Path, snapshots: Snapshots
) -> None:
    with ext4_of_whole_seconds(room / "mount") as mount:
        store = MemoryStore()
        source = make(room / "source", Directory({b"f": File(b"good", mtime=10**18)}))
        store_tree(store, source)
        bring(store, mount / "there")
        with open(mount / "there" / "f", "r+b") as file:
            file.write(b"evil")
        os.utime(mount / "there" / "f", ns=(10**18, 10**18))
        assert bring(store, mount / "there").outcome != "confirmed"
        assert (mount / "there" / "f").read_bytes() == b"good"


def test_too_little_space_is_known_before_the_first_byte(room: Path, snapshots: Snapshots) -> None:
    with tmpfs(room / "mount", 24 * MIB) as mount:
        there = mount / "there"
        with pytest.raises(NotEnoughSpace) as caught:
            bring(snapshots.store, there, "one")
        assert caught.value.exit_code == 7
        assert caught.value.needed > caught.value.free > 0
        assert not there.exists()
        assert os.listdir(mount / ".there.cachepod") == ["lock"]


def test_a_tenth_of_the_file_system_stays_free(room: Path, snapshots: Snapshots) -> None:
    needed = sum(len(seen.content) for seen in snapshots.trees["one"].values())
    with tmpfs(room / "mount", needed + 3 * MIB) as mount:
        with pytest.raises(NotEnoughSpace) as caught:
            bring(snapshots.store, mount / "there", "one", min_free=0.1)
        assert "10%" in caught.value.hint
        bring(snapshots.store, mount / "there", "one", min_free=0.01)
        snapshots.check(mount / "there", "one")


def test_each_tree_needs_space_only_where_it_goes(room: Path) -> None:
    from cachepod.snapshot.publish import TreeSource, publish
    from cachepod.snapshot.restore import Target, restore
    from tests.snapshot.test_roundtrip import NOTHING

    store = MemoryStore()
    small = make(room / "small", Directory({b"a": File(b"small")}))
    large = make(room / "large", Directory({b"b": File(os.urandom(8 * MIB))}))
    publish(store, "k", NOTHING, [TreeSource("small", small), TreeSource("large", large)])
    with tmpfs(room / "mount", 2 * MIB) as mount:
        targets = [Target("small", mount / "there"), Target("large", room / "there")]
        restore(store, "k", targets, min_free=0.0)
        assert look(mount / "there") == look(small)
        assert look(room / "there") == look(large)


def test_a_file_system_that_fills_up_on_the_way_keeps_the_old_tree(room: Path) -> None:
    store = MemoryStore()
    old = make(room / "old", Directory({b"a": File(b"old")}))
    many = Directory({b"%d" % number: File(b"new") for number in range(200)})
    new = make(room / "new", many)
    store_tree(store, old, "old")
    store_tree(store, new, "new")
    with tmpfs(room / "mount", 8 * MIB, "nr_inodes=120") as mount:
        bring(store, mount / "there", "old")
        with pytest.raises(SpaceExhausted) as caught:
            bring(store, mount / "there", "new")
        assert caught.value.exit_code == 7
        assert look(mount / "there") == look(old)
        assert os.listdir(mount / ".there.cachepod") == ["lock"]
        assert bring(unreachable(), mount / "there", "old").outcome == "confirmed"


def test_a_full_store_loses_no_earlier_snapshot(room: Path) -> None:
    old = make(room / "old", Directory({b"a": File(os.urandom(MIB))}))
    new = make(room / "new", Directory({b"%d" % n: File(os.urandom(2 * MIB)) for n in range(4)}))
    with tmpfs(room / "mount", 4 * MIB) as mount:
        store = LocalStore(mount / "store")
        store_tree(store, old, "old")
        packs = {info.name for info in store.list("packs")}
        with pytest.raises(SpaceExhausted) as caught:
            store_tree(store, new, "new")
        assert caught.value.exit_code == 7
        assert {info.name for info in store.list("packs")} == packs
        assert not list(store.temporaries("packs"))
        bring(store, room / "there", "old")
        assert look(room / "there") == look(old)


# Without root's powers


def as_nobody(act: Callable[[], object]) -> int:
    """Run *act* in a child that is nobody."""
    need_root()

    def attempt() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        act()

    return in_a_child(attempt)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that others than root can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)
        for left in Path(name).iterdir():
            remove_tree(left)


def test_a_tree_whose_parent_may_not_be_written_to_is_filled_in_place(
    public: Path, snapshots: Snapshots
) -> None:
    need_root("giving a directory to another user")
    there = public / "there"
    there.mkdir()
    os.chown(there, 65534, 65534)

    def restore_twice() -> None:
        for key in ("one", "two", "one"):
            bring(snapshots.store, there, key)
            snapshots.check(there, key)

    assert as_nobody(restore_twice) == 0
    assert os.listdir(public) == ["there"]


def test_closed_trees_are_restored_and_replaced_without_powers(
    public: Path, snapshots: Snapshots
) -> None:
    os.chmod(public, 0o777)
    store = MemoryStore()
    closed = Directory(
        {b"d": Directory({b"e": Directory({b"f": File(b"f", 0o400)}, mode=0o555)}, mode=0o500)},
        mode=0o555,
    )
    store_tree(store, make(public / "closed", closed), "closed")
    store_tree(store, make(public / "open", Directory({b"d": File(b"open")})), "open")
    wanted = {"closed": look(public / "closed"), "open": look(public / "open")}

    def change_often() -> None:
        for key in ("closed", "open", "closed", "open"):
            bring(store, public / "there", key)
            assert look(public / "there") == wanted[key]
            assert bring(unreachable(), public / "there", key).outcome == "confirmed"
        assert os.listdir(public / ".there.cachepod") == ["lock"]

    assert as_nobody(change_often) == 0


def test_files_of_another_owner_are_brought_anew(public: Path, snapshots: Snapshots) -> None:
    """They may not be linked (fs.protected_hardlinks), and are not ours to keep."""
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("this machine lets anybody link any file")
    need_root("giving files to another user")
    os.chmod(public, 0o777)
    store = MemoryStore()
    for key in ("one", "two"):
        tree = {b"same": File(b"same" * 99), b"big": File(b"b" * 2 * MIB), b"f": File(key.encode())}
        store_tree(store, make(public / key, Directory(tree)), key)
    there = public / "there"
    bring(store, there, "one")
    for path in (there, there / ".cachepod", public / ".there.cachepod"):
        os.chown(path, 65534, 65534)
    os.chown(public / ".there.cachepod" / "lock", 65534, 65534)

    def update() -> None:
        report = bring(store, there, "two")
        assert report.written > 2 * MIB
        assert look(there) == look(public / "two")
        assert bring(unreachable(), there, "two").outcome == "confirmed"
        assert os.stat(there / "same").st_uid == 65534

    assert as_nobody(update) == 0


def expect(error: type[CachepodError], act: Callable[[], object]) -> Callable[[], None]:
    def attempt() -> None:
        with pytest.raises(error):
            act()

    return attempt


def test_a_place_that_may_not_be_written_to_is_named(public: Path, snapshots: Snapshots) -> None:
    def attempt() -> None:
        with pytest.raises(TreeUnreadable) as caught:
            bring(snapshots.store, public / "there", "one")
        assert str(public) in caught.value.message

    assert as_nobody(attempt) == 0
    assert os.listdir(public) == []


def test_a_file_that_may_not_be_read_ends_the_publish(public: Path) -> None:
    store = MemoryStore()
    make(public / "source", Directory({b"a": File(b"a"), b"secret": File(b"s", 0o600)}))

    def attempt() -> None:
        with pytest.raises(TreeUnreadable) as caught:
            store_tree(store, public / "source")
        assert caught.value.path.endswith("secret")
        assert not list(store.list("packs"))
        assert not list(store.list("manifests"))

    assert as_nobody(attempt) == 0


def test_a_directory_that_may_not_be_read_ends_the_publish(public: Path) -> None:
    make(public / "source", Directory({b"d": Directory({b"a": File(b"a")}, mode=0o700)}))
    act = expect(TreeUnreadable, lambda: store_tree(MemoryStore(), public / "source"))
    assert as_nobody(act) == 0


def test_a_failed_restore_into_a_mount_point_leaves_it_as_it_was(
    room: Path, snapshots: Snapshots
) -> None:
    with tmpfs(room / "mount", 256 * MIB) as mount:
        bring(snapshots.store, mount, "one")
        faulty = FaultyStore(snapshots.store, {"read_range": ".U*"})
        with pytest.raises(CachepodError):
            bring(faulty, mount, "two")
        assert read_stamp(mount).state == State.COMPLETE  # type: ignore[union-attr]
        snapshots.check(mount, "one")
