"""Signed snapshots and records of use on a real S3 service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachepod.errors import Untrusted
from cachepod.model.names import manifest_name
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.signing import Trusting
from cachepod.snapshot.stats import stats
from cachepod.snapshot.uses import Event, Use, last_used, record, stale
from cachepod.stores.url import open_store
from tests.support.keys import ed25519_ring
from tests.support.s3 import Server
from tests.support.snapshots import fingerprint, write_tree

pytestmark = pytest.mark.usefixtures("credentials")


def test_use_is_recorded_counted_and_swept(moto: Server) -> None:
    store = open_store(moto.url("uses"))
    print_ = fingerprint()
    assert record(store, print_.key, Use(Event.HIT, 4.0, 1000, saved=60.0)) == ""
    assert record(store, print_.key, Use(Event.PUBLISH, 9.0, 500)) == ""
    for _ in range(5):  # left out, and one question each
        assert record(store, print_.key, Use(Event.HIT), chance=lambda: 0.99) == ""
    found = stats(store)
    assert (found.use.hits, found.use.publishes, found.use.saved) == (1, 1, 60.0)
    now = last_used(store)[print_.key]
    assert list(stale(store, now)) == []
    old = list(stale(store, now + 91 * 86_400))
    assert len(old) == 3  # the hour, the hit and the publish
    for name in old:
        store.delete(name)
    assert last_used(store) == {}


def test_a_signed_snapshot_is_restored_and_an_altered_one_refused(
    moto: Server, tmp_path: Path
) -> None:
    ring = ed25519_ring(tmp_path)
    store = open_store(moto.url("signed"))
    one, other = fingerprint(requirement__a="a"), fingerprint(requirement__b="b")
    for print_ in (one, other):
        tree = TreeSource("env", write_tree(tmp_path / print_.key, {"x": os.urandom(100_000)}))
        publish(store, print_.key, print_, [tree], sign=ring.sign)
    target = [Target("env", tmp_path / "there")]
    restore(Trusting(store, ring), one.key, target, check_ids=True, min_free=0.0)
    moved = store.read(manifest_name(other.key), limit=1 << 20)
    store.replace(manifest_name(one.key), moved)
    with pytest.raises(Untrusted):
        restore(Trusting(store, ring), one.key, target, force=True, min_free=0.0)
    assert (tmp_path / "there" / "x").read_bytes() == (tmp_path / one.key / "x").read_bytes()
