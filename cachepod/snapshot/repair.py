"""
What is done about the damage that a verification found.

Good copies come from other stores: a pack under its own id, over the damaged one; a manifest with
the packs that it needs. Where no store has a pack under this id, a computed key says what its
snapshot holds, so another store's snapshot of the same key is brought in its place. Every chunk is
decompressed and compared with its id before it is written.

What cannot be repaired is set aside, so that the next publish stores it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cachepod.errors import (
    CachepodError,
    CorruptObject,
    Miss,
    NewerFormat,
    ObjectMissing,
    StoreUnreachable,
)
from cachepod.model.names import (
    MANIFESTS,
    NAMED_FAMILY,
    PACKS,
    check_key,
    family_of,
    manifest_name,
    pack_name,
)
from cachepod.snapshot.chunks import ChunkAt
from cachepod.snapshot.copy import BROUGHT, copy
from cachepod.snapshot.damage import Problem, set_aside
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.transfer import PackMover
from cachepod.snapshot.verify import DescribedPack, VerifyReport, verify
from cachepod.snapshot.workers import run_workers
from cachepod.stores.base import Store, WriteStore, exists

_THREADS = 4
#: What is repaired may show more: of a manifest that cannot be read, the packs are not known.
_ROUNDS = 4


@dataclass(frozen=True)
class Repaired:
    """The object *name* was brought from the store *source*; *size* bytes for a pack, else 0."""

    name: str
    source: str
    size: int = 0


@dataclass(frozen=True)
class MendReport:
    """
    What a verification found and what came of it.

    Args:
        found: The verification.

        repaired: What was brought from other stores, and is good now.

        problems: What is still damaged.

        silent: URLs of sources that failed, and may have what is missing.
    """

    found: VerifyReport
    repaired: tuple[Repaired, ...] = ()
    problems: tuple[Problem, ...] = ()
    silent: tuple[str, ...] = ()


def mend(
    store: WriteStore,
    sources: Sequence[Store],
    keys: Sequence[str] | None = None,
    *,
    quick: bool = False,
    threads: int = 0,
    progress: Progress | None = None,
) -> MendReport:
    """
    Verify, bring good copies of what is damaged from the first of *sources* that has them, and
    verify that again.

    A snapshot that is named and not there is brought as well. What only could not be read is left.

    Args:
        quick: Look at existence and sizes of packs only, before and after.

        threads: As for :func:`.verify.verify`; for packs brought at once zero is a few.

    Raises:
        Miss: None of the stores has a snapshot of a key that was named.

        SpaceExhausted, StoreUnreachable: *store* cannot be read, or not be written to. A source
            that fails is noted, and the next one asked.
    """
    told = progress or NoProgress()
    brought: dict[str, Repaired] = {}
    silent: dict[str, None] = {}
    absent = [key for key in keys or () if not exists(store, manifest_name(check_key(key)))]
    if absent:
        run = _Repair(store, sources, {}, told)
        for key in absent:
            run.bring_snapshot(key)
        brought.update(run.done)
        silent.update(run.silent)
    first = report = verify(store, keys, quick=quick, threads=threads, progress=told)
    kept: list[Problem] = []  # what hurts no snapshot, and so is not seen by verifying one again
    for _ in range(_ROUNDS):
        run = _Repair(store, sources, report.damaged, told)
        run.repair(report.problems, threads or _THREADS)
        brought.update(run.done)
        silent.update(run.silent)
        kept += [each for each in report.problems if not each.keys and each.name not in run.done]
        hurt = dict.fromkeys(key for each in report.problems for key in each.keys)
        if not run.done or not hurt:
            kept += [each for each in report.problems if each.keys]
            break
        there = [key for key in hurt if exists(store, manifest_name(key))]
        report = verify(store, there, quick=quick, threads=threads, progress=told)
    else:
        kept += [each for each in report.problems if each.keys]
    left = {each.name: each for each in kept}
    return MendReport(
        found=first,
        repaired=tuple(each for name, each in brought.items() if name not in left),
        problems=tuple(each for _, each in sorted(left.items())),
        silent=tuple(silent),
    )


def set_aside_damaged(
    store: WriteStore, problems: Sequence[Problem], progress: Progress | None = None
) -> tuple[str, ...]:
    """
    Set aside every snapshot that *problems* hurt; what only could not be read is left.

    Returns:
        Their keys. What cannot be set aside, in a store that may only be read, is noted.
    """
    told = progress or NoProgress()
    done: dict[str, None] = {}
    for problem in problems:
        for key in () if problem.unreachable else problem.keys:
            try:
                set_aside(store, key, CorruptObject(problem.name, problem.why))
            except CachepodError as error:
                told.note(f"{key} cannot be set aside: {error.message}")
            else:
                done[key] = None
    return tuple(done)


class _Repair:
    def __init__(
        self,
        store: WriteStore,
        sources: Sequence[Store],
        described: Mapping[str, DescribedPack],
        progress: Progress,
    ) -> None:
        self.done: dict[str, Repaired] = {}
        self.silent: dict[str, None] = {}
        self._store = store
        self._sources = sources
        self._described = described
        self._progress = progress

    def repair(self, problems: Sequence[Problem], threads: int) -> None:
        """Bring what *problems* name, as far as another store has it."""
        found = [problem for problem in problems if not problem.unreachable]
        packs = [each for each in found if each.name.startswith(f"{PACKS}/")]
        self.bring_packs(packs, threads)
        keys: dict[str, None] = {}
        for problem in found:
            if problem.name.startswith(f"{MANIFESTS}/"):
                keys.update(dict.fromkeys(problem.keys))
            elif problem.name not in self.done:
                # Of a name that a user gave, another store may have something else.
                keys.update((key, None) for key in problem.keys if family_of(key) != NAMED_FAMILY)
        for key in keys:
            self.bring_snapshot(key)

    # Packs

    def bring_packs(self, problems: Sequence[Problem], threads: int) -> None:
        """The packs among *problems*, each from the first source that has it whole."""
        wanted: dict[str, tuple[int, dict[int, ChunkAt]]] = {}
        for problem in problems:
            pack = problem.name.rpartition("/")[2]
            if pack in self._described:
                expected = _expected(self._described[pack])
                if expected is not None:
                    wanted[pack] = expected
        if not wanted:
            return
        size = sum(each for each, _ in wanted.values())
        self._progress.phase("repair", files=len(wanted), size=size)

        @contextmanager
        def worker() -> Iterator[Callable[[str], None]]:
            movers = [
                PackMover(source, self._store, self._moved, deep=True) for source in self._sources
            ]

            def handle(pack: str) -> None:
                self._bring_pack(movers, pack, *wanted[pack])
                self._progress.advance(1, 0)

            yield handle

        run_workers(sorted(wanted), worker, threads, name="repair")

    def _moved(self, size: int) -> None:
        self._progress.advance(0, size)

    def _bring_pack(
        self, movers: Sequence[PackMover], pack: str, size: int, chunks: dict[int, ChunkAt]
    ) -> None:
        name = pack_name(pack)
        try:
            over = exists(self._store, name)
        except CorruptObject:  # something lies there that is no object
            over = True
        for source, mover in zip(self._sources, movers, strict=True):
            try:
                mover.bring(pack, size, chunks, over=over)
            except ObjectMissing:
                continue
            except (CorruptObject, NewerFormat) as error:
                self._progress.note(f"{source.url}: {error.message}")
            except StoreUnreachable as error:
                self._pass_over(source, error)
            else:
                self.done[name] = Repaired(name, source.url, size)
                return

    def _pass_over(self, source: Store, error: StoreUnreachable) -> None:
        if error.url != source.url:
            raise error
        if source.url not in self.silent:
            self._progress.note(error.message)
        self.silent[source.url] = None

    # Snapshots

    def bring_snapshot(self, key: str) -> None:
        """The snapshot *key*, from the first source that has it whole, over what there is."""
        name = manifest_name(key)
        for source in self._sources:
            try:
                report = copy(
                    source, self._store, [key], force=True, deep=True, progress=self._progress
                )
            except NewerFormat as error:
                self._progress.note(f"{source.url}: {error.message}")
            except Miss:
                continue
            except StoreUnreachable as error:
                self._pass_over(source, error)
            else:
                for problem in report.problems:
                    self._progress.note(f"{source.url}: {problem.name} is damaged: {problem.why}")
                if not report.problems and report.snapshots[0].outcome in BROUGHT:
                    self.done[name] = Repaired(name, source.url)
                    return


def _expected(pack: DescribedPack) -> tuple[int, dict[int, ChunkAt]] | None:
    """Size and chunks of a pack; None where manifests contradict each other."""
    chunks = {chunk.offset: chunk for chunk in pack.chunks}
    if len(pack.sizes) != 1 or len(chunks) != len(pack.chunks):
        return None
    return next(iter(pack.sizes)), chunks
