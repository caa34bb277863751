"""
Snapshots from one store into another: whole packs under their own ids, then the manifest.

The bytes of both are taken over as they are, so what was signed stays signed, a copy that is begun
again moves only what is missing, and a pack that is damaged in one store is the same in the other.

How a snapshot comes to be in the destination, and what a crash leaves after each step::

    1  a pin names every pack that it needs          the pin, which a prune recognises as dead
    2  missing packs are written, each whole         packs that no manifest names; the next copy
                                                     finds them there
    3  the manifest is written: the commit point     the snapshot

Every chunk's stored bytes are checked on the way, so damage is not replicated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cachepod.errors import (
    CachepodError,
    CorruptObject,
    Miss,
    NewerFormat,
    ObjectMissing,
    SpaceExhausted,
)
from cachepod.limits import cores, memory
from cachepod.model.layout import MIB
from cachepod.model.manifest import HEADER
from cachepod.model.names import manifest_name, pack_name
from cachepod.snapshot.beat import Clock, boottime
from cachepod.snapshot.copyplan import (
    CopyPlan,
    compare,
    look_at_packs,
    plan_copy,
    read_checked,
)
from cachepod.snapshot.damage import Problem
from cachepod.snapshot.outwait import outwait
from cachepod.snapshot.packing import discard
from cachepod.snapshot.phases import Phases
from cachepod.snapshot.pins import Pin, hold_pin, read_pins
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.transfer import PackMover
from cachepod.snapshot.workers import run_workers
from cachepod.stores.base import Store, WriteStore, put

#: Outcomes of snapshots of which something was moved.
BROUGHT = frozenset({"copied", "replaced", "healed"})
#: Seconds to wait at most for a prune that has condemned packs which a copy needs.
PATIENCE = 900.0
#: Bytes that one thread may take: what it has read, and what a store keeps until it is sent.
_THREAD_MEMORY = 96 * MIB
_MOST_THREADS = 8


@dataclass(frozen=True)
class CopiedSnapshot:
    """A snapshot and what became of it; *outcome* and *why* are those of Candidate."""

    key: str
    outcome: str
    why: str = ""


@dataclass(frozen=True)
class CopyReport:
    """
    What a copy did.

    Args:
        snapshots: Of the source, each with what became of it.

        packs: How many were moved.

        size: Bytes written to the destination.

        there: Bytes of packs that the destination had already.

        problems: What is damaged in the source; it was not brought.

        phases: Seconds of each.
    """

    snapshots: tuple[CopiedSnapshot, ...]
    packs: int = 0
    size: int = 0
    there: int = 0
    problems: tuple[Problem, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)


def copy(
    source: Store,
    destination: WriteStore,
    keys: Sequence[str] | None = None,
    *,
    force: bool = False,
    deep: bool = False,
    threads: int = 0,
    progress: Progress | None = None,
    patience: float = PATIENCE,
    clock: Clock = boottime,
    sleep: Callable[[float], None] = time.sleep,
) -> CopyReport:
    """
    Bring the snapshots *keys* of *source*, or all of them, to *destination*.

    What the destination has is not moved again. Of a snapshot that it has already, packs that are
    missing there or known to be damaged are brought.

    Args:
        force: Also replace what the destination has under a key and is another snapshot.

        deep: Compare every chunk with its id too, which takes decompressing it, and read manifests
            that the destination has whole.

        threads: Zero for one a core, and more where one of the stores rewards it.

        patience: Seconds to wait at most for a prune of the destination that has condemned packs
            which the copy needs. Snapshots that need them are not brought if it ends later.

        clock, sleep: For tests.

    Raises:
        Miss: The source has no snapshot of a key that was named; nothing was done.

        SpaceExhausted: The destination is full. What this copy wrote, and no snapshot there needs,
            is deleted again.

        StoreUnreachable: One of the two failed. What is copied stays, and the next copy goes on
            from there.

        PinLost: This process slept for so long that a prune in the destination may have deleted
            what it relied on; the next copy goes on.
    """
    progress = progress or NoProgress()
    phases = Phases(progress)
    phases.begin("compare")
    plan = plan_copy(source, destination, keys, force=force, deep=deep, progress=progress)
    if plan.empty:
        return _report(plan, phases)
    with hold_pin(destination) as pin:
        condemned = pin.rely_on(plan.packs)
        look_at_packs(plan, destination, progress)
        run = _Copy(source, destination, plan, pin, condemned, deep=deep, progress=progress)
        threads = threads or _threads(source, destination)
        try:
            phases.begin("copy", files=len(run.to_move), size=run.size_to_move)
            run.move(threads)
            if condemned:
                phases.begin("wait for a prune")
                over = outwait(
                    destination,
                    condemned,
                    patience,
                    told=lambda: progress.advance(0, 0),  # a watchdog sees that it goes on
                    clock=clock,
                    sleep=sleep,
                )
                run.look_again(over)
                phases.begin("copy", files=len(run.to_move), size=run.size_to_move)
                run.move(threads)
        except SpaceExhausted:
            run.clean_up()
            raise
    return _report(plan, phases, run)


def _threads(source: Store, destination: Store) -> int:
    """As many as keep both busy; few where the destination is remote and keeps parts to be sent."""
    if destination.parallel_reads:
        wanted = cores() + 1
    else:
        wanted = min(cores() + source.parallel_reads, _MOST_THREADS)
    return max(1, min(wanted, memory() // 4 // _THREAD_MEMORY))


def _report(plan: CopyPlan, phases: Phases, run: _Copy | None = None) -> CopyReport:
    return CopyReport(
        snapshots=tuple(
            CopiedSnapshot(each.key, each.outcome, each.why) for each in plan.snapshots
        ),
        packs=run.packs if run else 0,
        size=run.written if run else 0,
        there=plan.there,
        problems=tuple(run.problems if run else plan.problems),
        phases=phases.end(),
    )


class _Copy:
    """One copy at work; *to_move* are the ids of packs that the next :meth:`move` brings."""

    def __init__(
        self,
        source: Store,
        destination: WriteStore,
        plan: CopyPlan,
        pin: Pin,
        condemned: frozenset[str],
        *,
        deep: bool,
        progress: Progress,
    ) -> None:
        self.to_move = [pack for pack in plan.moved if pack not in condemned]
        self.packs = 0
        self.written = 0
        self.problems = plan.problems
        self._source = source
        self._destination = destination
        self._plan = plan
        self._pin = pin
        self._condemned = condemned
        self._deep = deep
        self._progress = progress
        self._lock = threading.Lock()
        self._created: list[str] = []
        self._begun: set[int] = set()
        self._committed: set[int] = set()
        unsecured = condemned.union(plan.moved)
        self._lacking: list[set[str]] = [
            {info.id for info in each.packs if info.id in unsecured} for each in plan.snapshots
        ]

    @property
    def size_to_move(self) -> int:
        """Bytes of the packs that the next :meth:`move` brings."""
        return sum(self._plan.packs[pack].size for pack in self.to_move)

    def move(self, threads: int) -> None:
        """Bring packs, and the manifest of each snapshot as soon as all of its packs are there."""
        ready = [place for place in range(len(self._lacking)) if not self._lacking[place]]
        tasks: list[int | str] = [*ready, *self.to_move]
        run_workers(tasks, self._worker, threads, name="copy")

    @contextmanager
    def _worker(self) -> Iterator[Callable[[int | str], None]]:
        mover = PackMover(self._source, self._destination, self._moved, deep=self._deep)

        def handle(task: int | str) -> None:
            if isinstance(task, int):
                self._commit(task)
            else:
                self._bring(mover, task)

        yield handle

    def _moved(self, size: int) -> None:
        self._progress.advance(0, size)
        with self._lock:
            self.written += size

    def _bring(self, mover: PackMover, pack: str) -> None:
        plan = self._plan.packs[pack]
        wanted = [place for place in plan.keys if self._plan.snapshots[place].wanted]
        if not wanted:  # another pack of theirs turned out to be damaged
            return
        try:
            new = mover.bring(pack, plan.size, plan.chunks, over=plan.over)
        except (CorruptObject, NewerFormat, ObjectMissing) as error:
            if error.name != pack_name(pack):
                raise
            self._give_up(pack, error, wanted)
            return
        self._progress.advance(1, 0)
        with self._lock:
            self.packs += new
            if new and not plan.over:
                self._created.append(pack)
        self._secured(pack, wanted)

    def _secured(self, pack: str, places: Sequence[int]) -> None:
        for place in places:
            with self._lock:
                lacking = self._lacking[place]
                lacking.discard(pack)
                ready = not lacking
            if ready:
                self._commit(place)

    def _give_up(
        self, pack: str, error: CorruptObject | NewerFormat | ObjectMissing, places: Sequence[int]
    ) -> None:
        why = getattr(error, "why", "") or "it is not in the store"
        places = [place for place in places if self._is_still_stored(place)]
        if not places:
            return
        with self._lock:
            for place in places:
                self._plan.snapshots[place].outcome = "damaged"
                self._plan.snapshots[place].why = f"{error.name}: {why}"
            keys = tuple(self._plan.snapshots[place].key for place in places)
            self.problems.append(Problem(error.name, why, keys))

    def _is_still_stored(self, place: int) -> bool:
        """Whether the source has the snapshot still; of one that was dropped packs go missing."""
        snapshot = self._plan.snapshots[place]
        try:
            if compare(self._source, snapshot) == "present":
                return True
        except CachepodError:
            return True
        snapshot.outcome, snapshot.why = "skipped", "it was dropped or published anew meanwhile"
        return False

    def _commit(self, place: int) -> None:
        """Write the manifest of a snapshot whose packs are all there; the sole commit point."""
        snapshot = self._plan.snapshots[place]
        with self._lock:
            if place in self._begun or not snapshot.uncommitted:
                return
            self._begun.add(place)
        try:
            data, _ = read_checked(self._source, snapshot.key)
        except (CorruptObject, Miss) as error:
            snapshot.outcome, snapshot.why = "skipped", f"it changed meanwhile: {error.message}"
            return
        if data[: HEADER.size] != snapshot.head:
            snapshot.outcome, snapshot.why = "skipped", "it was published anew meanwhile"
            return
        packs = {info.id: info.size for info in snapshot.packs}
        self._pin.confirm(packs)
        name = manifest_name(snapshot.key)
        if snapshot.outcome == "replaced":
            self._destination.replace(name, data)
        elif (
            not put(self._destination, name, data)
            and compare(self._destination, snapshot) != "present"
        ):
            snapshot.outcome = "kept"
            return
        with self._lock:
            self._committed.add(place)
            self.written += len(data)
        self._pin.confirm(packs)

    def look_again(self, over: bool) -> None:
        """
        Find out which of the packs that a prune had condemned are still there.

        Args:
            over: No prune is at them any more; else what needs them is given up.
        """
        if not over:
            for place, each in enumerate(self._plan.snapshots):
                if each.wanted and self._lacking[place]:
                    each.outcome = "busy"
                    each.why = "a prune of the destination is at work; copy again when it is done"
            self.to_move = []
            return
        look_at_packs(self._plan, self._destination, self._progress)
        missing = set(self._plan.moved)
        self.to_move = [pack for pack in self._plan.moved if pack in self._condemned]
        for lacking in self._lacking:
            lacking -= self._condemned - missing

    def clean_up(self) -> None:
        """Delete what this copy wrote and no snapshot there needs, unless others have pinned it."""
        needed = {
            info.id
            for place, each in enumerate(self._plan.snapshots)
            if place in self._committed or each.outcome in ("present", "healed")
            for info in each.packs
        }
        try:
            pins = [pin for pin in read_pins(self._destination) if pin.id != self._pin.id]
        except CachepodError:
            return  # left to the next copy, or to a prune
        discard(
            self._destination,
            [
                pack
                for pack in self._created
                if pack not in needed and not any(pin.protects(pack) for pin in pins)
            ],
        )
