"""
Reads snapshots back and compares every digest; restores nothing and changes nothing. What can be
done about damage is in repair.py.

Chunks that several snapshots share are read once. What is damaged is named, with the keys of the
snapshots that need it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cachepod.errors import (
    CachepodError,
    CorruptObject,
    NewerFormat,
    ObjectMissing,
    StoreUnreachable,
)
from cachepod.limits import cores
from cachepod.model.manifest import HEADER, Manifest
from cachepod.model.names import MANIFESTS, check_key, manifest_name, pack_name
from cachepod.snapshot.catalog import load_manifest
from cachepod.snapshot.chunks import ChunkAt, ChunkReader, adjacent, extent_of
from cachepod.snapshot.damage import Problem
from cachepod.snapshot.packtable import read_table
from cachepod.snapshot.phases import Phases
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.workers import run_workers, together
from cachepod.stores.base import Store

#: Stored bytes that one worker takes at a time; a pack is shared by several.
_TASK_SIZE = 32 * 1024 * 1024
_READING = 4  # threads that read manifests, at least


@dataclass(frozen=True)
class VerifyReport:
    """
    What a verification found.

    Args:
        snapshots: Keys whose manifests were read.

        objects: Manifests and packs looked at.

        chunks: Chunks read and compared.

        size: Bytes read from the store.

        problems: What is wrong, by name of the object.

        damaged: What manifests say of the packs among them, by id.

        skipped: Keys of snapshots of a later format, which cannot be judged.

        phases: Seconds of each.
    """

    snapshots: int
    objects: int
    chunks: int
    size: int
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)
    damaged: Mapping[str, DescribedPack] = field(default_factory=dict, repr=False)


def verify(
    store: Store,
    keys: Sequence[str] | None = None,
    *,
    quick: bool = False,
    threads: int = 0,
    progress: Progress | None = None,
) -> VerifyReport:
    """
    Read the snapshots *keys* of *store* back, or all of them.

    Args:
        quick: Read the manifests, and of the packs only ask whether they are there and as long as
            they should be.

        threads: Zero for one a core, and as many more as the store rewards.

    Raises:
        Miss: There is no snapshot of a key that was named, or it is one of a later format.

        StoreUnreachable: Nothing could be read.
    """
    phases = Phases(progress or NoProgress())
    phases.begin("manifests")
    run = _Run(store, progress or NoProgress(), quick=quick)
    run.read_manifests(keys)
    tasks = run.tasks()
    phases.begin("packs", files=len(run.packs), size=run.wanted)
    run_workers(
        tasks,
        run.worker,
        threads or cores() + store.parallel_reads,
        name="verify",
    )
    return run.report(phases.end())


@dataclass
class DescribedPack:
    """What manifests say of one pack; sets of keys are bits of a number."""

    chunks: dict[ChunkAt, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    pack: str
    reads: tuple[tuple[ChunkAt, ...], ...]
    whole: bool  # whether to look at the size and the table too


@dataclass
class _Damage:
    whys: dict[str, None] = field(default_factory=dict)  # a set that keeps its order
    harmless: dict[str, None] = field(default_factory=dict)
    keys: int = 0
    certain: bool = False


class _Run:
    def __init__(self, store: Store, progress: Progress, *, quick: bool) -> None:
        self.packs: dict[str, DescribedPack] = {}
        self.wanted = 0
        self._store = store
        self._progress = progress
        self._quick = quick
        self._keys: list[str] = []
        self._digests: dict[str, str] = {}
        self._skipped: list[str] = []
        self._manifests = 0
        self._damages: dict[str, _Damage] = {}
        self._unreachable: StoreUnreachable | None = None
        self._lock = threading.Lock()
        self._read = 0
        self._chunks = 0

    # Manifests

    def read_manifests(self, keys: Sequence[str] | None) -> None:
        named = keys is not None
        if keys is None:
            names = sorted(info.name for info in self._store.list(MANIFESTS))
            keys = [name.rpartition("/")[2] for name in names]
            for name, key in zip(names, keys, strict=True):
                if manifest_name(key) != name:
                    self._damage(name, "no manifest has this name", 0)
            keys = [
                key for name, key in zip(names, keys, strict=True) if manifest_name(key) == name
            ]
        keys = [check_key(key) for key in dict.fromkeys(keys)]
        threads = max(_READING, self._store.parallel_reads)
        for key, outcome in zip(keys, together(self._load, keys, threads), strict=True):
            self._progress.advance(0, 0)  # a watchdog sees that something moves
            self._take_in(key, outcome, named)

    def _load(self, key: str) -> tuple[Manifest, int] | CachepodError:
        try:
            return load_manifest(self._store, key), self._store.size(manifest_name(key))
        except CachepodError as error:
            return error

    def _take_in(
        self, key: str, outcome: tuple[Manifest, int] | CachepodError, named: bool
    ) -> None:
        bit = 1 << len(self._keys)
        self._keys.append(key)
        name = manifest_name(key)
        try:
            if isinstance(outcome, CachepodError):
                raise outcome
            manifest, size = outcome
            self._read += size
        except NewerFormat:
            if named:
                raise
            self._skipped.append(key)
            return
        except CorruptObject as error:
            self._manifests += 1
            self._damage(name, error.why, bit)
            return
        except StoreUnreachable as error:
            self._unreachable = self._unreachable or error
            self._damage(name, error.why, bit, certain=False)
            return
        except CachepodError:
            if named:
                raise
            return  # it vanished since the listing
        self._manifests += 1
        self._digests[key] = manifest.digest
        chunks, packs = manifest.chunks, manifest.packs
        for info in packs:
            sizes = self.packs.setdefault(info.id, DescribedPack()).sizes
            sizes[info.size] = sizes.get(info.size, 0) | bit
        for row in range(len(chunks)):
            found = self.packs[packs[chunks.pack[row]].id].chunks
            chunk = ChunkAt.of(chunks, row)
            found[chunk] = found.get(chunk, 0) | bit

    # Packs

    def tasks(self) -> list[_Task]:
        """What the workers do, pack by pack."""
        tasks = []
        for pack, described in sorted(self.packs.items()):
            whole = True
            if self._quick:
                tasks.append(_Task(pack, (), whole))
                continue
            reads: list[tuple[ChunkAt, ...]] = []
            size = 0
            for read in adjacent(sorted(described.chunks)):
                if reads and size + extent_of(read) > _TASK_SIZE:
                    tasks.append(_Task(pack, tuple(reads), whole))
                    whole, reads, size = False, [], 0
                reads.append(read)
                size += extent_of(read)
                self.wanted += extent_of(read)
            tasks.append(_Task(pack, tuple(reads), whole))
        return tasks

    @contextmanager
    def worker(self) -> Iterator[Callable[[_Task], None]]:
        reader = ChunkReader(self._store)

        def handle(task: _Task) -> None:
            if task.whole:
                self._check_whole(task.pack)
            reachable = True
            for read in task.reads:
                if reachable:
                    reachable = self._check_chunks(reader, task.pack, read)
                else:
                    keys = _union(self.packs[task.pack].chunks[chunk] for chunk in read)
                    self._hurt(pack_name(task.pack), keys)
                self._progress.advance(0, extent_of(read))
            if task.whole:
                self._progress.advance(1, 0)

        yield handle

    def _check_chunks(self, reader: ChunkReader, pack: str, read: Sequence[ChunkAt]) -> bool:
        """False if there is no sense in reading more of this pack for now."""
        begin, size = read[0].offset, extent_of(read)
        stored: memoryview | None = None
        try:
            stored = reader.fetch(pack, begin, size)
        except CorruptObject:
            pass  # it is too short: one by one, to see which chunks are still there
        except CachepodError as error:
            self._note(pack, error, _union(self.packs[pack].chunks[chunk] for chunk in read))
            return False
        for chunk in read:
            own = None
            if stored is not None:
                own = stored[chunk.offset - begin : chunk.offset - begin + chunk.stored]
            try:
                reader.plain(pack, chunk, own)
            except CachepodError as error:
                self._note(pack, error, self.packs[pack].chunks[chunk])
            else:
                with self._lock:
                    self._chunks += 1
                    self._read += chunk.stored
        return True

    def _check_whole(self, pack: str) -> None:
        """The size of a pack, its head and its table; what restores do not look at hurts no key."""
        name, described = pack_name(pack), self.packs[pack]
        try:
            size = self._store.size(name)
        except CachepodError as error:
            self._note(pack, error, _union(described.sizes.values()))
            return
        for expected, keys in described.sizes.items():
            if size != expected:
                self._damage(name, f"it has {size} bytes instead of {expected}", keys)
        if self._quick:
            return
        try:
            try:
                self._check_table(name, size, described)
            except (CorruptObject, NewerFormat):
                # Once more: a wrong byte on the way is not a wrong byte in the store.
                self._check_table(name, size, described)
        except (CorruptObject, NewerFormat) as error:
            # Of a later format it cannot be, for manifests of this one refer to it.
            self._damage(name, error.why, 0)
        except CachepodError as error:
            self._note(pack, error, 0)

    def _check_table(self, name: str, size: int, described: DescribedPack) -> None:
        listed = set(
            read_table(lambda offset, length: self._bytes(name, offset, length), name, size)
        )
        if not listed.issuperset(described.chunks):
            raise CorruptObject(name, "its table lacks chunks that manifests name")

    def _bytes(self, name: str, offset: int, size: int) -> bytes:
        data = bytearray(size)
        self._store.read_range(name, offset, memoryview(data))
        with self._lock:
            self._read += size
        return bytes(data)

    # Findings

    def _note(self, pack: str, error: CachepodError, keys: int) -> None:
        if isinstance(error, StoreUnreachable):
            with self._lock:
                self._unreachable = self._unreachable or error
        why = getattr(error, "why", "") or "it is not in the store"
        certain = not isinstance(error, StoreUnreachable)
        self._damage(pack_name(pack), why, keys, certain=certain)

    def _damage(self, name: str, why: str, keys: int, *, certain: bool = True) -> None:
        with self._lock:
            damage = self._damages.setdefault(name, _Damage())
            damage.certain = damage.certain or certain
            (damage.whys if keys else damage.harmless)[why] = None
            damage.keys |= keys

    def _hurt(self, name: str, keys: int) -> None:
        with self._lock:
            self._damages[name].keys |= keys

    def report(self, phases: dict[str, float]) -> VerifyReport:
        if self._unreachable is not None and not self._chunks and not self._manifests:
            raise self._unreachable
        problems = list(self._problems())
        packs = {each.name.rpartition("/")[2] for each in problems}
        return VerifyReport(
            snapshots=self._manifests,
            objects=self._manifests + len(self.packs),
            chunks=self._chunks,
            size=self._read,
            problems=tuple(problems),
            skipped=tuple(self._skipped),
            phases=phases,
            damaged={pack: self.packs[pack] for pack in packs if pack in self.packs},
        )

    def _problems(self) -> Iterator[Problem]:
        gone: dict[str, bool] = {}
        for name, damage in sorted(self._damages.items()):
            hurt = [key for place, key in enumerate(self._keys) if damage.keys >> place & 1]
            for key in hurt:
                if key not in gone:
                    gone[key] = self._is_gone(key)
            keys = tuple(key for key in hurt if not gone[key])
            if keys or not hurt:
                yield Problem(name, _in_words(damage), keys, unreachable=not damage.certain)

    def _is_gone(self, key: str) -> bool:
        """Whether *key* was dropped or published anew meanwhile: then its packs may be gone too."""
        try:
            head = self._bytes(manifest_name(key), 0, HEADER.size)
        except ObjectMissing:
            return True
        except CachepodError:
            return False
        known = self._digests.get(key, "")
        return bool(known) and Manifest.digest_of(head) != known


def _in_words(damage: _Damage) -> str:
    whys = [*damage.whys, *damage.harmless]
    first, more = whys[0], len(whys) - 1
    if not more:
        return first
    return f"{first}, and {more} more {'fault' if more == 1 else 'faults'}"


def _union(keys: Iterable[int]) -> int:
    total = 0
    for each in keys:
        total |= each
    return total
