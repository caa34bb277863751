"""A prune by one mount of a real MooseFS, publishes and restores by another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachepod.errors import CorruptObject, Miss, ObjectMissing
from cachepod.model.layout import MIB
from cachepod.snapshot.prune import prune
from cachepod.snapshot.survey import Policy, plan_prune
from cachepod.stores.local import LocalStore
from tests.snapshot.test_concurrent import at_once
from tests.snapshot.test_prune_beside import check_sound_or_gone
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.prunes import (
    Stepper,
    Time,
    check_sound,
    hooked_prunes,
    keys_of,
    packs_of,
    prune_now,
    publishers,
)
from tests.support.trees import Directory, File, look, make

pytestmark = [
    pytest.mark.root,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


SHARED = os.urandom(MIB + 5000)


@pytest.fixture
def hooked() -> Iterator[None]:
    with hooked_prunes():
        yield


@pytest.fixture
def stores(mounts: tuple[Path, Path]) -> tuple[LocalStore, LocalStore]:
    """One store, as two containers have it mounted."""
    return LocalStore(mounts[0] / "store"), LocalStore(mounts[1] / "store")


@pytest.fixture
def trees(room: Path) -> dict[str, Path]:
    """Three that share a chunk."""
    return {
        key: make(room / key, Directory({b"big": File(SHARED), b"own": File(os.urandom(40_000))}))
        for key in ("k0", "k1", "k2")
    }


@pytest.mark.usefixtures("hooked")
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8])
def test_a_restore_on_one_mount_beside_a_prune_on_the_other_brings_the_snapshot_or_finds_none(
    trees: dict[str, Path], stores: tuple[LocalStore, LocalStore], room: Path, steps: int
) -> None:
    here, there = stores
    with publishers(Time(), alive=True):
        store_tree(here, trees["k0"], "k0")
    clock = Time()
    restore = Stepper(there, lambda s: bring(s, room / "back", "k0", threads=1))
    restore.step(steps)
    clock.hooks.append(lambda: clock.now > 1050 and restore.finish())
    prune_now(here, clock, max_size=0)
    restore.finish()
    if restore.error is None:
        assert look(room / "back") == look(trees["k0"])
    else:
        assert isinstance(restore.error, Miss)
    for store in stores:
        assert not keys_of(store)
        assert not packs_of(store)


@pytest.mark.usefixtures("hooked")
@pytest.mark.parametrize("steps", [0, 2, 4, 8, 12, 16])
def test_a_publish_on_one_mount_beside_a_prune_on_the_other_is_whole(
    trees: dict[str, Path], stores: tuple[LocalStore, LocalStore], room: Path, steps: int
) -> None:
    """It may have reused a chunk of what the prune drops."""
    here, there = stores
    clock = Time()
    with publishers(clock, alive=True):
        store_tree(here, trees["k0"], "k0")
        publish = Stepper(there, lambda s: store_tree(s, trees["k1"], "k1", threads=1))
        publish.step(steps)
        clock.hooks.append(lambda: clock.now > 1050 and publish.finish())
        prune_now(here, clock, max_size=0)
        publish.finish()
    assert publish.error is None
    for store in stores:
        check_sound(store)
    if "k1" in keys_of(here):
        bring(here, room / "back", "k1")
        assert look(room / "back") == look(trees["k1"])


@pytest.mark.slow
def test_processes_on_both_mounts_that_publish_restore_and_prune_lose_nothing(
    trees: dict[str, Path], mounts: tuple[Path, Path], room: Path
) -> None:
    """With next to no grace period: publishes do not rely on it, restores may come too late."""
    seen = {key: look(tree) for key, tree in trees.items()}

    def publish(key: str, place: Path) -> Callable[[], int]:
        def act() -> int:
            brought = 0
            for _ in range(15):
                store_tree(LocalStore(place), trees[key], key)
                try:
                    bring(LocalStore(place), room / f"there-{key}", key, force=True)
                except (Miss, ObjectMissing, CorruptObject):
                    continue
                assert look(room / f"there-{key}") == seen[key]
                brought += 1
            (room / f"over-{key}").touch()
            return brought

        return act

    def prune_often(place: Path) -> Callable[[], int]:
        def act() -> int:
            dropped = 0
            while len(list(room.glob("over-*"))) < len(trees):
                store = LocalStore(place)
                plan = plan_prune(store, Policy(max_size=0))
                dropped += len(prune(store, plan, grace=0.05).dropped)
                check_sound_or_gone(store)
            return dropped

        return act

    places = [mount / "store" for mount in mounts]
    publishes = [publish(key, places[number % 2]) for number, key in enumerate(trees)]
    assert all(at_once([*publishes, *map(prune_often, places)]))
    for place in places:
        check_sound(LocalStore(place))
    for key in trees:
        store_tree(LocalStore(places[0]), trees[key], key)
        bring(LocalStore(places[1]), room / "back", key)
        assert look(room / "back") == seen[key]
