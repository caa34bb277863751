"""
The restore engine: packs to files, as fast as the machine allows.

What makes it fast, all measured: one big file at a time per worker, for two threads writing one
inode spin on its lock; buffers used again, for fresh ones cost page faults; O_DIRECT for big
files, which skips the page cache; no call per file that is not needed.
"""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import zstandard
from blake3 import blake3
from xxhash import xxh3_128_digest

from cachepod.errors import (
    SPACE_ERRORS,
    CorruptObject,
    SpaceExhausted,
    TreeUnreadable,
    write_problem,
)
from cachepod.limits import cores
from cachepod.model.layout import CHUNK_SIZE
from cachepod.model.manifest import Manifest
from cachepod.model.names import pack_name
from cachepod.model.tables import Encoding
from cachepod.snapshot.fetch import Fetcher, Source
from cachepod.snapshot.outfile import BLOCK, OutFile, write_all
from cachepod.snapshot.paths import LONGEST, reachable
from cachepod.snapshot.plan import READ_SIZE, Job, Part, Plan, Read
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.scan import MODE_MASK
from cachepod.snapshot.spent import CREATE, DECODE, HASH, PYTHON, READ, WRITE, Spent
from cachepod.snapshot.workers import run_workers

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Bytes that one worker takes: its two buffers, and what decompression keeps.
WORKER_MEMORY = READ_SIZE + CHUNK_SIZE + 1024 * 1024
#: Threads that write small files at the same time, at most, however many cores there are.
_AT_SMALL_FILES = 4
#: A file system without extended attributes, or without room for this one, is no reason to fail.
_UNWILLING = SPACE_ERRORS | {errno.ENOTSUP, errno.EPERM, errno.E2BIG}


class Engine:
    """
    Writes the files of one plan.

    Args:
        source: Where the packs come from.

        wanted: One byte an entry; files marked 1 are written.

        directories: Row of each directory to the absolute path to write it at.

        direct: Use O_DIRECT where the file system has it.

        check_ids: Compare the plain bytes of every chunk with its id, against who can forge the
            checksum of its stored bytes.

        spent: Told where the time goes.

    The inode and ctime of every file written are left in *inode* and *ctime*, as in an index.
    """

    def __init__(
        self,
        source: Source,
        manifest: Manifest,
        plan: Plan,
        wanted: bytearray,
        directories: Mapping[int, bytes],
        *,
        direct: bool,
        check_ids: bool = False,
        progress: Progress,
        spent: Spent,
    ) -> None:
        self.source = source
        self.manifest = manifest
        self.plan = plan
        self.wanted = wanted
        self.directories = directories
        self.direct = direct
        self.check_ids = check_ids
        self.progress = progress
        self.spent = spent
        total = len(manifest.entries)
        self.inode: array[int] = array("Q", bytes(8 * total))
        self.ctime: array[int] = array("q", bytes(8 * total))
        self.packs = [pack_name(pack.id) for pack in manifest.packs]
        umask = os.umask(0o077)
        os.umask(umask)
        self.umask = umask
        self.xattrs: dict[int, list[tuple[bytes, bytes]]] = {}
        for row, name, value in manifest.entries.xattrs:
            if name.startswith(b"user."):
                self.xattrs.setdefault(row, []).append((name, value))

    def run(self, threads: int, readers: int = 0) -> None:
        """
        Do every job of the plan; directories are there already.

        Args:
            threads: How many decode and write.

            readers: How many more read ahead of them.

        Raises:
            CorruptObject, ObjectMissing, StoreUnreachable: As reading has it.

            SpaceExhausted, TreeUnreadable: As writing has it.
        """
        # Big files wait for the disk, small ones for the interpreter and the file system's
        # metadata: one worker at the small ones all the time fills the gaps of the others. Of
        # those that are free in the end only some go on with them: they hand the interpreter's
        # lock to and fro, and with 8 threads on 2 cores took a tenth longer than with 3.
        jobs = len(self.plan.jobs) + len(self.plan.small_jobs)
        workers = max(1, min(threads, jobs))
        with self.spent.in_parallel():
            self.fetcher = Fetcher(
                self.source, self.packs, workers, readers if jobs else 0, self.spent
            )
            try:
                run_workers(
                    self.plan.jobs,
                    self._worker,
                    workers,
                    name="restore",
                    beside=self.plan.small_jobs,
                    prefer_beside=1,
                    most_beside=max(2, min(cores() + 1, _AT_SMALL_FILES)),
                )
            finally:
                self.fetcher.close()
        for row in self.plan.empty:
            descriptor = self.open(row)
            size = self.manifest.entries.size[row]
            if size:  # nothing but a hole
                try:
                    os.ftruncate(descriptor, size)
                except OSError as error:
                    os.close(descriptor)
                    raise self.writing(row, error) from error
            self.close(descriptor, row)
        self.spent.main.lap(CREATE, calls=len(self.plan.empty))
        self.progress.advance(len(self.plan.empty), 0)

    @contextmanager
    def _worker(self) -> Iterator[Callable[[Job], None]]:
        worker = _Worker(self)
        try:
            yield worker.handle
        finally:
            worker.close()
            self.fetcher.leave()

    def path(self, row: int) -> bytes:
        """Where the file *row* is written."""
        entries = self.manifest.entries
        return self.directories[entries.parent[row]] + b"/" + entries.names[row]

    def open(self, row: int, flags: int = 0) -> int:
        """Create file *row* and nothing else: not through a symlink, not over what is there."""
        path = self.path(row)
        mode = self.manifest.entries.mode[row] & MODE_MASK
        try:
            if len(path) > LONGEST:
                with reachable(path) as short:
                    return os.open(short, _NEW | flags, mode)
            try:
                return os.open(path, _NEW | flags, mode)
            except OSError as error:
                if not flags or error.errno != errno.EINVAL:
                    raise
                # No O_DIRECT on this file system. The kernel may have created the file before it
                # found out, but it is ours all the same.
                self.direct = False
                if os.path.lexists(path):
                    os.unlink(path)
                return os.open(path, _NEW, mode)
        except OSError as error:
            raise self.writing(row, error) from error

    def close(self, descriptor: int, row: int) -> None:
        """Give file *row* its attributes, note inode and ctime, and close it."""
        entries = self.manifest.entries
        mode = entries.mode[row] & MODE_MASK
        try:
            if mode & self.umask or mode & ~0o777:
                os.fchmod(descriptor, mode)
            if row in self.xattrs:
                self.set_xattrs(row, descriptor)
            mtime = entries.mtime[row]
            os.utime(descriptor, ns=(mtime, mtime))
            info = os.fstat(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise self.writing(row, error) from error
        os.close(descriptor)
        self.inode[row], self.ctime[row] = info.st_ino, info.st_ctime_ns

    def set_xattrs(self, row: int, where: int | bytes) -> None:
        """Set the extended attributes as far as the file system takes them."""
        try:
            for name, value in self.xattrs.get(row, ()):
                os.setxattr(where, os.fsdecode(name), value)
        except OSError as error:
            if error.errno not in _UNWILLING:
                raise

    def writing(self, row: int, error: OSError) -> SpaceExhausted | TreeUnreadable:
        """What a failed write of *row* is called."""
        return write_problem(self.path(row), error)


class _Worker:
    """One thread's buffer and stop watch."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.watch = engine.spent.watch()
        self._plain_memory = mmap.mmap(-1, CHUNK_SIZE)
        self.plain = memoryview(self._plain_memory)
        self.decompressor = zstandard.ZstdDecompressor()

    def close(self) -> None:
        self.plain.release()
        try:
            self._plain_memory.close()
        except BufferError:
            pass  # a traceback still holds a view; the memory goes with it
        self.watch.close()

    def handle(self, job: Job) -> None:
        if job.row < 0:
            self._small_files(job)
        else:
            self._big_file(job)

    def _small_files(self, job: Job) -> None:
        engine = self.engine
        with engine.fetcher.stream(job.reads, self.watch) as ranges:
            for read, stored in ranges:
                for part in read.parts:
                    plain = self._decode(read, stored, part.chunk)
                    files = self._files_of(part, plain)
                    plain.release()
                    engine.progress.advance(files, engine.manifest.chunks.raw[part.chunk])

    def _files_of(self, part: Part, plain: memoryview) -> int:
        """Write the wanted small files of one chunk; how many they are."""
        engine = self.engine
        extents = engine.manifest.extents
        wanted, alone = engine.wanted, engine.plan.alone
        watch = self.watch
        watch.lap(PYTHON)
        files = size = 0
        writing = 0.0
        for at in range(part.begin, part.end):
            row = extents.entry[at]
            if not wanted[row] or alone[row]:
                continue
            start, length = extents.start[at], extents.length[at]
            descriptor = engine.open(row)
            looked_at = watch.looks_at(files, length)
            if looked_at:
                watch.write_begins()
            begun = perf_counter()
            try:
                write_all(descriptor, plain[start : start + length])
            except OSError as error:
                os.close(descriptor)
                raise engine.writing(row, error) from error
            writing += perf_counter() - begun
            if looked_at:
                watch.write_ends(length)
            engine.close(descriptor, row)
            files += 1
            size += length
        watch.files_end(files, size, writing)
        return files

    def _big_file(self, job: Job) -> None:
        engine, row = self.engine, job.row
        extents = engine.manifest.extents
        size = engine.manifest.entries.size[row]
        direct, watch = engine.direct, self.watch
        watch.lap(PYTHON)
        descriptor = engine.open(row, os.O_DIRECT if direct else 0)
        watch.lap(CREATE, calls=0)
        file = OutFile(descriptor, direct and engine.direct)
        try:
            reached = 0
            with engine.fetcher.stream(job.reads, watch) as ranges:
                for read, stored in ranges:
                    for chunk, begin, end in read.parts:
                        plain = self._decode(read, stored, chunk)
                        for at in range(begin, end):
                            start, length = extents.start[at], extents.length[at]
                            offset = extents.offset[at]
                            with plain[start : start + length] as data:
                                file.write(data, offset, aligned=start % BLOCK == 0)
                            watch.lap(WRITE, length)
                            reached = max(reached, offset + length)
                            engine.progress.advance(0, length)
                        plain.release()
            if reached < size:
                os.ftruncate(descriptor, size)
        except OSError as error:
            os.close(descriptor)
            raise engine.writing(row, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        watch.lap(PYTHON)
        engine.close(descriptor, row)
        watch.lap(CREATE)
        engine.progress.advance(1, 0)

    def _decode(self, read: Read, stored: memoryview, chunk: int) -> memoryview:
        """The plain bytes of *chunk*, from the range just read; checked before they are decoded."""
        chunks = self.engine.manifest.chunks
        name = self.engine.packs[read.pack]
        at = chunks.offset[chunk] - read.offset
        watch = self.watch
        watch.lap(PYTHON)
        with stored[at : at + chunks.stored[chunk]] as own:
            intact = xxh3_128_digest(own) == chunks.check(chunk)
            watch.lap(HASH, len(own))
            if not intact:
                self.engine.source.read_again(name, chunks.offset[chunk], own, chunks.check(chunk))
                watch.lap(READ, len(own))
            plain = decode_chunk(
                self.decompressor,
                own,
                Encoding(chunks.encoding[chunk]),
                self.plain[: chunks.raw[chunk]],
                name,
            )
            watch.lap(DECODE, len(plain))
        if self.engine.check_ids:
            if blake3(plain).digest() != chunks.id(chunk):
                where = chunks.offset[chunk]
                raise CorruptObject(name, f"the chunk at {where} is not that of its id")
            watch.lap(HASH, len(plain))
        return plain


def decode_chunk(
    decompressor: zstandard.ZstdDecompressor,
    stored: memoryview,
    encoding: Encoding,
    into: memoryview,
    name: str,
) -> memoryview:
    """
    Decompress one chunk into *into*, which has its plain size.

    Returns:
        *into*, filled; or, for a raw chunk, a copy in it.

    Raises:
        CorruptObject: It is no frame of that size; *name* is the pack's.
    """
    if encoding == Encoding.RAW:
        into[:] = stored
        return into
    try:
        with decompressor.stream_reader(stored, read_across_frames=False) as reader:
            filled = 0
            while filled < len(into):
                count = reader.readinto(into[filled:])
                if not count:
                    raise CorruptObject(name, "a chunk is shorter than it should be")
                filled += count
            if reader.read(1):
                raise CorruptObject(name, "a chunk is longer than it should be")
    except zstandard.ZstdError as error:
        raise CorruptObject(name, f"a chunk cannot be decompressed ({error})") from error
    return into
