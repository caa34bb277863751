"""
What this machine can do at best, a few tenths of a second each: cores, disk, file system, store.

Each is measured in processes forked for it, one and as many as there are cores, so that no
interpreter's lock is in the way; the work is the same calls that cachepod makes, on chunks of the
very store. The rate is units by wall time of all processes, the CPU cost is that of one unit.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard
from blake3 import blake3
from xxhash import xxh3_128_digest

from benchmarks import measure
from benchmarks.ground import Ground, drop_caches
from cachepod.model.layout import CHUNK_SIZE, MIB, SMALL_FILE
from cachepod.model.manifest import Manifest
from cachepod.model.names import pack_name
from cachepod.model.tables import Encoding
from cachepod.snapshot.engine import decode_chunk
from cachepod.snapshot.plan import READ_SIZE
from cachepod.stores.base import Store
from cachepod.stores.pastcache import read_past_cache
from cachepod.stores.url import open_store

_SECONDS = 0.4  # of a measurement that may be repeated
_SAMPLE = 256 * MIB  # stored bytes of the chunks that are decoded
_WRITTEN = 256 * MIB  # bytes a process
_READ = 256 * MIB  # stored bytes in all
_NEIGHBOURS = 64  # files, or ranges of a big one, that are read one after another
_FILES = 3000  # a process
_SMALL = b"x" * 2000
_MTIME = 1_600_000_000_000_000_000


@dataclass(frozen=True)
class Speed:
    """
    One thing that the machine was asked to do.

    Args:
        what: It, such as ``decode (zstd)``.

        unit: ``B`` or ``files``.

        rates: Units a second of wall time, by the way it was done.

        cpu: CPU seconds of one unit, the least of these ways; user and system.
    """

    what: str
    unit: str
    rates: dict[str, float]
    cpu: float

    @property
    def best(self) -> float:
        """Units a second in the fastest way; 0 if it could not be done."""
        return max(self.rates.values(), default=0.0)


@dataclass(frozen=True)
class Sample:
    """Chunks of a snapshot, evenly chosen: stored and plain bytes of each, which are not raw."""

    chunks: Sequence[tuple[bytes, int]]

    @classmethod
    def of(cls, store: Store, manifest: Manifest) -> Sample:
        """Some 256 MiB of stored bytes; of a smaller snapshot all of it."""
        rows = [
            row
            for row in range(len(manifest.chunks))
            if manifest.chunks.encoding[row] == Encoding.ZSTD
        ]
        stored = sum(manifest.chunks.stored[row] for row in rows)
        step = max(1, round(stored / _SAMPLE))
        chunks = []
        for row in rows[::step]:
            data = bytearray(manifest.chunks.stored[row])
            name = pack_name(manifest.packs[manifest.chunks.pack[row]].id)
            store.read_range(name, manifest.chunks.offset[row], memoryview(data))
            chunks.append((bytes(data), manifest.chunks.raw[row]))
        return cls(chunks)

    def plain(self) -> list[bytes]:
        """The plain bytes of all."""
        decompressor = zstandard.ZstdDecompressor()
        return [decompressor.decompress(data, max_output_size=raw) for data, raw in self.chunks]


def in_processes(
    work: Callable[[int], int], count: int, prepare: Callable[[], object] = lambda: None
) -> tuple[int, float, float]:
    """
    Let *count* forked processes do *work*, which is given its number and returns units done.

    Each calls *prepare* before, and all wait for the last one.

    Returns:
        Units of all, wall seconds from the common start to the last end, CPU seconds of all.

    Raises:
        SystemExit: A process failed; what it said is on stderr.
    """
    go_read, go_write = os.pipe()
    sys.stdout.flush()
    answers: list[tuple[int, int]] = []
    for number in range(count):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(go_write)
                prepare()
                os.write(write, b"\n")
                os.read(go_read, 1)  # until the parent closes its end
                begun, cpu = time.monotonic(), time.process_time()
                units = work(number)
                told = (units, begun, time.monotonic(), time.process_time() - cpu)
                os.write(write, json.dumps(told).encode())
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        os.close(write)
        answers.append((pid, read))
    for _, read in answers:
        os.read(read, 1)
    os.close(go_read)
    os.close(go_write)
    told = []
    for pid, read in answers:
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        if data:
            told.append(json.loads(data))
    if len(told) < count:
        raise SystemExit("a measurement of the machine failed")
    wall = max(end for _, _, end, _ in told) - min(begun for _, begun, _, _ in told)
    return sum(each[0] for each in told), wall, sum(each[3] for each in told)


def _speed(
    what: str,
    unit: str,
    ways: Sequence[tuple[str, int, Callable[[int], int]]],
    before: Callable[[], object] = lambda: None,
    prepare: Callable[[], object] = lambda: None,
) -> Speed:
    """
    Measure every way, given as its name, its number of processes, and the work of one.

    Args:
        before: Called before each, here.

        prepare: Called before the work, in every process.
    """
    rates: dict[str, float] = {}
    cpus = []
    for name, count, work in ways:
        before()
        units, wall, cpu = in_processes(work, count, prepare)
        rates[name] = units / max(wall, 1e-6)
        cpus.append(cpu / max(units, 1))
    return Speed(what, unit, rates, min(cpus))


def _for_a_while(once: Callable[[], int]) -> Callable[[int], int]:
    def work(_: int) -> int:
        until, done = time.monotonic() + _SECONDS, 0
        while time.monotonic() < until:
            done += once()
        return done

    return work


def own_memory(size: int) -> memoryview:
    """
    Page-aligned memory of *size* bytes, of which each forked process comes to have its own.

    Processes that write to the same memory wait for one another.
    """
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _widths() -> list[tuple[str, int]]:
    cores = measure.cores()
    return [("1 process", 1)] + ([(f"{cores} processes", cores)] if cores > 1 else [])


def cores(sample: Sample, level: int = 3) -> Iterator[Speed]:
    """
    Decoding, compressing, hashing and copying.

    With every core at work: a core alone is often faster.
    """
    plain = sample.plain()
    stored = [data for data, _ in sample.chunks]
    buffer = own_memory(CHUNK_SIZE)

    def decode() -> int:
        decompressor = zstandard.ZstdDecompressor()
        for data, raw in sample.chunks:
            decode_chunk(decompressor, memoryview(data), Encoding.ZSTD, buffer[:raw], "sample")
        return sum(map(len, plain))

    def compress() -> int:
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        done, until = 0, time.monotonic() + _SECONDS
        for data in plain:
            compressor.compress(data)
            done += len(data)
            if time.monotonic() > until:
                break
        return done

    def hashed(digest: Callable[[bytes], object], over: list[bytes]) -> Callable[[], int]:
        return lambda: sum(len(data) for data in over if digest(data))

    def copy() -> int:
        for data in plain:
            buffer[: len(data)] = data
        return sum(map(len, plain))

    count = measure.cores()
    for what, once in (
        ("decode (zstd)", decode),
        (f"compress (zstd {level})", compress),
        ("XXH3-128", hashed(xxh3_128_digest, stored)),
        ("BLAKE3", hashed(lambda data: blake3(data).digest(), plain)),
        ("memory copy", copy),
    ):
        yield _speed(what, "B", [(f"{count} processes", count, _for_a_while(once))])


def disk(ground: Ground, sample: Sample) -> Iterator[Speed]:
    """Creating files of 2 kB, and writing big ones, on *ground*."""
    data = mmap.mmap(-1, CHUNK_SIZE)
    for chunk in sample.plain():
        data.write(chunk[: CHUNK_SIZE - data.tell()])
        if data.tell() == CHUNK_SIZE:
            break

    with ground.fresh() as place:

        def create(width: str) -> Callable[[int], int]:
            def work(number: int) -> int:
                folder = place / f"files-{width}-{number}"
                folder.mkdir()
                for file in range(_FILES):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    descriptor = os.open(f"{folder}/{file}", flags, 0o644)
                    os.write(descriptor, _SMALL)
                    os.utime(descriptor, ns=(_MTIME, _MTIME))
                    os.close(descriptor)
                return _FILES

            return work

        ways = [(name, count, create(str(count))) for name, count in _widths()]
        yield _speed("create a file of 2 kB", "files", ways)

        def write(flags: int, width: str) -> Callable[[int], int]:
            def work(number: int) -> int:
                path = f"{place}/big-{flags}-{width}-{number}"
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
                for _ in range(_WRITTEN // CHUNK_SIZE):
                    os.write(descriptor, data)
                os.close(descriptor)
                return _WRITTEN // CHUNK_SIZE * CHUNK_SIZE

            return work

        for what, flags in (("write, O_DIRECT", os.O_DIRECT), ("write, buffered", 0)):
            if flags and not _takes_direct(place):
                yield Speed(f"{what} (refused here)", "B", {}, 0.0)
                continue
            ways = [(name, count, write(flags, str(count))) for name, count in _widths()]
            yield _speed(what, "B", ways, os.sync)


def _takes_direct(place: Path) -> bool:
    path = place / "direct"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o644))
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)
    return True


def reading(url: str, manifest: Manifest) -> Speed:
    """Packs of the store, in ranges as a restore asks for, the page cache dropped before."""
    ranges = [
        (pack_name(pack.id), offset, min(READ_SIZE, pack.size - offset))
        for pack in manifest.packs
        for offset in range(0, pack.size, READ_SIZE)
    ]
    ranges = ranges[:: max(1, sum(size for *_, size in ranges) // _READ)]
    parallel = max(2 * measure.cores(), open_store(url).parallel_reads)
    opened: list[Store] = []

    def prepare() -> None:
        store = open_store(url)  # connections are not shared between processes
        store.read_range(ranges[0][0], 0, memoryview(bytearray(8)))
        opened[:] = [store]

    def read(count: int) -> Callable[[int], int]:
        def work(number: int) -> int:
            buffer = memoryview(mmap.mmap(-1, READ_SIZE))
            done = 0
            for name, offset, size in ranges[number::count]:
                opened[0].read_range(name, offset, buffer[:size])
                done += size
            return done

        return work

    ways = [("1 process", 1, read(1)), (f"{parallel} processes", parallel, read(parallel))]
    return _speed("read the store", "B", ways, drop_caches, prepare)


def reading_tree(tree: Path) -> Speed:
    """
    A part of the files of *tree*, in bytes a second, as a publish with a cold cache meets them.

    Files in a row rather than here and there, for neighbours lie beside one another; big ones past
    the page cache, where that can be.
    """
    pieces: list[tuple[str, int, int]] = []
    for folder, _, names in sorted(os.walk(tree)):
        for path in (f"{folder}/{name}" for name in names):
            size = 0 if os.path.islink(path) else os.lstat(path).st_size
            pieces += [(path, at, min(READ_SIZE, size - at)) for at in range(0, size, READ_SIZE)]
    step = max(1, sum(size for *_, size in pieces) // _READ)
    chosen = [
        piece
        for begin in range(0, len(pieces), step * _NEIGHBOURS)
        for piece in pieces[begin : begin + _NEIGHBOURS]
    ]
    parallel = 2 * measure.cores()

    def read(count: int) -> Callable[[int], int]:
        def work(number: int) -> int:
            buffer = memoryview(mmap.mmap(-1, READ_SIZE))
            done = 0
            for path, offset, size in chosen[number::count]:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if size >= SMALL_FILE and read_past_cache(descriptor):
                    size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
                done += os.preadv(descriptor, [buffer[:size]], offset)
                os.close(descriptor)
            return done

        return work

    ways = [("1 process", 1, read(1)), (f"{parallel} processes", parallel, read(parallel))]
    return _speed("read the tree", "B", ways, drop_caches)
