"""Stores of every released format are restored to the last bit, and what is published is stable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachepod.errors import Untrusted
from cachepod.model.manifest import Manifest
from cachepod.model.names import STORE_FORMAT
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.signing import Trusting
from cachepod.stores.base import exists
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from cachepod.stores.wrappers import ReadOnly
from tests.docs import reader
from tests.golden.make import (
    GOLDEN,
    SIGNED_RELEASE,
    chunks_of,
    fingerprint,
    keyring,
    runs_of_small_files,
)
from tests.golden.tree import build, keeps_holes, keeps_xattrs, listing, without

VERSIONS = sorted(path.name for path in GOLDEN.glob("v*"))


def snapshots_of(version: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((GOLDEN / version / "snapshots.json").read_text())
    return described


CASES = [
    pytest.param(version, key, id=f"{version}-{key}")
    for version in VERSIONS
    for key in snapshots_of(version)
]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    remove_tree(tmp_path)


def test_there_is_a_golden_store_of_every_version_of_the_format() -> None:
    assert [f"v{number}" for number in range(1, STORE_FORMAT + 1)] == VERSIONS


@pytest.mark.parametrize(("version", "key"), CASES)
def test_a_golden_snapshot_is_restored_as_it_was(version: str, key: str, room: Path) -> None:
    described = snapshots_of(version)[key]
    store = ReadOnly(LocalStore(GOLDEN / version / "store"))
    targets = [Target(tree, room / tree) for tree in described["trees"]]
    release = described["release"]
    report = restore(store, key, targets, expect=fingerprint(release), min_free=0.0)
    assert (report.outcome, report.files) == ("restored", described["files"])
    for target in targets:
        found, wanted = listing(target.root), described["trees"][target.tree]
        if not keeps_xattrs(room):
            wanted = without(wanted, "xattrs")
        assert found == wanted
    assert restore(store, key, targets, min_free=0.0).outcome == "confirmed"


@pytest.mark.parametrize(("version", "key"), CASES)
def test_a_golden_signature_is_good_and_what_is_not_signed_is_refused(
    version: str, key: str, room: Path
) -> None:
    described = snapshots_of(version)[key]
    store = Trusting(LocalStore(GOLDEN / version / "store"), keyring())
    targets = [Target(tree, room / tree) for tree in described["trees"]]
    if described["release"] == SIGNED_RELEASE:
        assert restore(store, key, targets, check_ids=True, min_free=0.0).outcome == "restored"
    else:
        with pytest.raises(Untrusted):
            restore(store, key, targets, min_free=0.0)


@pytest.mark.parametrize(("version", "key"), CASES)
def test_a_golden_snapshot_is_restored_over_another(version: str, key: str, room: Path) -> None:
    described = snapshots_of(version)
    store = ReadOnly(LocalStore(GOLDEN / version / "store"))
    for other in [*(other for other in described if other != key), key]:
        targets = [Target(tree, room / tree) for tree in described[other]["trees"]]
        restore(store, other, targets, min_free=0.0)
    fields = () if keeps_xattrs(room) else ("xattrs",)
    for target in targets:
        wanted = described[key]["trees"][target.tree]
        assert listing(target.root) == without(wanted, *fields)


@pytest.mark.parametrize(("version", "key"), CASES)
def test_the_documented_reader_reads_a_golden_snapshot(version: str, key: str) -> None:
    described = snapshots_of(version)[key]
    store = GOLDEN / version / "store"
    summary, columns = reader.read_manifest(reader.manifest_path(store, key).read_bytes())
    found = {path: (kind, row) for row, path, kind in reader.entries(summary, columns)}
    contents = dict(reader.contents(columns, store))
    for tree in summary["trees"]:
        for entry in described["trees"][tree["name"]]:
            path = entry["path"].encode("utf-8", "surrogateescape")
            kind, row = found.pop(tree["name"].encode() + (b"/" + path if path else b""))
            assert columns["emtm"][row] == entry["mtime"]
            if entry["kind"] == "file":
                if "same as" in entry and kind == 3:
                    row = columns["esiz"][row]
                assert hashlib.sha256(contents[row]).hexdigest() == entry["sha256"]
    assert not found


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_snapshots_hold_what_is_hard_to_hold(version: str) -> None:
    described = snapshots_of(version)
    ids = [{chunk["id"] for chunk in snapshot["chunks"]} for snapshot in described.values()]
    assert set.intersection(*ids)
    assert set.symmetric_difference(*ids)
    encodings = {
        chunk["encoding"] for snapshot in described.values() for chunk in snapshot["chunks"]
    }
    assert encodings == {"raw", "zstd"}
    assert max(chunk["size"] for snap in described.values() for chunk in snap["chunks"]) == 4 << 20
    size = sum(path.stat().st_size for path in (GOLDEN / version).rglob("*") if path.is_file())
    assert size < 200_000


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pack_of_a_golden_store_holds_what_its_name_and_table_say(version: str) -> None:
    store = GOLDEN / version / "store"
    described = snapshots_of(version)
    wanted = {c["id"]: c["size"] for snapshot in described.values() for c in snapshot["chunks"]}
    tables = [reader.read_table(path.read_bytes()) for path in store.glob("packs/*/*")]
    assert {row.id.hex(): row.raw for table in tables for row in table} == wanted


@pytest.mark.parametrize("key", list(snapshots_of(f"v{STORE_FORMAT}")))
def test_todays_publish_cuts_the_same_chunks(key: str, room: Path) -> None:
    # If this fails, the next publish of every user stores all of their environments anew.
    if not keeps_holes(room):
        pytest.skip("this file system has no holes")
    described = snapshots_of(f"v{STORE_FORMAT}")[key]
    store = MemoryStore()
    print_ = fingerprint(described["release"])
    assert print_.key == key
    trees = [TreeSource(name, path) for name, path in build(room / "x", described["release"])]
    publish(store, key, print_, trees, threads=2)
    found = [(chunk["id"], chunk["size"]) for chunk in chunks_of(store, key)]
    assert found == [(chunk["id"], chunk["size"]) for chunk in described["chunks"]]


def test_todays_publish_ends_runs_of_small_files_where_it_always_did(room: Path) -> None:
    described = json.loads((GOLDEN / f"v{STORE_FORMAT}" / "runs.json").read_text())
    assert len(described) > 2
    assert runs_of_small_files(room / "somewhere") == described


def test_todays_publish_adds_nothing_to_a_golden_store(room: Path) -> None:
    if not keeps_holes(room):
        pytest.skip("this file system has no holes")
    store = MemoryStore()
    golden = LocalStore(GOLDEN / f"v{STORE_FORMAT}" / "store")
    for prefix in ("packs", "manifests"):
        for info in golden.list(prefix):
            with store.create(info.name) as writer:
                writer.write(golden.read(info.name, limit=1 << 30))
                writer.commit()
    before = {info.name for info in store.list("packs")}
    print_ = fingerprint(2)
    key = f"{print_.family}-{'0' * 16}"
    assert not exists(store, f"manifests/{print_.family}/{key}")
    trees = [TreeSource(name, path) for name, path in build(room / "x", 2)]
    report = publish(store, key, print_, trees)
    assert {info.name for info in store.list("packs")} == before
    name = f"manifests/{print_.family}/{key}"
    written = store.read(name, limit=1 << 30)
    assert report.stored_new == len(written)
    assert Manifest.decode(written, name=name).summary.files == report.files
