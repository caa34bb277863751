"""
Makes the golden store of today's format anew, and the example in docs/format.md::

    python -m tests.golden.make

What was released is never made anew: a store of version N stays as it is when version N+1 comes,
and the new one goes beside it. Names of packs, times and the host are fixed, so that a run that
changes no format changes no file, the versions of cachepod and zstd aside.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ed25519

from cachepod.model.fingerprint import Fingerprint
from cachepod.model.manifest import Manifest
from cachepod.model.names import STORE_FORMAT, manifest_name
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.signing import Keyring, PrivateKey
from cachepod.stores.base import WriteStore
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.golden.tree import build, keeps_holes, keeps_xattrs, listing, small_files
from tests.support.trees import make

GOLDEN = Path(__file__).parent
FAMILY = "cp310-linux_x86_64-nocuda-notorch"
#: Where the trees are made; it is part of a snapshot.
PLACE = Path("/tmp/cachepod-golden")
CREATED = 1_800_000_000.25
SIGNED_RELEASE = 2
#: Whoever reads this can sign golden snapshots, and nothing else.
SEED = bytes(range(32))


def fingerprint(release: int) -> Fingerprint:
    """The inputs of *release*."""
    return Fingerprint(
        FAMILY,
        {
            "python": "cpython 3.10.13",
            "requirement:alpha-beta": "alpha-beta==1.0",
            "requirement:gamma": f"gamma==2.{release}",
            "tree:data": "data",
        },
    )


def keyring() -> Keyring:
    """The pair that signs the golden snapshot that is signed."""
    key = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(SEED))
    return Keyring(key, (key,))


@contextmanager
def nothing_by_chance() -> Iterator[None]:
    """Within, names, times and the host are the same every time."""
    numbers = iter(range(1, 1 << 16))

    def pack_id(pin: object) -> str:
        return (b"%02d" % next(numbers) + bytes(range(14))).hex()

    with ExitStack() as stack:
        stack.enter_context(mock.patch("cachepod.snapshot.pins.Pin.pack_id", pack_id))
        for name, value in (("time.time", CREATED), ("platform.node", "golden")):
            place = f"cachepod.snapshot.publish.{name}"
            stack.enter_context(mock.patch(place, lambda value=value: value))
        yield


@contextmanager
def place_for_trees() -> Iterator[Path]:
    """The directory in which the trees of a golden store are made."""
    PLACE.mkdir()
    try:
        yield PLACE
    finally:
        remove_tree(PLACE)


def chunks_of(store: WriteStore, key: str) -> list[dict[str, Any]]:
    """The chunks of a snapshot, in order."""
    name = manifest_name(key)
    manifest = Manifest.decode(store.read(name, limit=1 << 30), name=name)
    chunks = manifest.chunks
    return [
        {
            "id": chunks.id(row).hex(),
            "size": chunks.raw[row],
            "encoding": ("raw", "zstd")[chunks.encoding[row]],
            "pack": manifest.packs[chunks.pack[row]].id,
        }
        for row in range(len(chunks))
    ]


def make_store(root: Path) -> dict[str, Any]:
    """Publish both releases into a new store at *root*, the second signed, and describe them."""
    store = LocalStore(root)
    snapshots: dict[str, Any] = {}
    for release in (1, 2):
        print_ = fingerprint(release)
        with place_for_trees() as place:
            assert keeps_xattrs(place), f"{place}: no extended attributes"
            assert keeps_holes(place), f"{place}: no holes"
            trees = build(place, release)
            sources = [TreeSource(name, path) for name, path in trees]
            sign = keyring().sign if release == SIGNED_RELEASE else None
            report = publish(store, print_.key, print_, sources, threads=1, sign=sign)
            assert report.outcome == "stored"
            snapshots[print_.key] = {
                "release": release,
                "files": report.files,
                "size": report.size,
                "trees": {name: listing(path) for name, path in trees},
                "chunks": chunks_of(store, print_.key),
            }
    return snapshots


def runs_of_small_files(root: Path) -> list[list[Any]]:
    """Id and size of each chunk of many small files, made at *root*."""
    store = MemoryStore()
    make(root, small_files())
    publish(store, "many", Fingerprint("named", {}), [TreeSource("data", root)])
    return [[chunk["id"], chunk["size"]] for chunk in chunks_of(store, "many")]


def main() -> None:
    """Make the store of today's version anew, and what describes it."""
    from tests.docs.example import write_example

    folder = GOLDEN / f"v{STORE_FORMAT}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with nothing_by_chance():
        snapshots = make_store(folder / "store")
    with place_for_trees() as place:
        runs = runs_of_small_files(place / "many")
    for name, value in (("snapshots", snapshots), ("runs", runs)):
        text = json.dumps(value, indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="ascii")
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{os.path.relpath(folder)}: {total} bytes")
    with nothing_by_chance():
        write_example()


if __name__ == "__main__":
    main()
