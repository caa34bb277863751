"""Files into chunks: what a publish reads from the trees, and how it notices a moving target."""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from cachepod.errors import TreeChanged, TreeUnreadable
from cachepod.model.layout import CHUNK_SIZE, SEGMENT_CHUNKS, SMALL_FILE
from cachepod.snapshot.paths import reachable
from cachepod.snapshot.scan import Scan
from cachepod.stores.pastcache import read_past_cache, set_direct


class Piece(NamedTuple):
    """A stretch of file *row* that goes into a chunk; *offset* and *length* in bytes."""

    row: int
    offset: int
    length: int


@dataclass(frozen=True)
class RunTask:
    """One chunk of small files, *rows* one after another; *size* bytes in all."""

    rows: array[int]
    size: int

    @property
    def files(self) -> int:
        """How many files are done when the task is."""
        return len(self.rows)

    def __len__(self) -> int:
        return 1

    def pieces(self, scan: Scan, chunk: int) -> Sequence[Piece]:
        """The pieces of the one chunk; made anew each time, for there may be a million."""
        sizes = scan.entries.size
        return [Piece(row, 0, sizes[row]) for row in self.rows]


@dataclass(frozen=True)
class FileTask:
    """A part of a big file, as the pieces of each chunk; *size* bytes, *files* 1 if it ends one."""

    windows: tuple[tuple[Piece, ...], ...]
    size: int
    files: int

    def __len__(self) -> int:
        return len(self.windows)

    def pieces(self, scan: Scan, chunk: int) -> Sequence[Piece]:
        """The pieces of chunk number *chunk* of this task."""
        return self.windows[chunk]


Task: TypeAlias = RunTask | FileTask


def run_task(scan: Scan, rows: Sequence[int]) -> RunTask:
    """One chunk of small files."""
    sizes = scan.entries.size
    return RunTask(array("I", rows), sum(sizes[row] for row in rows))


def file_tasks(scan: Scan, row: int) -> Iterator[FileTask]:
    """
    A big file, cut at multiples of the chunk size; holes are left out.

    Raises:
        TreeChanged, TreeUnreadable: It is not there any more, or cannot be read.
    """
    windows: list[tuple[Piece, ...]] = []
    size = scan.entries.size[row]
    stretches = _data_stretches(scan, row) if row in scan.sparse else [(0, size)]
    pending: list[Piece] = []
    window = -1
    for begin, end in stretches:
        while begin < end:
            here = begin // CHUNK_SIZE
            stop = min(end, (here + 1) * CHUNK_SIZE)
            if here != window and pending:
                windows.append(tuple(pending))
                pending = []
            window = here
            pending.append(Piece(row, begin, stop - begin))
            begin = stop
    if pending:
        windows.append(tuple(pending))
    for first in range(0, len(windows), SEGMENT_CHUNKS):
        part = tuple(windows[first : first + SEGMENT_CHUNKS])
        size = sum(piece.length for pieces in part for piece in pieces)
        yield FileTask(part, size, int(first + SEGMENT_CHUNKS >= len(windows)))


def _data_stretches(scan: Scan, row: int) -> list[tuple[int, int]]:
    """Where a sparse file has data, as (begin, end); see SEEK_HOLE in lseek(2)."""
    size = scan.entries.size[row]
    found: list[tuple[int, int]] = []
    descriptor = _open(scan, row)
    try:
        check_unchanged(scan, row, descriptor)
        position = 0
        while position < size:
            try:
                begin = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole follows
                    break
                return [(0, size)]
            try:
                end = os.lseek(descriptor, begin, os.SEEK_HOLE)
            except OSError:
                return [(0, size)]
            found.append((begin, min(end, size)))
            position = end
    finally:
        os.close(descriptor)
    return found


def _open(scan: Scan, row: int) -> int:
    path = scan.path(row)
    try:
        with reachable(path) as short:
            return os.open(short, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise TreeChanged(os.fsdecode(path)) from error
        raise TreeUnreadable(os.fsdecode(path), error.strerror or str(error)) from error


def check_unchanged(scan: Scan, row: int, descriptor: int) -> None:
    """Raise TreeChanged unless the open file is as *scan* found it."""
    try:
        info = os.fstat(descriptor)
    except OSError as error:
        path = os.fsdecode(scan.path(row))
        raise TreeUnreadable(path, error.strerror or str(error)) from error
    if (
        info.st_ino != scan.inode[row]
        or info.st_ctime_ns != scan.ctime[row]
        or info.st_size != scan.entries.size[row]
        or info.st_mtime_ns != scan.entries.mtime[row]
    ):
        raise TreeChanged(os.fsdecode(scan.path(row)))


class Reader:
    """
    Reads the pieces of chunks into a buffer, one worker's.

    The file of the piece before stays open, for a big file comes as many pieces. One that is not
    in the page cache, as it is after an install, is read past it: nobody needs it there, and to
    make room for gigabytes took a quarter of a publish's CPU time.

    Args:
        direct: Whether big files may be read so.
    """

    def __init__(self, scan: Scan, *, direct: bool = True) -> None:
        self._scan = scan
        self._row = -1
        self._descriptor = -1
        self._may = direct
        self._direct = False  # the file at hand

    def fill(self, pieces: Sequence[Piece], buffer: memoryview) -> memoryview:
        """
        Read the plain bytes of one chunk.

        Args:
            buffer: Begins at a page's boundary in memory, and has whole pages.

        Returns:
            The part of *buffer* that was filled.

        Raises:
            TreeChanged: A file is not as the scan found it.

            TreeUnreadable: It cannot be read.
        """
        position = 0
        for piece in pieces:
            fresh = piece.row != self._row
            if fresh:
                self.close()
                self._descriptor = _open(self._scan, piece.row)
                self._row = piece.row
                check_unchanged(self._scan, piece.row, self._descriptor)
                self._direct = False
            end = position + piece.length
            try:
                if fresh and self._may and self._scan.entries.size[piece.row] >= SMALL_FILE:
                    self._direct = read_past_cache(self._descriptor)
                self._read(piece, buffer[position:])
            except OSError as error:
                path = os.fsdecode(self._scan.path(piece.row))
                raise TreeUnreadable(path, error.strerror or str(error)) from error
            position = end
        return buffer[:position]

    def _read(self, piece: Piece, room: memoryview) -> None:
        """*piece* to the beginning of *room*; what lies behind it there may be written over."""
        done = 0
        while done < piece.length:
            size = piece.length - done
            if self._direct:  # whole pages; beyond the end of a file nothing is read
                size = min(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE, len(room) - done)
            try:
                count = os.preadv(self._descriptor, [room[done : done + size]], piece.offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                # A stretch that is not aligned, or a file system that wants more than that.
                set_direct(self._descriptor, False)
                self._direct = False
                continue
            if count == 0:
                raise TreeChanged(os.fsdecode(self._scan.path(piece.row)))
            done += count

    def close(self) -> None:
        """
        Close the file at hand.

        Raises:
            TreeChanged: It was written to since it was opened.
        """
        if self._descriptor >= 0:
            try:
                check_unchanged(self._scan, self._row, self._descriptor)
            finally:
                os.close(self._descriptor)
                self._descriptor, self._row = -1, -1

    def abandon(self) -> None:
        """Close without looking; for a worker that has failed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._row = -1, -1
