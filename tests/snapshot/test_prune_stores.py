"""A prune of stores across a network: S3 services, and a MooseFS that is mounted twice."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from cachepod.model.names import MANIFESTS
from cachepod.snapshot.prune import prune
from cachepod.snapshot.survey import Policy, plan_prune
from cachepod.stores.base import PruneStore
from cachepod.stores.local import LocalStore
from cachepod.stores.url import open_store
from tests.snapshot.test_concurrent import at_once
from tests.snapshot.test_prune import finished, littered
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.prunes import Killed, Mortal, check_sound, keys_of, prune_now
from tests.support.s3 import Server
from tests.support.stores import CountingStore, SlowStore
from tests.support.trees import Directory, File, look, make

pytestmark = pytest.mark.usefixtures("credentials")
_numbers = itertools.count()


@pytest.fixture(params=["moto", "rclone"])
def store(request: pytest.FixtureRequest) -> PruneStore:
    server: Server = request.getfixturevalue(request.param)
    return open_store(server.url(f"prune-{next(_numbers)}"))


def test_one_of_everything_is_dealt_with_on_s3(room: Path, store: PruneStore) -> None:
    littered(room, store)
    prune_now(store, keep_last=1)
    finished(store)


def test_a_killed_prune_of_a_s3_store_is_finished_by_the_next(
    room: Path, store: PruneStore
) -> None:
    littered(room, store)
    for call in (30, 25, 20):  # each time there is less left to do
        with pytest.raises(Killed):
            prune_now(Mortal(store, call), keep_last=1)
        check_sound(store)
    prune_now(store, keep_last=1)
    finished(store)


def test_manifests_are_read_several_at_a_time_where_that_pays(room: Path) -> None:
    class Remote(SlowStore):
        parallel_reads = 8  # type: ignore[assignment]

    local = LocalStore(room / "store")
    tree = make(room / "tree", Directory({b"f": File(b"content")}))
    store_tree(local, tree, "k0")
    manifest = local.read(next(iter(local.list(MANIFESTS))).name, limit=99_999)
    for number in range(1, 30):
        local.replace(f"{MANIFESTS}/named/copy{number}", manifest)
    slow = Remote(local, 0.002)
    plan_prune(slow, Policy())
    assert slow.most_at_once > 2


def test_what_a_prune_asks_of_a_store_does_not_grow_with_its_packs(room: Path) -> None:
    """But for the deletions themselves, and one small read of each manifest."""
    from tests.support.prunes import orphan

    calls = []
    for number in (1, 40):
        store = CountingStore(LocalStore(room / f"store{number}"))
        tree = make(room / f"tree{number}", Directory({b"f": File(b"content")}))
        store_tree(store, tree, "k")
        for pack in range(number):
            orphan(store, f"{pack:032x}")
        store.reset()
        prune_now(store)
        calls.append(sum(store.calls.values()) - store.calls["delete"])
    assert calls[0] == calls[1]


@pytest.mark.root
@pytest.mark.slow
def test_on_a_moosefs_one_mount_prunes_while_the_other_publishes(
    room: Path, mounts: tuple[Path, Path]
) -> None:
    here, there = (LocalStore(place / "store") for place in mounts)
    trees = [
        make(room / f"tree{n}", Directory({b"own": File(os.urandom(20_000)), b"s": File(b"s")}))
        for n in range(6)
    ]
    seen = [look(tree) for tree in trees]

    def publish_all() -> int:
        for number, tree in enumerate(trees):
            store_tree(there, tree, f"k{number}")
        return len(trees)

    def prune_often() -> int:
        for _ in range(4):
            prune(here, plan_prune(here, Policy(max_size=10**9)), grace=0.2)
        return 1

    at_once([publish_all, prune_often])
    assert keys_of(here) == {f"k{number}" for number in range(6)}
    check_sound(here)
    bring(here, room / "there", "k3")
    assert look(room / "there") == seen[3]
