"""
Drops snapshots by policy, then deletes what nobody needs, beside others at work.

Carries out a :class:`~cachepod.snapshot.prune_plan.Plan`::

    1  the manifests of dropped snapshots are moved to the trash: the drop
    2  packs that are mostly dead are written anew, see repack.py
    3  condemned/<id> is written: the packs that nobody needs, and on which nobody is to rely
    4  the grace period passes; meanwhile condemned/<id> is renewed
    5  pins and then manifests are read again
    6  condemned packs that still nobody needs and no living pin protects are deleted
    7  the rest is swept: trash, marks, what dead holders left
    8  condemned/<id> is deleted

Killed after any step, it leaves every snapshot that is there whole: before 6 nothing is deleted
that a snapshot could need, and what is deleted in 6 has been needed by none since 5. A list of
condemned packs that stays behind keeps publishes from reusing them until the next prune is done.

Whether the holder of a pin lives is judged by whether the pin changes while it is watched here. A
restore that began before step 1 pins its packs if it takes longer than a minute, and the grace
period is longer than that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from cachepod.errors import ObjectMissing, SpaceExhausted
from cachepod.model.names import CONDEMNED, TRASH, damaged_name, pack_name
from cachepod.snapshot.beat import PERIOD, Beat, Clock, boottime
from cachepod.snapshot.census import StoredSnapshot, needed_packs, read_digest
from cachepod.snapshot.phases import Phases
from cachepod.snapshot.pins import WRITER_DIGITS
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.prune_plan import Plan
from cachepod.snapshot.repack import repack
from cachepod.snapshot.signing import Keyring
from cachepod.snapshot.watch import Watch
from cachepod.snapshot.workers import run_workers
from cachepod.stores.base import Leftover, PruneStore

T = TypeVar("T")

#: Seconds between condemning a pack and deleting it.
GRACE = 180.0
_STEP = 1.0  # seconds between two signs of life during the grace period


@dataclass(frozen=True)
class PruneReport:
    """
    What a prune did.

    Args:
        dropped: Keys of the snapshots that are gone.

        deleted: How many packs are gone.

        rewritten: How many of them were written anew without what nobody needs.

        spared: How many packs that were to be deleted somebody has come to need.

        swept: How many other objects are gone.

        freed: Bytes that the store has less.

        phases: Seconds of each.

        notes: What a user should know.
    """

    dropped: tuple[str, ...] = ()
    deleted: int = 0
    rewritten: int = 0
    spared: int = 0
    swept: int = 0
    freed: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def prune(
    store: PruneStore,
    plan: Plan,
    *,
    grace: float = GRACE,
    keyring: Keyring | None = None,
    progress: Progress | None = None,
    clock: Clock = boottime,
    sleep: Callable[[float], None] = time.sleep,
    period: float = PERIOD,
) -> PruneReport:
    """
    Carry out *plan*.

    Args:
        grace: Seconds to wait before anything is deleted. With fewer than two minutes, whoever
            left a pin cannot be taken for dead, and what he pinned stays. With fewer than a
            minute, a restore at work may find a pack gone.

        keyring: Signs manifests anew whose packs are rewritten, if it trusts them and can.

        clock, sleep, period: For tests.

    Raises:
        ManifestUnreadable: A manifest that came meanwhile cannot be read; no pack is deleted.

        StoreUnreachable, SpaceExhausted: As the store has it. What was dropped stays dropped,
            and the next prune goes on from there.
    """
    if plan.idle:
        return PruneReport()
    return _Prune(store, plan, keyring, progress or NoProgress(), clock, sleep, period).run(grace)


class _Broken(Exception):
    """The list of condemned packs may have been taken for a dead prune's."""


class _Prune:
    """One prune at work."""

    def __init__(
        self,
        store: PruneStore,
        plan: Plan,
        keyring: Keyring | None,
        progress: Progress,
        clock: Clock,
        sleep: Callable[[float], None],
        period: float,
    ) -> None:
        assert plan.census is not None
        self._store = store
        self._plan = plan
        self._census = plan.census
        self._keyring = keyring
        self._progress = progress
        self._phases = Phases(progress)
        self._clock = clock
        self._sleep = sleep
        self._period = period
        self._sizes = {pack.id: pack.size for pack in (*plan.deleted, *plan.rewritten)}
        self._marked = {pack.id for pack in (*plan.deleted, *plan.rewritten) if pack.damaged}
        self._lock = threading.Lock()
        self._deleting = False
        self._litter = list(plan.swept)
        self._leftovers = list(plan.leftovers)
        self._deleted: set[str] = set()
        self._dropped: list[str] = []
        self._trash: list[str] = []
        self._freed = 0
        self._swept = 0
        self._notes: list[str] = []

    def run(self, grace: float) -> PruneReport:
        plan = self._plan
        dropped = [verdict.snapshot for verdict in plan.dropped]
        self._phases.begin("drop", files=len(dropped))
        self._each(dropped, self._drop)
        if plan.rewritten:
            self._rewrite()
        spared: set[str] = set()
        if self._sizes or plan.watched:
            with self._condemned() as mark:
                watch = Watch(self._store, plan.watched, self._clock)
                self._wait(grace, watch)
                spared = self._delete_packs(mark, watch)
                self._phases.begin("sweep")
                for info in watch.dead():
                    self._remove(info.name, info.size)
        self._phases.begin("sweep")
        self._sweep()
        if spared:
            self._notes.append(f"{len(spared)} packs are needed or pinned by now, and stay")
        return PruneReport(
            dropped=tuple(self._dropped),
            deleted=len(self._deleted),
            rewritten=sum(1 for pack in plan.rewritten if pack.id in self._deleted),
            spared=len(spared),
            swept=self._swept,
            freed=self._freed,
            phases=self._phases.end(),
            notes=tuple(self._notes),
        )

    # Steps 1 and 2

    def _drop(self, snapshot: StoredSnapshot) -> None:
        """The move of the manifest is the drop."""
        digest = read_digest(self._store, snapshot.name)
        if digest and digest != snapshot.digest:
            self._notes.append(f"{snapshot.key} was published anew meanwhile, and stays")
            return
        place = f"{TRASH}/{snapshot.key}.{os.urandom(8).hex()}"
        try:
            self._store.move(snapshot.name, place)
        except ObjectMissing:
            pass  # another prune was first
        except SpaceExhausted:
            self._store.delete(snapshot.name)  # a move is a copy in some stores
            self._count(snapshot.size)
        else:
            self._trash.append(place)
            self._count(snapshot.size)
        self._dropped.append(snapshot.key)
        self._progress.advance(1, 0)

    def _rewrite(self) -> None:
        """As far as there is room: nothing is lost if not."""
        old = {pack.id for pack in self._plan.rewritten}
        dropped = {verdict.snapshot.name for verdict in self._plan.dropped}
        ids = self._census.ids
        snapshots = [
            each
            for each in self._census.snapshots
            if each.name not in dropped and any(ids[number] in old for number in each.packs)
        ]
        self._phases.begin("rewrite", size=sum(pack.after for pack in self._plan.rewritten))
        try:
            written = repack(
                self._store,
                old,
                snapshots,
                self._progress,
                keyring=self._keyring,
                clock=self._clock,
                period=self._period,
            )
        except SpaceExhausted as error:
            self._notes.append(f"mostly dead packs stay for now: {error.message}")
        else:
            self._count(-written)

    # Steps 3 and 4

    @contextmanager
    def _condemned(self) -> Iterator[Beat]:
        """While the block lasts, nobody comes to rely on what is to be deleted."""
        mark = Beat(
            self._store,
            f"{CONDEMNED}/{os.urandom(8).hex()}",
            lambda: {"packs": list(self._sizes)},
            clock=self._clock,
            period=self._period,
        )
        try:
            if self._sizes:
                try:
                    mark.start()
                except SpaceExhausted:
                    # Nobody relies on what lies in the trash, and now its room is needed.
                    self._sweep()
                    mark.start()
            yield mark
        except BaseException:
            # A deletion may still be under way, stuck in the kernel.
            mark.stop(leave=self._deleting)
            raise
        mark.stop()

    def _wait(self, grace: float, watch: Watch) -> None:
        self._phases.begin("wait")
        self._progress.phase(f"waiting {grace:g} s for those at work")
        for half in (1, 2):
            until = self._clock() + grace / 2
            while (left := until - self._clock()) > 0:
                self._sleep(min(_STEP, left))
                self._progress.advance(0, 0)
            if half == 1 and grace:
                watch.glance()

    # Steps 5 and 6

    def _delete_packs(self, mark: Beat, watch: Watch) -> set[str]:
        """All that still nobody needs; which of them somebody does."""
        spared: set[str] = set()
        alone = False
        while self._sizes.keys() - self._deleted - spared:
            self._phases.begin("check")
            spared = self._still_needed(watch) - self._deleted
            packs = [pack for pack in self._sizes if pack not in spared | self._deleted]
            size = sum(self._sizes[pack] for pack in packs)
            self._phases.begin("delete", files=len(packs), size=size)
            self._deleting = True
            try:
                if alone and packs:
                    self._delete(packs[0])
                    raise _Broken
                self._each(packs, lambda pack: self._delete(pack, mark))
            except _Broken:
                alone = not self._mended(mark)
        return spared

    def _mended(self, mark: Beat) -> bool:
        """False in a store so full that only the next deletion makes room for the renewal."""
        try:
            mark.mend()
        except SpaceExhausted:
            self._store.size(mark.name)  # nobody has taken it away, at least
            return False
        return True

    def _still_needed(self, watch: Watch) -> set[str]:
        """
        Of the condemned packs those that somebody needs, or may.

        Pins first: a publish commits its manifest, and then its pin goes.
        """
        living = watch.living_pins()
        needed = needed_packs(self._store, self._census.snapshots, self._census.ids)
        writers = {pin.id for pin in living}
        for pin in living:
            if pin.packs is None:
                return set(self._sizes)  # of a kind that only a later cachepod knows
            needed |= pin.packs
        return {pack for pack in self._sizes if pack in needed or pack[-WRITER_DIGITS:] in writers}

    def _delete(self, pack: str, mark: Beat | None = None) -> None:
        # The list was renewed all the time, so nobody can have come to rely on the pack since the
        # pins were read.
        if mark is not None and not mark.unbroken:
            raise _Broken
        self._store.delete(pack_name(pack))
        if pack in self._marked:
            self._store.delete(damaged_name(pack))
        size = self._sizes[pack]
        with self._lock:
            self._deleted.add(pack)
            self._freed += size
        self._progress.advance(1, size)

    # Step 7

    def _sweep(self) -> None:
        litter, self._litter = self._litter, []
        self._each(litter, lambda info: self._remove(info.name, info.size))
        leftovers, self._leftovers = self._leftovers, []
        self._each(leftovers, self._abandon)
        trash, self._trash = self._trash, []
        self._each(trash, self._store.delete)

    def _abandon(self, leftover: Leftover) -> None:
        self._store.remove(leftover)
        self._count(leftover.size, 1)

    def _remove(self, name: str, size: int) -> None:
        self._store.delete(name)
        self._count(size, 1)
        self._progress.advance(1, 0)

    def _count(self, size: int, objects: int = 0) -> None:
        with self._lock:
            self._freed += size
            self._swept += objects

    def _each(self, items: Sequence[T], act: Callable[[T], None]) -> None:
        """*act* on each of *items*, as many at a time as the store rewards."""

        @contextmanager
        def worker() -> Iterator[Callable[[T], None]]:
            yield act

        run_workers(items, worker, max(1, self._store.parallel_reads), name="prune")
