"""What a restore will do, computed before it does anything; pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cachepod.model.layout import MIB, SMALL_FILE
from cachepod.model.manifest import Manifest
from cachepod.model.tables import Kind

#: Stored bytes asked for at once where chunks lie next to each other.
READ_SIZE = 8 * MIB
_BLOCK = 4096


class Part(NamedTuple):
    """A chunk and the range of its extents that matter to a job."""

    chunk: int
    begin: int
    end: int


class Read(NamedTuple):
    """One range of a pack, and the chunks in it, one after another."""

    pack: int
    offset: int
    size: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Job:
    """
    What one worker does in one go: a big file, or a stretch of small ones.

    Args:
        row: Of the big file; -1 for small files.

        reads: In order.

        size: Plain bytes that come of it.
    """

    row: int
    reads: tuple[Read, ...]
    size: int


@dataclass(frozen=True)
class Plan:
    """
    Args:
        jobs: Of the big files, the heaviest first, so that all workers end together.

        small_jobs: Of the small files, in the order of the packs, which are read sequentially.

        alone: One byte an entry, 1 for a file with a job of its own.

        directories: Rows, above before below.

        empty: Rows of files without any data.

        symlinks, hardlinks: Rows.

        files: Regular files and hard links to be made.

        size: Plain bytes to be written.

        stored: Bytes to be read from the store.

        space: Bytes that they will take on a file system with 4 KiB blocks.
    """

    jobs: tuple[Job, ...]
    small_jobs: tuple[Job, ...]
    alone: bytearray
    directories: array[int]
    empty: array[int]
    symlinks: array[int]
    hardlinks: array[int]
    files: int
    size: int
    stored: int
    space: int


def make_plan(manifest: Manifest, wanted: bytearray) -> Plan:
    """
    Plan to bring the entries with a one in *wanted*.

    Directories, symlinks and hard links among them are always made; of the files, those marked 1.
    """
    entries = manifest.entries
    rows = {kind: array("I") for kind in Kind}
    for row, kind in enumerate(entries.kind):
        if wanted[row]:
            rows[Kind(kind)].append(row)
    extents, size = manifest.extents, entries.size
    filled = bytearray(len(entries))
    alone = bytearray(len(entries))
    for row, length in zip(extents.entry, extents.length, strict=True):
        filled[row] = 1
        if wanted[row] and (length != size[row] or length > SMALL_FILE):
            alone[row] = 1
    empty = array("I", (row for row in rows[Kind.FILE] if not filled[row]))
    big: dict[int, list[Part]] = {}
    small: list[Part] = []
    entry, first = extents.entry, extents.first
    for chunk in range(len(manifest.chunks)):
        begin, end = first[chunk], first[chunk + 1]
        together = False
        at = begin
        while at < end:
            row = entry[at]
            if alone[row]:
                stop = at + 1
                while stop < end and entry[stop] == row:
                    stop += 1
                big.setdefault(row, []).append(Part(chunk, at, stop))
                at = stop
            else:
                together = together or bool(wanted[row])
                at += 1
        if together:
            small.append(Part(chunk, begin, end))
    jobs = [_file_job(manifest, row, parts) for row, parts in big.items()]
    jobs.sort(key=lambda job: -job.size)
    small_jobs = tuple(_small_jobs(manifest, small, wanted, alone))
    written = sum(job.size for job in (*jobs, *small_jobs))
    return Plan(
        jobs=tuple(jobs),
        small_jobs=small_jobs,
        alone=alone,
        directories=rows[Kind.DIRECTORY],
        empty=empty,
        symlinks=rows[Kind.SYMLINK],
        hardlinks=rows[Kind.HARDLINK],
        files=len(rows[Kind.FILE]) + len(rows[Kind.HARDLINK]),
        size=written,
        stored=sum(read.size for job in (*jobs, *small_jobs) for read in job.reads),
        space=written + _BLOCK // 2 * len(rows[Kind.FILE]) + _BLOCK * len(rows[Kind.DIRECTORY]),
    )


def _file_job(manifest: Manifest, row: int, parts: list[Part]) -> Job:
    offset, length = manifest.extents.offset, manifest.extents.length
    parts.sort(key=lambda part: offset[part.begin])
    size = sum(length[at] for part in parts for at in range(part.begin, part.end))
    return Job(row, tuple(_reads(manifest, parts)), size)


def _small_jobs(
    manifest: Manifest, parts: list[Part], wanted: bytearray, alone: bytearray
) -> Iterator[Job]:
    chunks, extents = manifest.chunks, manifest.extents
    parts.sort(key=lambda part: (chunks.pack[part.chunk], chunks.offset[part.chunk]))
    for read in _reads(manifest, parts):
        size = sum(
            extents.length[at]
            for part in read.parts
            for at in range(part.begin, part.end)
            if wanted[extents.entry[at]] and not alone[extents.entry[at]]
        )
        yield Job(-1, (read,), size)


def _reads(manifest: Manifest, parts: Iterable[Part]) -> Iterator[Read]:
    """Ranges that cover *parts* in their order, neighbours in one."""
    chunks = manifest.chunks
    pack, begin, end = -1, 0, 0
    held: list[Part] = []
    for part in parts:
        where, offset = chunks.pack[part.chunk], chunks.offset[part.chunk]
        stored = chunks.stored[part.chunk]
        if held and (where != pack or offset != end or end + stored - begin > READ_SIZE):
            yield Read(pack, begin, end - begin, tuple(held))
            held = []
        if not held:
            pack, begin, end = where, offset, offset
        held.append(part)
        end += stored
    if held:
        yield Read(pack, begin, end - begin, tuple(held))
