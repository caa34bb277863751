"""
What differs between two snapshots: inputs, distributions, files.

Most of it is in the manifests: a file whose chunks have the same ids has the same bytes. Small
files share chunks with their neighbours, so theirs may differ although they do not; with a store
at hand those few chunks are read and the bytes compared.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xxhash import xxh3_128_digest

from cachepod.errors import CachepodError
from cachepod.model.fingerprint import Difference
from cachepod.model.manifest import Manifest
from cachepod.model.tables import Kind
from cachepod.snapshot.chunks import ChunkAt, ChunkReader
from cachepod.snapshot.matching import NONE, match
from cachepod.stores.base import Store

ADDED = "added"
REMOVED = "removed"
CONTENT = "content"  # other bytes, or a symlink's other target
UNKNOWN = "unknown"  # same size, and the bytes could not be compared
KIND = "kind"  # a file became a symlink, or the like
MODE = "mode"  # same bytes, other permission bits


@dataclass(frozen=True)
class DistributionChange:
    """A distribution that only one of the snapshots has, or in another version; None if absent."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class FileChange:
    """
    A path that differs.

    Args:
        tree: Name of the tree.

        path: Below its root, undecodable bytes as surrogates.

        what: ``added``, ``removed``, ``content``, ``unknown``, ``kind`` or ``mode``.

        before, after: Bytes of the file, zero for a link; None if it is absent.

        owner: The distribution it belongs to, empty for none.
    """

    tree: str
    path: str
    what: str
    before: int | None
    after: int | None
    owner: str


@dataclass(frozen=True)
class Diff:
    """
    From one snapshot to another.

    Args:
        inputs: Of the fingerprint; ``ours`` is the first snapshot's.

        distributions: By name.

        files: Files and links by tree and path. Directories are not told, unless they became
            something else; neither are times.

        unchanged: Files and links that are the same in both.
    """

    inputs: tuple[Difference, ...]
    distributions: tuple[DistributionChange, ...]
    files: tuple[FileChange, ...]
    unchanged: int


def diff(a: Manifest, b: Manifest, stores: tuple[Store, Store] | None = None) -> Diff:
    """
    Compare the snapshot *a* with the later *b*.

    Args:
        stores: Where the packs of *a* and of *b* are. Without them some small files of the same
            size are ``unknown``; with them only those whose chunks cannot be read.
    """
    rows = {tree.name: row for row, tree in enumerate(a.summary.trees)}
    matched = match(
        b.entries,
        a.entries,
        {row: rows[tree.name] for row, tree in enumerate(b.summary.trees) if tree.name in rows},
    )
    before, after = _Side(a), _Side(b)
    changes: list[FileChange] = []
    doubtful: list[tuple[int, int]] = []
    unchanged = 0
    gone = bytearray(b"\1") * len(a.entries)
    for row, old in enumerate(matched):
        if old == NONE:
            if after.is_leaf(row):
                changes.append(after.change(row, ADDED, None, after.size(row)))
            continue
        gone[old] = 0
        what = _compare(before, old, after, row)
        if what == UNKNOWN:
            doubtful.append((old, row))
        elif what:
            changes.append(after.change(row, what, before.size(old), after.size(row)))
        elif after.is_leaf(row):
            unchanged += 1
    for old, new, what in _decide(before, after, doubtful, stores):
        if what:
            changes.append(after.change(new, what, before.size(old), after.size(new)))
        else:
            unchanged += 1
    changes.extend(
        before.change(row, REMOVED, before.size(row), None)
        for row in range(len(gone))
        if gone[row] and before.is_leaf(row)
    )
    changes.sort(key=lambda change: (change.tree, os.fsencode(change.path)))
    return Diff(
        tuple(a.summary.fingerprint.differences(b.summary.fingerprint)),
        tuple(_distributions(a, b)),
        tuple(changes),
        unchanged,
    )


def _distributions(a: Manifest, b: Manifest) -> Iterator[DistributionChange]:
    before = {each.name: each.version for each in a.summary.distributions}
    after = {each.name: each.version for each in b.summary.distributions}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield DistributionChange(name, before.get(name), after.get(name))


class _Side:
    """One of the two manifests, with what the comparison asks of it."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.entries = manifest.entries
        self.signature, self.shared = _signatures(manifest)

    def is_leaf(self, row: int) -> bool:
        return self.entries.kind[row] != Kind.DIRECTORY

    def file(self, row: int) -> int:
        """The row that has the bytes: a hard link's is that of the file it names."""
        return self.entries.size[row] if self.entries.kind[row] == Kind.HARDLINK else row

    def size(self, row: int) -> int:
        kind = self.entries.kind[row]
        return self.entries.size[self.file(row)] if kind in (Kind.FILE, Kind.HARDLINK) else 0

    def change(self, row: int, what: str, before: int | None, after: int | None) -> FileChange:
        entries = self.entries
        owner = entries.owner[row]
        path = entries.path(row)
        while entries.parent[row] != row:
            row = entries.parent[row]
        return FileChange(
            tree=self.manifest.summary.trees[row].name,
            path=os.fsdecode(path),
            what=what,
            before=before,
            after=after,
            owner=self.manifest.summary.distributions[owner - 1].name if owner else "",
        )


def _signatures(manifest: Manifest) -> tuple[array[int], bytearray]:
    """
    For each file a number that two files of the same chunks share, whatever their order; and
    whether some of its bytes share a chunk with other bytes.
    """
    extents, chunks = manifest.extents, manifest.chunks
    signature: array[int] = array("q", bytes(8 * len(manifest.entries)))
    shared = bytearray(len(manifest.entries))
    for chunk in range(len(chunks)):
        identity, raw = chunks.id(chunk), chunks.raw[chunk]
        for at in range(extents.first[chunk], extents.first[chunk + 1]):
            row, start, length = extents.entry[at], extents.start[at], extents.length[at]
            signature[row] ^= hash((identity, start, length, extents.offset[at]))
            if length != raw:
                shared[row] = 1
    return signature, shared


_FILES = (Kind.FILE, Kind.HARDLINK)


def _compare(before: _Side, old: int, after: _Side, new: int) -> str:
    """What changed; empty if nothing did."""
    a, b = before.entries, after.entries
    kind = a.kind[old]
    if kind != b.kind[new] and not (kind in _FILES and b.kind[new] in _FILES):
        return KIND
    if kind == Kind.DIRECTORY:
        return ""
    if kind == Kind.SYMLINK:
        same = a.targets[a.size[old]] == b.targets[b.size[new]]
        return "" if same else CONTENT
    first, second = before.file(old), after.file(new)
    if a.size[first] != b.size[second]:
        return CONTENT
    if before.signature[first] != after.signature[second]:
        if before.shared[first] or after.shared[second]:
            return UNKNOWN
        return CONTENT
    return "" if a.mode[first] == b.mode[second] else MODE


def _decide(
    before: _Side,
    after: _Side,
    doubtful: Sequence[tuple[int, int]],
    stores: tuple[Store, Store] | None,
) -> Iterator[tuple[int, int, str]]:
    """What changed in each of the pairs whose chunks alone do not tell."""
    if stores is None or not doubtful:
        for old, new in doubtful:
            yield old, new, UNKNOWN
        return
    first = _digests(before.manifest, {before.file(old) for old, _ in doubtful}, stores[0])
    second = _digests(after.manifest, {after.file(new) for _, new in doubtful}, stores[1])
    for old, new in doubtful:
        ours, theirs = first.get(before.file(old)), second.get(after.file(new))
        if ours is None or theirs is None or ours.keys() != theirs.keys():
            yield old, new, UNKNOWN
        elif ours != theirs:
            yield old, new, CONTENT
        elif before.entries.mode[before.file(old)] != after.entries.mode[after.file(new)]:
            yield old, new, MODE
        else:
            yield old, new, ""


_Pieces = dict[tuple[int, int], bytes]


def _digests(manifest: Manifest, rows: Iterable[int], store: Store) -> dict[int, _Pieces]:
    """
    Digests of the pieces of some files, by offset and length; nothing of a file of which a chunk
    cannot be read.
    """
    extents, chunks = manifest.extents, manifest.chunks
    found: dict[int, _Pieces] = {row: {} for row in rows}
    unreadable: set[int] = set()
    reader = ChunkReader(store)
    for chunk in sorted(range(len(chunks)), key=lambda row: (chunks.pack[row], chunks.offset[row])):
        wanted = [
            at
            for at in range(extents.first[chunk], extents.first[chunk + 1])
            if extents.entry[at] in found
        ]
        if not wanted:
            continue
        pack = manifest.packs[chunks.pack[chunk]].id
        try:
            plain = reader.plain(pack, ChunkAt.of(chunks, chunk))
        except CachepodError:
            unreadable.update(extents.entry[at] for at in wanted)
            continue
        for at in wanted:
            start, length = extents.start[at], extents.length[at]
            piece = xxh3_128_digest(plain[start : start + length])
            found[extents.entry[at]][extents.offset[at], length] = piece
    return {row: pieces for row, pieces in found.items() if row not in unreadable}
