"""Snapshots that no publish would make, whole but for what a test makes wrong on purpose."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard
from blake3 import blake3
from xxhash import xxh3_128_digest

from cachepod.model.manifest import Manifest
from cachepod.model.names import manifest_name, pack_name
from cachepod.model.summary import TreeInfo
from cachepod.model.tables import Chunks, Encoding, Extents, Kind, PackInfo
from cachepod.stores.base import WriteStore, put
from tests.support.manifests import Row, entries_of, summary_of

ROOT = Row(Kind.DIRECTORY, 0, b"", mode=0o755)
#: Many times the largest chunk.
HUGE = (1 << 32) - 1


def directory(name: bytes, parent: int = 0, mode: int = 0o755) -> Row:
    """A row of a directory."""
    return Row(Kind.DIRECTORY, parent, name, mode=mode)


def file(name: bytes, size: int, parent: int = 0, mode: int = 0o644) -> Row:
    """A row of a file."""
    return Row(Kind.FILE, parent, name, size, mode=mode)


def symlink(name: bytes, target: int = 0, parent: int = 0) -> Row:
    """A row of a symlink to the target with that number."""
    return Row(Kind.SYMLINK, parent, name, target, mode=0o777)


def hardlink(name: bytes, to: int, parent: int = 0) -> Row:
    """A row of another name of row *to*."""
    return Row(Kind.HARDLINK, parent, name, to)


@dataclass(frozen=True)
class Chunk:
    """
    A chunk as the manifest describes it, true unless said otherwise.

    Args:
        plain: What it holds.

        uses: Row, offset, length, start of each extent.

        raw, stored, offset, pack, encoding, check: What the manifest says instead of the truth.

        frame: The bytes to store instead of *plain* compressed.
    """

    plain: bytes
    uses: Sequence[tuple[int, int, int, int]] = ()
    raw: int | None = None
    stored: int | None = None
    offset: int | None = None
    pack: int = 0
    encoding: int = Encoding.ZSTD
    check: bytes | None = None
    frame: bytes | None = None


@dataclass(frozen=True)
class Forgery:
    """A snapshot with one pack; *rows* begin with the root of each of *trees*."""

    rows: Sequence[Row]
    chunks: Sequence[Chunk] = ()
    targets: Sequence[bytes] = ()
    xattrs: tuple[tuple[int, bytes, bytes], ...] = ()
    trees: Sequence[str] = ("data",)
    pack_size: int | None = None
    columns: dict[str, array[int]] = field(default_factory=dict)

    def store(self, store: WriteStore, key: str = "k", **summary: Any) -> Manifest:
        """Put pack and manifest into *store*, over what has their names."""
        pack = blake3(repr(self).encode()).hexdigest()[:32]
        data = bytearray(b"cppack\1\0")
        extents = Extents(array("I"), array("I"), array("Q"), array("I"), array("I"))
        places, offsets, stored = array("I"), array("I"), array("I")
        raws, encodings = array("I"), array("B")
        ids, checks = bytearray(), bytearray()
        for chunk in self.chunks:
            frame = chunk.frame
            if frame is None:
                frame = chunk.plain
                if chunk.encoding == Encoding.ZSTD:
                    frame = zstandard.ZstdCompressor().compress(chunk.plain)
            extents.first.append(len(extents.entry))
            for row, offset, length, start in chunk.uses:
                extents.entry.append(row)
                extents.offset.append(offset)
                extents.length.append(length)
                extents.start.append(start)
            places.append(chunk.pack)
            offsets.append(len(data) if chunk.offset is None else chunk.offset)
            stored.append(len(frame) if chunk.stored is None else chunk.stored)
            raws.append(len(chunk.plain) if chunk.raw is None else chunk.raw)
            encodings.append(chunk.encoding)
            ids += blake3(chunk.plain).digest()
            checks += xxh3_128_digest(frame) if chunk.check is None else chunk.check
            data += frame
        extents.first.append(len(extents.entry))
        put(store, pack_name(pack), data)
        size = len(data) if self.pack_size is None else self.pack_size
        trees = tuple(TreeInfo(name, f"/{name}") for name in self.trees)
        fields: dict[str, Any] = {"key": key, "trees": trees, "distributions": (), **summary}
        manifest = Manifest(
            summary_of(**fields),
            entries_of(list(self.rows), list(self.targets), self.xattrs),
            extents,
            Chunks(places, offsets, stored, raws, encodings, bytes(ids), bytes(checks)),
            (PackInfo(pack, size),),
        )
        replace_manifest(store, key, manifest.encode())
        return manifest


def replace_manifest(store: WriteStore, key: str, data: bytes) -> None:
    """Let *data* be the manifest of *key*."""
    store.delete(manifest_name(key))
    put(store, manifest_name(key), data)
