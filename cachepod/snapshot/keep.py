"""Which files of a tree are already what another snapshot wants them to be."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from cachepod.model.manifest import Manifest
from cachepod.model.tables import Entries, Extents, Kind
from cachepod.snapshot.held import Held, paths_of
from cachepod.snapshot.matching import NONE, match
from cachepod.snapshot.paths import LONGEST, reachable
from cachepod.snapshot.scan import MODE_MASK


@dataclass(frozen=True)
class Keep:
    """
    Args:
        entries: Of the wanted snapshot.

        rows: Its files that are there already.

        mtimes: Of each of *rows*, as it is on the disk.

        directories: Row of each of its directories to the path in the tree as it is.
    """

    entries: Entries
    rows: array[int]
    mtimes: array[int]
    directories: dict[int, bytes]

    def paths(self) -> Iterator[tuple[int, bytes]]:
        """Each row, and where the file is."""
        for row in self.rows:
            yield row, self.directories[self.entries.parent[row]] + b"/" + self.entries.names[row]


def find_kept(manifest: Manifest, root: int, held: Held) -> Keep:
    """
    The files below *root* of *manifest* that the tree of *held* has, untouched since.

    A file is the same if its attributes are and if it comes from the same bytes of the same
    chunks. One whose chunk changed because of a neighbour is brought again.
    """
    new, old = manifest.entries, held.manifest.entries
    matched = match(new, old, {root: held.row})
    same = _same_content(manifest, held.manifest, matched)
    old_attributes = _attributes(old)
    new_attributes = _attributes(new)
    directories = paths_of(new, root, os.path.abspath(os.fsencode(held.root)))
    rows, mtimes = array("I"), array("q")
    for row, other in enumerate(matched):
        if (
            other != NONE
            and same[row]
            and new.mode[row] & MODE_MASK == old.mode[other] & MODE_MASK
            and new.mtime[row] == old.mtime[other]
            and new_attributes.get(row) == old_attributes.get(other)
        ):
            path = directories[new.parent[row]] + b"/" + new.names[row]
            try:
                if len(path) > LONGEST:
                    with reachable(path) as short:
                        info = os.lstat(short)
                else:
                    info = os.lstat(path)
            except OSError:
                continue
            if held.untouched(other, info):
                rows.append(row)
                mtimes.append(info.st_mtime_ns)
    return Keep(new, rows, mtimes, directories)


def _same_content(new: Manifest, old: Manifest, matched: array[int]) -> bytearray:
    """One byte a row of *new*: 1 for a file with the very extents of its match."""
    same = bytearray(len(matched))
    for row, other in enumerate(matched):
        if (
            other != NONE
            and new.entries.kind[row] == old.entries.kind[other] == Kind.FILE
            and new.entries.size[row] == old.entries.size[other]
        ):
            same[row] = 1
    # Chunks by number, the same in both, so that comparing extents compares numbers.
    number = {old.chunks.id(row): row for row in range(len(old.chunks))}
    theirs = _by_file(old.extents)
    ours = _by_file(new.extents)
    known = [number.get(new.chunks.id(row), NONE) for row in range(len(new.chunks))]
    for row, other in enumerate(matched):
        if not same[row]:
            continue
        mine, its = ours.get(row, ()), theirs.get(other, ())
        if len(mine) != len(its) or any(
            known[chunk] != its_chunk
            or new.extents.offset[at] != old.extents.offset[its_at]
            or new.extents.length[at] != old.extents.length[its_at]
            or new.extents.start[at] != old.extents.start[its_at]
            for (chunk, at), (its_chunk, its_at) in zip(mine, its, strict=True)
        ):
            same[row] = 0
    return same


def _by_file(extents: Extents) -> dict[int, list[tuple[int, int]]]:
    """Row of each file to its extents, as (chunk, place), in order of their offset."""
    files: dict[int, list[tuple[int, int]]] = {}
    for chunk in range(len(extents.first) - 1):
        for at in range(extents.first[chunk], extents.first[chunk + 1]):
            files.setdefault(extents.entry[at], []).append((chunk, at))
    for places in files.values():
        if len(places) > 1:
            places.sort(key=lambda place: extents.offset[place[1]])
    return files


def _attributes(entries: Entries) -> dict[int, list[tuple[bytes, bytes]]]:
    attributes: dict[int, list[tuple[bytes, bytes]]] = {}
    for row, name, value in entries.xattrs:
        attributes.setdefault(row, []).append((name, value))
    return attributes
