"""What a publish need not read again: chunks of the snapshot that a tree was made from."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from cachepod.model.tables import Kind
from cachepod.snapshot.held import Held
from cachepod.snapshot.matching import NONE, match
from cachepod.snapshot.reading import Piece
from cachepod.snapshot.scan import Scan


class Prior:
    """
    The chunks of *held* whose files the scan found untouched.

    Args:
        root: Row of the tree's root in the scan.
    """

    def __init__(self, scan: Scan, held: Held, root: int) -> None:
        self._extents = held.manifest.extents
        self._chunks = held.manifest.chunks
        old = held.manifest.entries
        self._old = match(scan.entries, old, {root: held.row})
        for row, other in enumerate(self._old):
            if other != NONE and not (
                scan.entries.kind[row] == old.kind[other] == Kind.FILE
                and scan.inode[row] == held.inode[other]
                and scan.ctime[row] == held.ctime[other]
                and scan.entries.size[row] == old.size[other]
            ):
                self._old[row] = NONE
        self._at_start: array[int] = array("q", [NONE]) * len(old)
        self._later: dict[tuple[int, int], int] = {}
        for place, (entry, offset) in enumerate(
            zip(self._extents.entry, self._extents.offset, strict=True)
        ):
            if offset == 0:
                self._at_start[entry] = place
            else:
                self._later[entry, offset] = place

    def chunk(self, pieces: Sequence[Piece]) -> bytes | None:
        """Id of the chunk made of exactly *pieces*, if none of their files was touched."""
        extents = self._extents
        other = self._old[pieces[0].row]
        if other == NONE:
            return None
        offset = pieces[0].offset
        first = self._at_start[other] if offset == 0 else self._later.get((other, offset), NONE)
        if first == NONE:
            return None
        chunk = bisect_right(extents.first, first) - 1
        if first + len(pieces) > extents.first[chunk + 1]:
            return None
        position = 0
        for place, piece in enumerate(pieces, first):
            if (
                self._old[piece.row] != extents.entry[place]
                or piece.offset != extents.offset[place]
                or piece.length != extents.length[place]
                or position != extents.start[place]
            ):
                return None
            position += piece.length
        return self._chunks.id(chunk) if position == self._chunks.raw[chunk] else None
