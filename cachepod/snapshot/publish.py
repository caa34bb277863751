"""
Trees to store.

Order of writes: packs, each durable before the next is begun, then the manifest. The write of the
manifest is the sole commit point; killed before it, a publish leaves packs that nothing needs.
"""

from __future__ import annotations

import mmap
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import cachepod
from cachepod.errors import PinLost, UsageProblem
from cachepod.limits import cores
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.layout import CHUNK_SIZE
from cachepod.model.manifest import Manifest
from cachepod.model.names import check_tree_name, manifest_name
from cachepod.model.signature import Signer
from cachepod.model.summary import Summary, TreeInfo
from cachepod.model.tables import Kind
from cachepod.snapshot.assemble import assemble
from cachepod.snapshot.commit import commit, may_be_stored, withdraw
from cachepod.snapshot.grouping import Grouping, group, small_runs
from cachepod.snapshot.held import Held, read_held, write_held
from cachepod.snapshot.packing import ChunkIndex, Packer, Place, discard
from cachepod.snapshot.phases import Phases
from cachepod.snapshot.pins import Pin, hold_pin
from cachepod.snapshot.prior import Prior
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.reading import Piece, Reader, Task, file_tasks, run_task
from cachepod.snapshot.relatives import known_chunks
from cachepod.snapshot.scan import Scan, TreeSource, scan
from cachepod.snapshot.spent import COMMIT, COMPARE, IDLE, PYTHON, READ, SCAN, Profile, Spent
from cachepod.snapshot.stamp import ENVIRONMENT_TREE, Stamp, State, has_stamp, read_stamp
from cachepod.snapshot.ticks import outlast
from cachepod.snapshot.uses import creator_of, install_seconds
from cachepod.snapshot.workers import run_workers
from cachepod.stores.base import WriteStore, exists

__all__ = ["PublishReport", "TreeSource", "publish"]

#: Plain bytes to be stored for which it pays to start one worker more. Each leaves a pack, and of
#: an environment that changes a little many times, all of them are looked at by every publish.
_WORTH_A_WORKER = 16 * 1024 * 1024


@dataclass(frozen=True)
class PublishReport:
    """
    What a publish did.

    Args:
        outcome: ``stored``; ``present`` if the snapshot was there; ``lost`` if another publisher
            was first, whose snapshot stays.

        files: Regular files and hard links of the snapshot.

        size: Their plain bytes.

        stored_new: Bytes written to the store, the manifest included.

        reused: Plain bytes that the store had already.

        read: Bytes read from the trees.

        phases: Seconds of each.

        warnings: What was left out, in words.

        profile: Where the time went; None if nothing was read.
    """

    outcome: str
    files: int = 0
    size: int = 0
    stored_new: int = 0
    reused: int = 0
    read: int = 0
    phases: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
    profile: Profile | None = None


def publish(
    store: WriteStore,
    key: str,
    fingerprint: Fingerprint,
    trees: Sequence[TreeSource],
    *,
    level: int = 3,
    threads: int = 0,
    force: bool = False,
    direct: bool = True,
    sign: Signer | None = None,
    progress: Progress | None = None,
) -> PublishReport:
    """
    Store *trees* as the snapshot *key*.

    Args:
        level: Of zstd, 1 to 22.

        threads: Zero for one a core and one more, for some wait until a pack is durable.

        force: Store it even if there is a snapshot of this key, and put it in that one's place.

        direct: Read big files past the page cache where they are not in it.

        sign: Signs the manifest.

    Raises:
        TreeChanged, TreeUnreadable: Nothing was published.

        UsageProblem: A tree is not complete, or is that of another key.

        SpaceExhausted, StoreUnreachable: As the store has it; what was written is deleted again
            as far as possible.

        PinLost: The store or this machine stood still for so long that a prune has deleted what
            was relied on; nothing was published.
    """
    if not force and exists(store, manifest_name(key)):
        return PublishReport("present")
    for tree in trees:
        _check_complete(tree, key)
    with hold_pin(store) as pin:
        return _publish(
            store,
            pin,
            key,
            fingerprint,
            trees,
            level,
            threads,
            force,
            direct,
            sign,
            progress or NoProgress(),
        )


def _publish(
    store: WriteStore,
    pin: Pin,
    key: str,
    fingerprint: Fingerprint,
    trees: Sequence[TreeSource],
    level: int,
    threads: int,
    force: bool,
    direct: bool,
    sign: Signer | None,
    progress: Progress,
) -> PublishReport:
    phases, spent = Phases(progress), Spent()
    watch = spent.main
    phases.begin("scan")
    found = scan(trees, progress)
    watch.lap(SCAN, calls=len(found.entries))
    for warning in found.warnings:
        progress.note(warning)
    outlast(max(found.ctime, default=0))  # so that a write from now on shows
    watch.lap(IDLE, calls=0)
    grouping = group(found)
    found.entries = replace(found.entries, owner=grouping.owner)
    phases.begin("compare")
    watch.lap(PYTHON)
    made_from = [stamp.key for tree in trees if (stamp := read_stamp(tree.root)) is not None]
    index = known_chunks(store, key, made_from, pin)
    held = [read_held(tree.root, tree.name) for tree in trees]
    watch.lap(COMPARE)
    took = _install_seconds(trees, held)
    priors = [Prior(found, each, row) for row, each in enumerate(held) if each is not None]
    run = _Run(store, pin, found, index, priors, level, direct, progress, spent)
    tasks = _plan(found, grouping)
    phases.begin(
        "store", files=sum(task.files for task in tasks), size=sum(task.size for task in tasks)
    )
    data = b""
    try:
        run.store(tasks, threads or cores() + 1)
        phases.begin("commit")
        manifest = assemble(
            found,
            tasks,
            run.places,
            {**index.pack_sizes, **run.packs},
            partial(
                Summary,
                key=key,
                fingerprint=fingerprint,
                trees=tuple(
                    TreeInfo(tree.name, os.path.abspath(tree.root), tree.around) for tree in trees
                ),
                distributions=grouping.distributions,
                creator={
                    "cachepod": cachepod.__version__,
                    "host": platform.node(),
                    "level": str(level),
                    **creator_of(took),
                },
                created=time.time(),
            ),
        )
        data = manifest.encode(sign)
        watch.lap(PYTHON)
        needed = {pack.id: pack.size for pack in manifest.packs}
        pin.confirm(needed)
        won = commit(store, key, data, force=force)
    except BaseException:
        # A commit may have been carried out although it failed: its answer is lost, then.
        if not data or not may_be_stored(store, key, data):
            discard(store, run.packs)
        raise
    won = won or may_be_stored(store, key, data)
    if not won:
        # Nobody can have come to rely on these packs: only a manifest makes them known.
        discard(store, run.packs)
    else:
        _confirm_again(store, pin, key, data, needed)
        _remember(trees, key, found, data)
    watch.lap(COMMIT)
    summary = manifest.summary
    return PublishReport(
        outcome="stored" if won else "lost",
        files=summary.files,
        size=summary.size,
        stored_new=run.written + len(data) if won else 0,
        reused=run.reused,
        read=run.read,
        phases=phases.end(),
        warnings=tuple(found.warnings),
        profile=spent.end(),
    )


def _check_complete(tree: TreeSource, key: str) -> None:
    check_tree_name(tree.name)
    stamp = read_stamp(tree.root)
    if stamp is None and not has_stamp(tree.root):
        return
    if stamp is None or stamp.state in (State.INSTALLING, State.FILLING, State.PARTIAL):
        raise UsageProblem(
            f"{tree.root} is not complete, so nothing is published",
            hint="run 'cachepod install' first",
        )
    if tree.name == ENVIRONMENT_TREE and stamp.key != key:
        raise UsageProblem(
            f"{tree.root} was made for {stamp.key}, not for {key}, so nothing is published",
            hint="run 'cachepod restore || cachepod install' first",
        )


def _install_seconds(trees: Sequence[TreeSource], held: Sequence[Held | None]) -> float:
    """How long it took to install what is installed, and not restored; 0 if that is not known."""
    stamps = [read_stamp(tree.root) for tree in trees]
    installed = [
        stamp.install_seconds
        for stamp in stamps
        if stamp is not None and stamp.state is State.INSTALLED
    ]
    if installed:
        return sum(installed)
    for stamp, snapshot in zip(stamps, held, strict=True):
        if stamp is not None and snapshot is not None:  # what it was restored from knows
            return install_seconds(snapshot.manifest.summary)
    return 0.0


def _plan(found: Scan, grouping: Grouping) -> list[Task]:
    """What to read, in the order in which the manifest will list it."""
    tasks: list[Task] = []
    in_runs = bytearray(len(found.entries))
    for rows in small_runs(found, grouping):
        tasks.append(run_task(found, rows))
        for row in rows:
            in_runs[row] = 1
    for row, (kind, size) in enumerate(zip(found.entries.kind, found.entries.size, strict=True)):
        if kind == Kind.FILE and size and not in_runs[row]:
            tasks.extend(file_tasks(found, row))
    return tasks


class _Job(NamedTuple):
    """A task of which a part is not known: where its places go, and those that are known."""

    task: Task
    places: list[Place]
    known: list[Place | None]


class _Run:
    """One publish at work."""

    def __init__(
        self,
        store: WriteStore,
        pin: Pin,
        found: Scan,
        index: ChunkIndex,
        priors: Sequence[Prior],
        level: int,
        direct: bool,
        progress: Progress,
        spent: Spent,
    ) -> None:
        self._store = store
        self._pin = pin
        self._scan = found
        self._index = index
        self._priors = priors
        self._level = level
        self._direct = direct
        self._progress = progress
        self._spent = spent
        self.places: list[list[Place]] = []
        self._lock = threading.Lock()
        self.packs: dict[str, int] = {}
        self.written = 0
        self.reused = 0
        self.read = 0

    def store(self, tasks: Sequence[Task], threads: int) -> None:
        """Store the chunks of every task; the heaviest first, so that all workers end together."""
        self.places = [[] for _ in tasks]
        jobs, new = self._take_known(tasks)
        # Parts of one file stay in order, for sorting is stable: their packs read sequentially.
        jobs.sort(key=lambda job: -job.task.size)
        with self._spent.in_parallel():
            run_workers(
                jobs,
                self._worker,
                max(1, min(threads, -(-new // _WORTH_A_WORKER))),
                name="publish",
            )

    def _take_known(self, tasks: Sequence[Task]) -> tuple[list[_Job], int]:
        """
        Do the tasks of which everything is known already.

        Returns:
            The others, and the plain bytes in them that are not known.
        """
        jobs, new = [], 0
        for task, places in zip(tasks, self.places, strict=True):
            known, unknown = self._look_up(task)
            new += unknown
            found = [place for place in known if place is not None]
            if len(found) < len(known):
                jobs.append(_Job(task, places, known))
                continue
            places += found
            self.reused += sum(place.raw for place in found)
            self._progress.advance(task.files, task.size)
        return jobs, new

    def _look_up(self, task: Task) -> tuple[list[Place | None], int]:
        """The place of each chunk that is known unread, and the plain bytes of all others."""
        if not self._priors:
            return [None] * len(task), task.size
        known, unknown = [], 0
        for chunk in range(len(task)):
            pieces = task.pieces(self._scan, chunk)
            place = self._known(pieces)
            known.append(place)
            if place is None:
                unknown += sum(piece.length for piece in pieces)
        return known, unknown

    @contextmanager
    def _worker(self) -> Iterator[Callable[[_Job], None]]:
        watch = self._spent.watch()
        packer = Packer(
            self._store, self._index, self._level, self._pin.pack_id, self.packs.__setitem__, watch
        )
        reader = Reader(self._scan, direct=self._direct)
        # Not closed by hand: the traceback of an error may still hold a slice of it.
        buffer = memoryview(mmap.mmap(-1, CHUNK_SIZE))
        read = reused = 0

        def handle(job: _Job) -> None:
            nonlocal read, reused
            task, places, known = job
            for chunk, place in enumerate(known):
                if place is not None:
                    reused += place.raw
                else:
                    pieces = task.pieces(self._scan, chunk)
                    watch.lap(PYTHON)
                    with reader.fill(pieces, buffer) as plain:
                        watch.lap(READ, len(plain), len(pieces))
                        place = packer.add(plain)
                        read += len(plain)
                places.append(place)
            reader.close()
            self._progress.advance(task.files, task.size)

        try:
            yield handle
            packer.finish()
        except BaseException:
            reader.abandon()
            packer.abort()
            raise
        finally:
            watch.close()
        with self._lock:
            self.written += packer.written
            self.reused += packer.reused + reused
            self.read += read

    def _known(self, pieces: Sequence[Piece]) -> Place | None:
        for prior in self._priors:
            identity = prior.chunk(pieces)
            if identity is not None:
                return self._index.find(identity)
        return None


def _confirm_again(
    store: WriteStore, pin: Pin, key: str, data: bytes, needed: Mapping[str, int]
) -> None:
    """Should the machine have slept between the last look and the commit, the manifest goes."""
    try:
        pin.confirm(needed)
    except PinLost:
        withdraw(store, key, data)
        raise


def _remember(trees: Sequence[TreeSource], key: str, found: Scan, data: bytes) -> None:
    """
    Let trees of ours know what they hold, so that a later publish reads only what changed.

    A directory that cachepod did not make is left as it is.
    """
    digest = Manifest.digest_of(data)
    for tree in trees:
        if read_stamp(tree.root) is None:
            continue
        stamp = Stamp(State.COMPLETE, key, tree.name, digest)
        try:
            write_held(tree.root, stamp, data, digest, found.inode, found.ctime)
        except OSError:
            # The snapshot is stored; a tree that cannot be written to is only slower next time.
            continue
