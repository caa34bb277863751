"""
Store to trees, all or nothing.

Each tree is filled in a stage beside its place and swapped in by one rename; see swap.py for what
a crash leaves. A tree that already holds the snapshot is only confirmed; of one that holds a
relative, the files that are the same are linked into the stage, and only the rest is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cachepod.errors import (
    Miss,
    NotEnoughSpace,
    ObjectMissing,
    write_problem,
)
from cachepod.limits import cores, memory
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import Manifest
from cachepod.model.names import manifest_name
from cachepod.snapshot.engine import WORKER_MEMORY, Engine
from cachepod.snapshot.fetch import Damage, Source
from cachepod.snapshot.finish import finish, link_kept, set_directory, take_index
from cachepod.snapshot.held import Held, holds, read_held, write_held
from cachepod.snapshot.keep import Keep, find_kept
from cachepod.snapshot.paths import reachable
from cachepod.snapshot.phases import Phases
from cachepod.snapshot.plan import READ_SIZE, Plan, make_plan
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.spent import CREATE, IDLE, PYTHON, READ, SWAP, Profile, Spent
from cachepod.snapshot.stamp import Stamp, State
from cachepod.snapshot.swap import Workspace, clean_up, discard, swap, swap_back, workspace
from cachepod.snapshot.targets import Target, check_apart, roots_of, rows_below
from cachepod.snapshot.ticks import outlast
from cachepod.snapshot.uses import install_seconds
from cachepod.stores.base import Store

__all__ = ["RestoreReport", "Target", "confirmed", "restore"]


@dataclass(frozen=True)
class RestoreReport:
    """
    What a restore did.

    Args:
        outcome: ``restored``; ``updated`` if a part was there; ``confirmed`` if all was.

        files: Regular files and hard links that the trees hold now.

        size: Their plain bytes.

        read: Bytes read from the store.

        written: Plain bytes written.

        phases: Seconds of each.

        warnings: What a user should know.

        install_seconds: How long it once took to install this, 0 if not known.

        damages: Packs that were damaged or missing in the store, and came from a backup.

        profile: Where the time went; None if nothing was brought.
    """

    outcome: str
    files: int = 0
    size: int = 0
    read: int = 0
    written: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    install_seconds: float = 0.0
    damages: tuple[Damage, ...] = ()
    profile: Profile | None = None


def confirmed(
    targets: Sequence[Target], key: str, state: State = State.COMPLETE, digest: str = ""
) -> RestoreReport | None:
    """
    The report of a restore that finds everything in place; None if there is work to do.

    With a *digest*, what is in place must be the snapshot with the manifest of that digest.

    What a killed restore left beside the trees is removed.
    """
    begun = time.perf_counter()
    found = [holds(target.root, target.tree, key, state, digest) for target in targets]
    if not found or not all(found):
        return None
    for target in targets:
        clean_up(target.root)
    summary = next(held for held in found if held is not None).manifest.summary
    return RestoreReport(
        "confirmed",
        files=summary.files,
        size=summary.size,
        phases={"confirm": time.perf_counter() - begun},
    )


def restore(
    store: Store,
    key: str,
    targets: Sequence[Target],
    *,
    backups: Sequence[Store] = (),
    expect: Fingerprint | None = None,
    partial: bool = False,
    latest: bool = False,
    threads: int = 0,
    direct: bool = True,
    check_ids: bool = False,
    force: bool = False,
    min_free: float = 0.10,
    pin: Callable[[list[str]], AbstractContextManager[None]] | None = None,
    progress: Progress | None = None,
) -> RestoreReport:
    """
    Make each of *targets* what the snapshot *key* says.

    Args:
        backups: Stores that may have packs of the same snapshot, the nearest first: what is
            damaged or missing in *store*, or what it does not hand out any more, comes from them.

        expect: The fingerprint that the snapshot must have been published under.

        partial: The snapshot is a relative's: mark the trees so that an install tops them up.

        latest: Bring what the store has under *key* now, even if the targets hold what it had
            before. For a key that does not say what it stands for.

        threads: That decode and write; zero for two a core and four more, for some wait for the
            disk. Where the store rewards it, others read ahead of them.

        direct: Write big files with O_DIRECT where the file system has it.

        check_ids: Compare what every chunk holds with its id, as signatures ask for.

        force: Restore anew what is there, and replace directories that cachepod did not make.

        min_free: Share of the file system that must stay free.

        pin: Entered with the ids of the packs for as long as they are read, so that a prune leaves
            them; see :func:`.pins.pinned_when_long`. A *store* alone gives no right to write one.

    Raises:
        Miss: There is no such snapshot, or it is not what was asked for.

        CorruptObject, ObjectMissing: The snapshot is damaged, and no backup has what is.

        StoreUnreachable: The store failed, and so did the backups.

        NotEnoughSpace, SpaceExhausted: Known before the first byte, and while writing.

        ForeignDirectory, TreeUnreadable: A target cannot be replaced or written.

    After any of them every target is as it was, or, where it can only be filled in place, marked
    as incomplete.
    """
    progress = progress or NoProgress()
    state = State.PARTIAL if partial else State.COMPLETE
    check_apart(targets)
    if not force and not latest:
        report = confirmed(targets, key, state)
        if report is not None:
            return report
    phases, spent = Phases(progress), Spent()
    phases.begin("manifest")
    name = manifest_name(key)
    try:
        data = store.read(name, limit=MAX_MANIFEST_SIZE)
    except ObjectMissing:
        raise Miss(key) from None
    spent.main.lap(READ, len(data))
    manifest = Manifest.decode(data, name=name)
    roots = roots_of(manifest, key, targets, expect)
    with ExitStack() as stack:
        if pin is not None:
            stack.enter_context(pin([pack.id for pack in manifest.packs]))
        phases.begin("prepare")
        spent.main.lap(PYTHON)
        entered = {
            target.root: stack.enter_context(workspace(target.root, force=force))
            for target in sorted(targets, key=lambda target: target.root)  # one order, no deadlock
        }
        spaces = [entered[target.root] for target in targets]
        spent.main.lap(IDLE, calls=0)  # another restore of this machine may have been at work
        if not force:
            # It may have done the same.
            report = confirmed(targets, key, state, manifest.digest)
            if report is not None:
                return report
        source = Source(store, backups)
        job = _Restore(
            source, manifest, data, targets, roots, spaces, state, phases, spent, check_ids
        )
        if not force:
            job.keep_what_is_there()
        return job.run(
            threads or _threads(),
            direct=direct,
            min_free=min_free,
            progress=progress,
        )


def _threads() -> int:
    """As many as keep cores and disk busy, but not so many as to fill the memory."""
    return max(1, min(cores() * 2 + 4, memory() // 16 // WORKER_MEMORY))


def _readers(source: Source) -> int:
    """As many as keep the store busy, likewise."""
    return min(source.parallel_reads, memory() // 16 // READ_SIZE)


class _Restore:
    """One restore at work."""

    def __init__(
        self,
        source: Source,
        manifest: Manifest,
        data: bytes,
        targets: Sequence[Target],
        roots: Sequence[int],
        spaces: Sequence[Workspace],
        state: State,
        phases: Phases,
        spent: Spent,
        check_ids: bool,
    ) -> None:
        self.source = source
        self.manifest = manifest
        self.data = data
        self.targets = targets
        self.roots = roots
        self.spaces = spaces
        self.state = state
        self.phases = phases
        self.spent = spent
        self.check_ids = check_ids
        self.wanted = rows_below(manifest, roots)
        self.kept: list[Keep] = []
        self.warnings: list[str] = []

    def keep_what_is_there(self) -> None:
        """Find the files that need not be brought."""
        for target, root, space in zip(self.targets, self.roots, self.spaces, strict=True):
            held: Held | None = read_held(space.root, target.tree)
            if held is not None:
                kept = find_kept(self.manifest, root, held)
                self.kept.append(kept)
                for row in kept.rows:
                    self.wanted[row] = 0

    def run(
        self, threads: int, *, direct: bool, min_free: float, progress: Progress
    ) -> RestoreReport:
        watch = self.spent.main
        plan = make_plan(self.manifest, self.wanted)
        self._check_space(plan, min_free)
        watch.lap(PYTHON)
        directories = self._make_directories(plan)
        watch.lap(CREATE, calls=len(plan.directories))
        self.phases.begin("restore", files=plan.files, size=plan.size)
        engine = self._bring(plan, self.wanted, directories, threads, direct, progress)
        self.phases.begin("finish")
        watch.lap(PYTHON)
        # Linked last: a link changes a file's ctime, after which the old tree, if this restore
        # fails, is not known to be whole any more.
        refused = [row for keep in self.kept for row in link_kept(keep, directories)]
        watch.lap(CREATE, calls=sum(len(keep.rows) for keep in self.kept))
        read, written = plan.stored, plan.size
        if refused:
            wanted = bytearray(len(self.wanted))
            for row in refused:
                wanted[row] = 1
            rest = make_plan(self.manifest, wanted)
            self._check_space(rest, min_free)
            more = self._bring(rest, wanted, directories, threads, direct, progress)
            for row in refused:
                engine.inode[row], engine.ctime[row] = more.inode[row], more.ctime[row]
            read, written = read + rest.stored, written + rest.size
        watch.lap(PYTHON)
        finish(engine, plan, self.roots)
        watch.lap(CREATE, calls=len(plan.hardlinks) + len(plan.symlinks))
        self._swap(engine)
        watch.lap(SWAP)
        kept = sum(len(keep.rows) for keep in self.kept)
        summary = self.manifest.summary
        return RestoreReport(
            outcome="updated" if kept else "restored",
            files=plan.files + kept + len(refused),
            size=summary.size,
            read=read + len(self.data),
            written=written,
            phases=self.phases.end(),
            warnings=tuple(self.warnings),
            install_seconds=install_seconds(summary),
            damages=self.source.damages,
            profile=self.spent.end(),
        )

    def _bring(
        self,
        plan: Plan,
        wanted: bytearray,
        directories: Mapping[int, bytes],
        threads: int,
        direct: bool,
        progress: Progress,
    ) -> Engine:
        engine = Engine(
            self.source,
            self.manifest,
            plan,
            wanted,
            directories,
            direct=direct,
            check_ids=self.check_ids,
            progress=progress,
            spent=self.spent,
        )
        engine.run(threads, _readers(self.source))
        return engine

    def _check_space(self, plan: Plan, min_free: float) -> None:
        devices: dict[int, list[int]] = {}
        for place, space in enumerate(self.spaces):
            devices.setdefault(os.stat(space.place).st_dev, []).append(place)
        for places in devices.values():
            space = self.spaces[places[0]]
            if len(devices) > 1:
                here = rows_below(self.manifest, [self.roots[place] for place in places])
                plan = make_plan(self.manifest, bytearray(map(int.__and__, here, self.wanted)))
            info = os.statvfs(space.place)
            free = info.f_bavail * info.f_frsize
            reserve = int(info.f_blocks * info.f_frsize * min_free)
            if info.f_blocks and plan.space + reserve > free:
                raise NotEnoughSpace(
                    str(space.root),
                    plan.space + reserve,
                    free,
                    hint=f"{min_free:.0%} of the file system are to stay free (min_free)",
                )

    def _make_directories(self, plan: Plan) -> dict[int, bytes]:
        """Every directory, writable for now; row to path."""
        entries = self.manifest.entries
        directories = {
            root: os.fsencode(space.stage)
            for root, space in zip(self.roots, self.spaces, strict=True)
        }
        for row in plan.directories:
            path = directories.get(row)
            if path is None:
                path = directories[row] = (
                    directories[entries.parent[row]] + b"/" + entries.names[row]
                )
            try:
                with reachable(path) as short:
                    os.mkdir(short, 0o700)
            except OSError as error:
                raise write_problem(path, error) from error
        return directories

    def _swap(self, engine: Engine) -> None:
        """Stamp every stage as complete and swap it in; then the old trees go."""
        places = list(zip(self.targets, self.roots, self.spaces, strict=True))
        for target, root, space in places:
            with _writing(space.stage):
                self._write_held(space.stage, target, engine)
                set_directory(engine, root, os.fsencode(space.stage), open_up=True)
        in_one_step: list[Workspace] = []
        filled: list[Workspace] = []
        try:
            for space in self.spaces:
                with _writing(space.root):
                    (in_one_step if swap(space) else filled).append(space)
        except BaseException:
            for space in reversed(in_one_step):
                with _writing(space.root):
                    swap_back(space)
            raise
        for space in self.spaces:
            # The stage of a tree filled in place still has names of the files that stayed.
            for left in (space.old, space.stage):
                if not discard(left):
                    self.warnings.append(f"{left} could not be removed; the next restore tries")
        for _, root, space in places:
            try:
                set_directory(engine, root, os.fsencode(space.root))
            except OSError as error:
                # The tree is in place. Its own directory may be somebody else's mount point.
                self.warnings.append(f"{space.root}: its mode stays as it was ({error.strerror})")
        if self.kept or filled:
            # Only now: making and removing a link, and on most file systems a rename, changes
            # the ctime.
            for target, root, space in places:
                take_index(self.manifest, root, space.root, engine)
                try:
                    self._write_held(space.root, target, engine)
                except OSError:
                    pass  # an index without them only costs the next restore a read
        outlast(max(engine.ctime, default=0))

    def _write_held(self, root: Path, target: Target, engine: Engine) -> None:
        digest = self.manifest.digest
        stamp = Stamp(self.state, self.manifest.summary.key, target.tree, digest)
        write_held(root, stamp, self.data, digest, engine.inode, engine.ctime)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name what fails within."""
    try:
        yield
    except OSError as error:
        raise write_problem(os.fsencode(path), error) from error
