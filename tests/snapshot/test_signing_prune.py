"""A prune that writes packs anew signs only what was signed, and only by its own key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachepod.errors import Untrusted
from cachepod.model.layout import MIB
from cachepod.model.names import manifest_name
from cachepod.snapshot.prune import PruneReport, prune
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.signing import Keyring, Trusting
from cachepod.snapshot.survey import Policy, plan_prune
from cachepod.stores.memory import MemoryStore
from tests.support.keys import ed25519_ring, hmac_ring, reading_ring
from tests.support.prunes import Time, check_sound, hooked_prunes
from tests.support.snapshots import fingerprint, write_tree

SECOND = fingerprint(requirement__second="second")
NAME = manifest_name(SECOND.key)
SHARED = os.urandom(MIB + 5000)


def mostly_dead(folder: Path, ring: Keyring | None) -> MemoryStore:
    """A pack that only the snapshot SECOND needs, and little of it; signed if there is a *ring*."""
    store = MemoryStore()
    first = {"0": SHARED, **{f"{n}": os.urandom(MIB + 5000) for n in range(1, 4)}}
    for print_, files in ((fingerprint(), first), (SECOND, {"0": SHARED})):
        tree = TreeSource("env", write_tree(folder / print_.key, files))
        sign = ring.sign if ring else None
        publish(store, print_.key, print_, [tree], threads=1, sign=sign)
    store.delete(manifest_name(fingerprint().key))
    return store


def pruned(store: MemoryStore, ring: Keyring | None) -> tuple[PruneReport, bool]:
    """What a prune did, and whether it left SECOND's manifest as it was."""
    before = store.read(NAME, limit=1 << 20)
    clock = Time()
    with hooked_prunes():
        report = prune(
            store,
            plan_prune(store, Policy(), keyring=ring),
            keyring=ring,
            clock=clock.clock,
            sleep=clock.sleep,
            period=0,
        )
    check_sound(store)
    return report, store.read(NAME, limit=1 << 20) == before


@pytest.mark.parametrize("make", [hmac_ring, ed25519_ring])
def test_what_is_signed_is_signed_anew(make: type, tmp_path: Path) -> None:
    ring: Keyring = make(tmp_path)
    store = mostly_dead(tmp_path, ring)
    report, same = pruned(store, ring)
    assert (report.rewritten, same) == (1, False)
    target = [Target("env", tmp_path / "there")]
    restore(Trusting(store, ring), SECOND.key, target, check_ids=True, min_free=0.0)
    assert (tmp_path / "there" / "0").read_bytes() == SHARED


def test_without_the_key_what_is_signed_stays(tmp_path: Path) -> None:
    store = mostly_dead(tmp_path, ed25519_ring(tmp_path))
    for ring in (None, reading_ring(tmp_path)):
        assert pruned(store, ring) == (PruneReport(), True)


def test_what_a_stranger_signed_is_not_signed_here(tmp_path: Path) -> None:
    store = mostly_dead(tmp_path, ed25519_ring(tmp_path, 1))
    report, same = pruned(store, ed25519_ring(tmp_path, 2))
    assert (report.rewritten, same) == (0, True)


def test_what_was_not_signed_is_not_signed_by_a_prune(tmp_path: Path) -> None:
    store = mostly_dead(tmp_path, None)
    ring = hmac_ring(tmp_path)
    report, same = pruned(store, ring)
    assert (report.rewritten, same) == (1, False)
    with pytest.raises(Untrusted, match="not signed"):
        ring.check(SECOND.key, store.read(NAME, limit=1 << 20), name=NAME)
