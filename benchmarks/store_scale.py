"""
Listing, prune and statistics against the number of snapshots.

::

    python -m benchmarks.store_scale [--snapshots N ...] [--chunks N] [--files N] [--scratch DIR]

Makes a directory store of families of fifty snapshots, each of which shares nine tenths of its
chunks with the one before, with manifests as a publish writes them; the packs have holes instead of
bytes, for none of these commands reads one. Then it runs the commands and prints what they took.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from array import array
from pathlib import Path

from benchmarks import measure
from benchmarks.ground import drop_caches
from cachepod.model.columns import ByteStrings
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.manifest import Manifest
from cachepod.model.names import manifest_name, pack_name
from cachepod.model.pack import pack_size
from cachepod.model.summary import Summary, TreeInfo
from cachepod.model.tables import Chunks, Encoding, Entries, Extents, Kind, PackInfo
from cachepod.stores.base import put
from cachepod.stores.local import LocalStore

_FAMILY_SIZE = 50
_NEW = 12  # of a hundred chunks, those that the snapshot before has not
_PER_PACK = 60
_PLAIN = 4 << 20
_STORED = 2 << 20
_WIDTH = 100  # files in a directory

_Chunk = tuple[bytes, str, int]  # id, pack, offset


class _Maker:
    """Chunks and packs of a made-up store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = LocalStore(root)
        self.chunks = 0
        self.packs = 0

    def new_chunks(self, count: int) -> list[_Chunk]:
        """*count* chunks that no snapshot has yet, in packs of their own."""
        found: list[_Chunk] = []
        while len(found) < count:
            number = min(_PER_PACK, count - len(found))
            pack = os.urandom(16).hex()
            path = self.root / pack_name(pack)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(pack_size(number, number * _STORED))
            found += [(os.urandom(32), pack, 8 + place * _STORED) for place in range(number)]
            self.packs += 1
        self.chunks += count
        return found


def make_store(root: Path, snapshots: int, chunks: int, files: int) -> _Maker:
    """A store of so many *snapshots*, with so many *chunks* among them, of *files* files each."""
    maker = _Maker(root)
    families = max(1, snapshots // _FAMILY_SIZE)
    # The first of a family has all its chunks new, each later one its share of new ones.
    first = max(1, round(chunks / families / (1 + (_FAMILY_SIZE - 1) * _NEW / 100)))
    place = 0
    while place < snapshots:
        family = f"cp310-linux_x86_64-cu126-torch2.{place // _FAMILY_SIZE}"
        held = maker.new_chunks(first)
        for turn in range(min(_FAMILY_SIZE, snapshots - place)):
            if turn:
                new = maker.new_chunks(max(1, first * _NEW // 100))
                held = held[len(new) :] + new
            _publish(
                maker, Fingerprint(family, {"requirement:x": f"x=={turn}"}), held, files, place
            )
            place += 1
    return maker


def _publish(
    maker: _Maker, print_: Fingerprint, chunks: list[_Chunk], files: int, number: int
) -> None:
    packs = list(dict.fromkeys(pack for _, pack, _ in chunks))
    order = {pack: place for place, pack in enumerate(packs)}
    files = max(files, len(chunks))
    manifest = Manifest(
        summary=Summary(
            key=print_.key,
            fingerprint=print_,
            trees=(TreeInfo("env", "/opt/venv"),),
            distributions=(),
            creator={"host": "benchmark"},
            created=1_700_000_000.0 + 3600 * number,
            files=files,
            size=len(chunks) * _PLAIN,
            stored=len(chunks) * _STORED,
        ),
        entries=_entries(files, len(chunks)),
        extents=_extents(files, len(chunks)),
        chunks=Chunks(
            pack=array("I", (order[pack] for _, pack, _ in chunks)),
            offset=array("I", (offset for _, _, offset in chunks)),
            stored=array("I", [_STORED]) * len(chunks),
            raw=array("I", [_PLAIN]) * len(chunks),
            encoding=array("B", [Encoding.ZSTD]) * len(chunks),
            ids=b"".join(identity for identity, _, _ in chunks),
            checks=b"".join(identity[:16] for identity, _, _ in chunks),
        ),
        packs=tuple(
            PackInfo(pack, os.stat(maker.root / pack_name(pack)).st_size) for pack in packs
        ),
    )
    put(maker.store, manifest_name(print_.key), manifest.encode())


def _entries(files: int, full: int) -> Entries:
    """A root, directories of a hundred files, and the files; the first *full* are not empty."""
    directories = -(-files // _WIDTH)
    total = 1 + directories + files
    names = [b"", *(b"package_%06d" % n for n in range(directories))]
    names += [b"module_%06d.py" % n for n in range(files)]
    return Entries(
        kind=array("B", [Kind.DIRECTORY]) * (1 + directories) + array("B", [Kind.FILE]) * files,
        parent=array("I", [0]) * (1 + directories)
        + array("I", (1 + n // _WIDTH for n in range(files))),
        mode=array("H", [0o644]) * total,
        mtime=array("q", [1_700_000_000_000_000_000]) * total,
        size=array("Q", [0]) * (1 + directories)
        + array("Q", (_PLAIN if n < full else 0 for n in range(files))),
        owner=array("I", [0]) * total,
        flags=array("B", [0]) * total,
        names=ByteStrings.of(names),
        targets=ByteStrings.of([]),
    )


def _extents(files: int, chunks: int) -> Extents:
    before = 1 + -(-files // _WIDTH)
    return Extents(
        first=array("I", range(chunks + 1)),
        entry=array("I", range(before, before + chunks)),
        offset=array("Q", [0]) * chunks,
        length=array("I", [_PLAIN]) * chunks,
        start=array("I", [0]) * chunks,
    )


_COMMANDS = (
    ["ls"],
    ["stats"],
    ["prune", "--keep-last", "10", "--dry-run"],
    ["prune", "--max-size", "50TB", "--dry-run"],
    ["prune", "--keep-last", "10", "--grace", "0"],
)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.store_scale", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("--snapshots", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=2_000, help="of each snapshot")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def main() -> None:
    """Make each store, run the commands on it, delete it."""
    options = _options()
    facts = measure.machine()
    measure.print_machine(facts)
    rows: list[list[str]] = []
    samples = []
    for snapshots in options.snapshots:
        root = Path(tempfile.mkdtemp(prefix="store-", dir=options.scratch))
        try:
            begun = time.monotonic()
            chunks = options.chunks * snapshots // max(options.snapshots)
            maker = make_store(root, snapshots, chunks, options.files)
            manifests = measure.tree_size(root / "manifests")[1]
            made = f"made in {time.monotonic() - begun:.0f} s, manifests {manifests / 1e6:.0f} MB"
            print(
                f"{snapshots:,} snapshots, {maker.chunks:,} chunks, {maker.packs:,} packs: {made}"
            )
            for words in _COMMANDS:
                drop_caches()
                name, *rest = words
                cost = measure.run(
                    [measure.cachepod(), name, "--store", str(root), "--json", *rest]
                )
                rows.append(
                    [
                        f"{snapshots:,}",
                        f"{maker.chunks:,}",
                        " ".join(words),
                        f"{cost.seconds:.2f}",
                        f"{cost.cpu:.2f}",
                        f"{cost.peak / 1e6:.0f}",
                    ]
                )
                samples.append({"command": words, "snapshots": snapshots, "seconds": cost.seconds})
        finally:
            shutil.rmtree(root, ignore_errors=True)
    print(measure.table(["snapshots", "chunks", "command", "s", "CPU s", "peak MB"], rows))
    measure.write_json(options.json, {"machine": facts, "samples": samples})


if __name__ == "__main__":
    measure.script(main)
