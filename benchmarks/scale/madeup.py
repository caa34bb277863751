"""
A store of snapshots that are made up: manifests that say what real ones say, of the chunks of files
that nobody has, in packs that are as large as they should be and hold nothing.

So nothing can be restored from it, and everything that reads manifests, names and sizes alone is as
with real ones, of the size of real ones, at the cost of a file of 50 kB each.
"""

from __future__ import annotations

import os
import random
import sys
from array import array
from pathlib import Path

from cachepod.model.columns import ByteStrings
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.manifest import Manifest
from cachepod.model.names import USES, manifest_name, pack_name
from cachepod.model.summary import Distribution, Summary, TreeInfo
from cachepod.model.tables import Chunks, Encoding, Entries, Extents, Kind, PackInfo
from cachepod.snapshot.uses import Event, Use
from cachepod.stores.base import put
from cachepod.stores.local import LocalStore

_FAMILY = "cp310-linux_x86_64-cu126-torch2.7.0"
_PLAIN = 4 * 1024 * 1024
_STORED = 1_000_000
_A_PACK = 128  # chunks
_DISTRIBUTIONS = tuple(Distribution(f"package-{number}", "1.2.3") for number in range(120))


class MadeUp:
    """
    Writes the store.

    Args:
        chunks: There are in all; snapshots that come later need more of the later ones.

        needs: Chunks that each snapshot needs.
    """

    def __init__(self, root: Path, chunks: int, needs: int) -> None:
        self._root = root
        self._needs = min(needs, chunks)
        self._source = random.Random(1)
        self._ids = [self._source.randbytes(32) for _ in range(chunks)]
        self._packs = [self._source.randbytes(16).hex() for _ in range(-(-chunks // _A_PACK))]

    def write(self, snapshots: int, uses: int) -> None:
        """The whole of it: *snapshots*, each asked for *uses* times."""
        store = LocalStore(self._root)
        put(store, f"{USES}/made-up/2026-01-01T00", b"")  # makes the store
        size = 8 + _A_PACK * _STORED + 72 * _A_PACK + 24
        for pack in self._packs:
            path = self._root / pack_name(pack)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.truncate(path, size)  # a hole
        for number in range(snapshots):
            manifest = self._manifest(number, snapshots, size)
            key = manifest.summary.key
            path = self._root / manifest_name(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(manifest.encode())
            folder = self._root / USES / key
            folder.mkdir(parents=True)
            for use in range(uses):
                hour = f"2026-01-{1 + use // 24 % 28:02d}T{use % 24:02d}"
                (folder / Use(Event.HIT, 4.0, 10**9, saved=150.0).name(hour)).touch()

    def _manifest(self, number: int, of: int, size: int) -> Manifest:
        needed = self._needs
        first = (len(self._ids) - needed) * number // max(of - 1, 1)
        rows = range(first, first + needed)
        used = sorted({row // _A_PACK for row in rows})
        place = {pack: position for position, pack in enumerate(used)}
        files = needed + 1  # and the root
        inputs = {f"requirement:package-{each}": f"package-{each}==1.2.3" for each in range(60)}
        print_ = Fingerprint(_FAMILY, {**inputs, "requirement:own": f"own=={number}"})
        summary = Summary(
            print_.key,
            print_,
            (TreeInfo("env", "/app/.venv"),),
            _DISTRIBUTIONS,
            {"install_seconds": "180.0"},
            1_790_000_000.0 + number,
            needed,
            needed * _PLAIN,
            needed * _STORED,
        )
        entries = Entries(
            kind=array("B", [Kind.DIRECTORY] + [Kind.FILE] * needed),
            parent=array("I", bytes(4 * files)),
            mode=array("H", [0o755]) * files,
            mtime=array("q", bytes(8 * files)),
            size=array("Q", [0] + [_PLAIN] * needed),
            owner=array("I", bytes(4 * files)),
            flags=array("B", bytes(files)),
            names=ByteStrings.of([b"", *(b"file-%06d" % row for row in rows)]),
            targets=ByteStrings.of([]),
            xattrs=(),
        )
        extents = Extents(
            first=array("I", range(files)),
            entry=array("I", range(1, files)),
            offset=array("Q", bytes(8 * needed)),
            length=array("I", [_PLAIN]) * needed,
            start=array("I", bytes(4 * needed)),
        )
        chunks = Chunks(
            pack=array("I", (place[row // _A_PACK] for row in rows)),
            offset=array("I", (8 + row % _A_PACK * _STORED for row in rows)),
            stored=array("I", [_STORED]) * needed,
            raw=array("I", [_PLAIN]) * needed,
            encoding=array("B", [Encoding.ZSTD]) * needed,
            ids=b"".join(self._ids[row] for row in rows),
            checks=b"".join(self._ids[row][:16] for row in rows),
        )
        packs = tuple(PackInfo(self._packs[each], size) for each in used)
        return Manifest(summary, entries, extents, chunks, packs)


if __name__ == "__main__":
    root, snapshots, needs, new, uses = sys.argv[1:]
    chunks = int(needs) + int(new) * (int(snapshots) - 1)
    MadeUp(Path(root), chunks, int(needs)).write(int(snapshots), int(uses))
