"""Publish by one mount of a real MooseFS, restore by another: two containers and their volume."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.errors import SpaceExhausted
from cachepod.model.layout import MIB
from cachepod.model.names import manifest_name
from cachepod.snapshot import publish as publishing
from cachepod.snapshot import restore as restoring
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.verify import verify
from cachepod.stores.base import exists
from cachepod.stores.local import LocalStore
from tests.snapshot.test_faults import NEW, OLD
from tests.snapshot.test_roundtrip import bring, everything, store_tree
from tests.support.cli import wait_until
from tests.support.faults import killed_at_every_call
from tests.support.moosefs import Cluster
from tests.support.trees import Directory, File, look, make

pytestmark = [
    pytest.mark.root,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here writes to a file that was just restored."""
    for module in (publishing, restoring):
        monkeypatch.setattr(module, "outlast", lambda newest: None)


@pytest.fixture
def room() -> Iterator[Path]:
    """The container's own disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        yield Path(name)
        for left in Path(name).iterdir():
            remove_tree(left)


@pytest.fixture
def two(mounts: tuple[Path, Path]) -> tuple[LocalStore, LocalStore]:
    """One store, as two containers have it mounted."""
    return LocalStore(mounts[0] / "store"), LocalStore(mounts[1] / "store")


def test_everything_a_tree_can_hold_comes_back_by_the_other_mount(
    room: Path, two: tuple[LocalStore, LocalStore]
) -> None:
    here, there = two
    make(room / "tree", everything())
    store_tree(here, room / "tree")
    assert bring(there, room / "back").outcome == "restored"
    assert look(room / "back") == look(room / "tree")
    assert bring(here, room / "back").outcome == "confirmed"


def test_a_real_tree_comes_back_by_the_other_mount_and_is_stored_once(
    room: Path, two: tuple[LocalStore, LocalStore]
) -> None:
    here, there = two
    for name in ("email", "json", "unittest", "lib2to3", "encodings"):
        source = Path(sysconfig.get_path("stdlib"), name)
        if source.exists():
            shutil.copytree(source, room / "tree" / name, symlinks=True)
    assert store_tree(here, room / "tree", "one").stored_new > 0
    assert bring(there, room / "back", "one").outcome == "restored"
    assert look(room / "back") == look(room / "tree")
    (room / "back" / "json" / "__init__.py").write_text("# changed\n")
    report = store_tree(there, room / "back", "two")
    assert report.outcome == "stored"
    assert report.stored_new < MIB
    bring(here, room / "tree", "two", force=True)
    assert look(room / "tree") == look(room / "back")
    assert store_tree(there, room / "back", "two").outcome == "present"
    for store in two:
        assert not verify(store, ["one", "two"]).problems


def test_a_tree_may_lie_on_the_volume_itself(
    room: Path, mounts: tuple[Path, Path], two: tuple[LocalStore, LocalStore]
) -> None:
    """Which keeps whole seconds and cannot exchange two directories."""

    def contents(root: Path) -> dict[bytes, bytes]:
        return {path: seen.content for path, seen in look(root).items()}

    for key, tree in (("old", OLD), ("new", NEW)):
        store_tree(two[0], make(room / key, tree), key)
    for key in ("old", "new", "old"):
        bring(two[0], mounts[0] / "tree", key)
        assert contents(mounts[0] / "tree") == contents(room / key)
        # Another mount may know the old directory for a second.
        wait_until(lambda key=key: contents(mounts[1] / "tree") == contents(room / key))
        assert bring(two[0], mounts[0] / "tree", key).outcome == "confirmed"


def test_a_publish_killed_at_any_call_leaves_a_good_store_to_the_other_mount(
    room: Path, mounts: tuple[Path, Path], two: tuple[LocalStore, LocalStore]
) -> None:
    here, there = two
    trees = {key: look(make(room / key, tree)) for key, tree in (("old", OLD), ("new", NEW))}
    store_tree(here, room / "old", "old")
    outcomes: set[bool] = set()
    for call in killed_at_every_call(
        lambda: store_tree(LocalStore(mounts[0] / "store"), room / "new", "new", threads=1)
    ):
        stored = exists(there, manifest_name("new"))
        outcomes.add(stored)
        bring(there, room / "out", "old", force=True)
        assert look(room / "out") == trees["old"], call
        again = store_tree(there, room / "new", "new")
        assert again.outcome == ("present" if stored else "stored"), call
        bring(here, room / "out", "new")
        assert look(room / "out") == trees["new"], call
        there.delete(manifest_name("new"))
        remove_tree(room / "out")
    assert outcomes == {False, True}


def names(store: LocalStore) -> set[str]:
    """Every object, and what a writer left."""
    whole = {info.name for prefix in ("packs", "manifests", "pins") for info in store.list(prefix)}
    return whole | {leftover.name for leftover in store.leftovers()}


def test_a_volume_whose_quota_is_used_up_keeps_what_it_has(
    room: Path, moose: Cluster, mounts: tuple[Path, Path], two: tuple[LocalStore, LocalStore]
) -> None:
    here, there = two
    make(room / "old", OLD)
    big = {b"%d" % number: File(os.urandom(3 * MIB)) for number in range(8)}
    make(room / "big", Directory(big))
    store_tree(here, room / "old", "old")
    before = names(there)
    moose.tool("mfssetquota", "-L", "12Mi", mounts[0])
    with pytest.raises(SpaceExhausted) as caught:
        store_tree(here, room / "big", "big")
    assert caught.value.exit_code == 7
    assert "quota" in caught.value.hint
    assert names(there) == before
    bring(there, room / "out", "old")
    assert look(room / "out") == look(room / "old")
    moose.tool("mfsdelquota", "-L", mounts[0])
    assert store_tree(here, room / "big", "big").outcome == "stored"
    bring(there, room / "out", "big")
    assert look(room / "out") == look(room / "big")
