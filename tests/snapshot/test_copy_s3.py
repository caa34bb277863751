"""Snapshots between directories and real S3 services, as between two data centres."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.errors import StoreUnreachable
from cachepod.model.names import INCOMING, LEASES, MANIFESTS, PACKS, PINS
from cachepod.snapshot.copy import copy
from cachepod.snapshot.fill import fill
from cachepod.snapshot.repair import mend
from cachepod.snapshot.verify import verify
from cachepod.stores.base import PruneStore, Store
from cachepod.stores.local import LocalStore
from cachepod.stores.url import open_store
from tests.support.s3 import BUCKET, Server, environment, moto_server, rclone_server
from tests.support.snapshots import fingerprint, publish_files
from tests.support.stores import CountingStore, FaultyStore

FIRST, SECOND = fingerprint().key, fingerprint(handler="tts").key
FILES = {"big.bin": random.Random(1).randbytes(9_000_000), "small": b"text" * 1000}
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with moto_server() if request.param == "moto" else rclone_server() as found:
        if request.param == "moto":
            found.client().create_bucket(Bucket=BUCKET)
        yield found


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> PruneStore:
    """An empty store on a real service."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return open_store(server.url(f"copy-{next(_numbers)}"))


@pytest.fixture
def here(tmp_path: Path) -> LocalStore:
    """A directory store with two snapshots."""
    store = LocalStore(tmp_path / "here")
    publish_files(store, fingerprint(), FILES)
    publish_files(store, fingerprint(handler="tts"), {**FILES, "more": bytes(range(256)) * 9000})
    return store


def contents(store: Store) -> dict[str, bytes]:
    return {
        info.name: store.read(info.name, limit=1 << 30)
        for prefix in (MANIFESTS, PACKS, INCOMING, PINS, LEASES)
        for info in store.list(prefix)
    }


def test_two_data_centres_have_the_same_snapshots_by_way_of_a_bucket(
    here: LocalStore, bucket: PruneStore, tmp_path: Path
) -> None:
    there = LocalStore(tmp_path / "there")
    copy(here, bucket)
    copy(bucket, there)
    assert contents(bucket) == contents(here)
    assert contents(there) == contents(here)
    assert verify(there).problems == ()


def test_a_copy_to_a_service_that_is_interrupted_goes_on_where_it_ended(
    here: LocalStore, bucket: PruneStore
) -> None:
    with pytest.raises(StoreUnreachable):
        copy(here, FaultyStore(bucket, {"commit": ".U*"}), threads=1)
    there = {info.name for info in bucket.list(PACKS)}
    assert len(there) == 1
    reading = CountingStore(here)
    copy(reading, bucket)
    assert not there & set(reading.names["read_range"])
    assert contents(bucket) == contents(here)


def test_damage_here_is_repaired_from_the_service_and_there_from_here(
    here: LocalStore, bucket: PruneStore
) -> None:
    copy(here, bucket)
    good = contents(here)
    for damaged, other in ((here, bucket), (bucket, here)):
        pack, *others = sorted(name for name in good if name.startswith(PACKS))
        damaged.replace(pack, b"x" * len(good[pack]))
        damaged.delete(others[0])
        damaged.replace(f"{MANIFESTS}/{FIRST.rpartition('-')[0]}/{FIRST}", b"nothing")
        assert mend(damaged, [other]).problems == ()
        assert contents(damaged) == good


def test_a_directory_is_filled_from_the_service(
    here: LocalStore, bucket: PruneStore, tmp_path: Path
) -> None:
    copy(here, bucket)
    near = LocalStore(tmp_path / "near")
    assert fill(bucket, near, FIRST).outcome == "filled"
    assert set(contents(near)) < set(contents(here))
    assert verify(near).problems == ()
    assert fill(near, bucket, FIRST).outcome == "present"
