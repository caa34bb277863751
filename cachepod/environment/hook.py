"""
The start-up hook: restore, else install and publish.

A shell reads ``cachepod restore || cachepod install && cachepod publish`` as
``(restore || install) && publish``, so a publish also follows a hit and must cost nothing there.
Whatever is wrong with a store or with what lies in the prefix, an install afterwards must work.

The engine is imported by the functions that need it: a publish of what is stored already does not.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.errors import (
    EXIT_DAMAGED,
    EXIT_DONE,
    EXIT_MISS,
    EXIT_PARTIAL,
    EXIT_UNREACHABLE,
    CachepodError,
    CheckFailed,
    CorruptObject,
    Miss,
    ObjectMissing,
    StoreUnreachable,
    TreeUnreadable,
    UsageProblem,
)
from cachepod.model.names import manifest_name
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.stamp import Stamp, State, read_stamp, write_stamp
from cachepod.stores.base import WriteStore, exists

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.environment.install import InstallReport
    from cachepod.snapshot.catalog import Relative
    from cachepod.snapshot.publish import PublishReport
    from cachepod.snapshot.restore import RestoreReport

ENVIRONMENT = "env"  # the tree that is the prefix
_LOCK_PATIENCE = 900.0  # seconds; longer than any install that is still alive
_POLL = (0.5, 5.0)  # seconds between two looks for a snapshot that is waited for


@dataclass(frozen=True)
class Restoration:
    """
    How a restore ended.

    Args:
        outcome: ``confirmed``, ``restored`` or ``updated``: the trees hold the snapshot;
            ``partial``: a relative's environment was brought, an install must top it up;
            ``miss``, ``unreachable`` or ``damaged``: an install must do it all.

        key: What was looked for.

        exit_code: What the command ends with.

        source: The key of the snapshot that was brought, empty if none was.

        store: Where it came from.

        report: The engine's.

        nearest: The snapshot that comes closest, when the key was not found.

        problem: Why it is not a hit.

        checked: Seconds that trying the interpreter and the imports took.

        spoiled: Whether a snapshot of the key was restored but does not work on this machine.
    """

    outcome: str
    key: str
    exit_code: int = EXIT_DONE
    source: str = ""
    store: str = ""
    report: RestoreReport | None = None
    nearest: Relative | None = None
    problem: CachepodError | None = None
    checked: float = 0.0
    spoiled: bool = False


@dataclass(frozen=True)
class Publication:
    """What a publish did at one store; *report* is None where the snapshot was there already."""

    store: str
    outcome: str
    report: PublishReport | None = None


@dataclass
class _Search:
    """What asking the stores has shown so far."""

    answered: list[WriteStore] = field(default_factory=list)
    unreachable: StoreUnreachable | None = None
    damage: CorruptObject | ObjectMissing | None = None
    miss: Miss | None = None


def trees(settings: Settings) -> dict[str, Path]:
    """Every tree that a snapshot of this configuration has, and where it lies."""
    roots = {ENVIRONMENT: settings.prefix} if settings.wants_environment else {}
    return {**roots, **settings.trees}


def restore_environment(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Restoration:
    """
    Bring the trees back from the nearest store that has them.

    Without a snapshot of the key, the environment of its nearest relative is brought as far as
    an install can make the rest of it. A damaged snapshot is set aside, so that the publish at
    the end of the same hook stores a good one.

    Args:
        settings: The configuration.

        identity: Its key and fingerprint.

        stores: Nearest first.

        force: Replace a directory that cachepod did not make, and what is confirmed as well.

        progress: Told of what goes on.

    Raises:
        ForeignDirectory: A tree's place is taken.

        NotEnoughSpace: Known before the first byte is written.

        SpaceExhausted: The disk filled up all the same; nothing was changed.
    """
    told = progress or NoProgress()
    report = None if force else _confirmed(settings, identity.key)
    if report is not None:
        found = Restoration("confirmed", identity.key, source=identity.key, report=report)
        return _tried(settings, identity, found)
    search = _Search()
    brought = _from_stores(settings, identity, stores, search, force, told)
    if brought is None and settings.wait > 0 and search.damage is None:
        brought = _wait(settings, identity, stores, search, force, told)
    if brought is not None:
        return _tried(settings, identity, brought)
    if search.damage is not None:
        return Restoration("damaged", identity.key, exit_code=EXIT_DAMAGED, problem=search.damage)
    if search.unreachable is not None and not search.answered:
        return Restoration(
            "unreachable", identity.key, exit_code=EXIT_UNREACHABLE, problem=search.unreachable
        )
    return _from_relative(settings, identity, search, force, told)


def _confirmed(settings: Settings, key: str) -> RestoreReport | None:
    from cachepod.snapshot.restore import Target, confirmed

    return confirmed([Target(name, root) for name, root in trees(settings).items()], key)


def _from_stores(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    """The first store that has the key, restored; what the others said goes to *search*."""
    search.answered.clear()
    search.unreachable = None
    for store in stores:
        found = _from_store(settings, identity, store, search, force, progress)
        if found is not None:
            return found
    return None


def _from_store(
    settings: Settings,
    identity: Identity,
    store: WriteStore,
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    from cachepod.snapshot.restore import Target, restore

    try:
        report = restore(
            store,
            identity.key,
            [Target(name, root) for name, root in trees(settings).items()],
            expect=None if settings.key else identity.fingerprint,
            threads=settings.threads,
            direct=settings.direct,
            force=force,
            min_free=settings.min_free,
            progress=progress,
        )
    except Miss as miss:
        search.miss = search.miss or miss
        search.answered.append(store)
    except StoreUnreachable as unreachable:
        search.unreachable = search.unreachable or unreachable
        progress.note(_sentence(unreachable))
    except (CorruptObject, ObjectMissing) as damage:
        search.damage = damage
        search.answered.append(store)
        _set_aside(store, identity.key, damage, progress)
    else:
        return Restoration(
            report.outcome, identity.key, source=identity.key, store=store.url, report=report
        )
    return None


def _set_aside(
    store: WriteStore, key: str, damage: CorruptObject | ObjectMissing, progress: Progress
) -> None:
    from cachepod.snapshot.restore import set_aside

    try:
        set_aside(store, key, damage)
        progress.note(f"{damage.message}: the snapshot {key} is set aside")
    except CachepodError as error:  # a store that may only be read, or is full
        progress.note(f"{damage.message}, and cannot be set aside: {error.message}")


def _wait(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    search: _Search,
    force: bool,
    progress: Progress,
) -> Restoration | None:
    """Look for the key again and again, until it is there or the patience ends."""
    until = time.monotonic() + settings.wait
    pause, longest = _POLL
    name = manifest_name(identity.key)
    progress.phase("waiting for the snapshot")
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)
        for store in stores:
            try:
                there = exists(store, name)
            except CachepodError:
                continue  # a volume may also be mounted late
            if there:
                return _from_stores(settings, identity, stores, search, force, progress)
    # Whether the stores answer now decides between a miss and an unreachable store.
    return _from_stores(settings, identity, stores, search, force, progress)


def _tried(settings: Settings, identity: Identity, restored: Restoration) -> Restoration:
    """*restored* if the environment works on this machine; else a miss, to be installed anew."""
    if not settings.wants_environment:
        return restored
    from cachepod.environment.check import check, interpreter_works

    started = time.monotonic()
    problem: CachepodError | None = None
    if not interpreter_works(settings.prefix, identity.interpreter):
        problem = Miss(
            identity.key, "the interpreter of this machine is not the one of the snapshot"
        )
    elif restored.outcome != "confirmed":
        try:
            check(settings.prefix, settings.check)
        except CheckFailed as error:
            problem = error
    checked = time.monotonic() - started
    if problem is None:
        return replace(restored, checked=checked)
    # Otherwise the next restore would confirm it, and an install would find it complete.
    write_stamp(settings.prefix, Stamp(State.INSTALLING, identity.key, ENVIRONMENT))
    return Restoration(
        "miss",
        identity.key,
        exit_code=EXIT_MISS,
        store=restored.store,
        problem=problem,
        checked=checked,
        spoiled=True,
    )


def _from_relative(
    settings: Settings, identity: Identity, search: _Search, force: bool, progress: Progress
) -> Restoration:
    """The environment of the nearest relative, if an install can make the rest of it."""
    problem = search.miss or Miss(identity.key)
    miss = Restoration("miss", identity.key, exit_code=EXIT_MISS, problem=problem)
    if settings.key:
        return miss
    from cachepod.snapshot.catalog import nearest, restorable

    best: tuple[WriteStore, Relative] | None = None
    for store in search.answered:
        try:
            relative = nearest(store, identity.fingerprint)
        except CachepodError as error:
            progress.note(_sentence(error))
            continue
        if relative and (best is None or len(relative.differences) < len(best[1].differences)):
            best = store, relative
    if best is None:
        return miss
    store, relative = best
    miss = Restoration("miss", identity.key, exit_code=EXIT_MISS, problem=problem, nearest=relative)
    if not settings.wants_environment or not restorable(identity.fingerprint, relative):
        return miss
    from cachepod.environment.check import interpreter_works
    from cachepod.snapshot.restore import Target, restore

    source = relative.summary.key
    try:
        report = restore(
            store,
            source,
            [Target(ENVIRONMENT, settings.prefix)],
            partial=True,
            threads=settings.threads,
            direct=settings.direct,
            force=force,
            min_free=settings.min_free,
            progress=progress,
        )
    except (CorruptObject, ObjectMissing) as damage:
        _set_aside(store, source, damage, progress)
        return miss
    except (Miss, StoreUnreachable) as error:
        progress.note(_sentence(error))
        return miss
    if not interpreter_works(settings.prefix, identity.interpreter):
        write_stamp(settings.prefix, Stamp(State.INSTALLING, identity.key, ENVIRONMENT))
        return miss
    return Restoration(
        "partial",
        identity.key,
        exit_code=EXIT_PARTIAL,
        source=source,
        store=store.url,
        report=report,
        nearest=relative,
        problem=problem,
    )


def _sentence(error: CachepodError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def publish_environment(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Publication]:
    """
    Store the trees under the key, in every store that lacks it.

    Args:
        settings: The configuration.

        identity: Its key and fingerprint.

        stores: All of them get the snapshot.

        force: Store it anew where it is stored already, and also what cachepod did not install.

        progress: Told of what goes on.

    Raises:
        TreeUnreadable: There is nothing to publish.

        UsageProblem: The prefix holds something else than the configuration asks for.

        CachepodError: What the first store that failed said; the others were still tried.
    """
    told = progress or NoProgress()
    done: list[Publication] = []
    lacking: list[WriteStore] = []
    failed: CachepodError | None = None
    name = manifest_name(identity.key)
    for store in stores:
        try:
            present = not force and exists(store, name)
        except CachepodError as error:
            failed = failed or error
            continue
        if present:
            done.append(Publication(store.url, "present"))
        else:
            lacking.append(store)
    if lacking:
        _check_publishable(settings, identity.key, force)
    for store in lacking:
        from cachepod.snapshot.publish import TreeSource, publish

        try:
            report = publish(
                store,
                identity.key,
                identity.fingerprint,
                [TreeSource(tree, root) for tree, root in trees(settings).items()],
                level=settings.level,
                threads=settings.threads,
                force=force,
                progress=told,
            )
        except CachepodError as error:
            if failed is not None:
                told.note(_sentence(error))
            failed = failed or error
        else:
            done.append(Publication(store.url, report.outcome, report))
    if failed is not None:
        raise failed
    return done


def _check_publishable(settings: Settings, key: str, force: bool) -> None:
    """Refuse to store, for ever and for everyone, what is not the environment of *key*."""
    for name, root in settings.trees.items():
        if not root.is_dir():
            raise TreeUnreadable(str(root), f"the tree {name} is not a directory")
    if not settings.wants_environment:
        return
    prefix = settings.prefix
    if not prefix.is_dir():
        raise TreeUnreadable(
            str(prefix), "there is no environment", hint="run cachepod install first"
        )
    stamp = read_stamp(prefix)
    if stamp is None:
        if force:
            return
        raise TreeUnreadable(
            str(prefix),
            "the environment was not made by cachepod",
            hint="run cachepod install, or publish it as it is with --force",
        )
    if stamp.state not in (State.COMPLETE, State.INSTALLED):
        raise UsageProblem(
            f"{prefix}: the environment is not complete", hint="run cachepod install first"
        )
    if stamp.key != key:
        raise UsageProblem(
            f"{prefix} holds the environment of {stamp.key}, the configuration asks for {key}",
            hint="run cachepod install first",
        )


def install_environment(
    settings: Settings,
    identity: Identity,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> InstallReport | None:
    """
    Install what the configuration asks for; None where it asks for no environment.

    Two hooks that start for one prefix take turns, and the second finds the work done.

    Raises:
        ForeignDirectory: The prefix holds what cachepod did not make.

        InstallFailed: The installer gave up.

        CheckFailed: It is installed, but a module that must be importable is not.
    """
    if not settings.wants_environment:
        return None
    from cachepod.environment.install import install

    told = progress or NoProgress()
    with _turn(settings.prefix, told):
        return install(settings, identity, force=force, progress=told)


@contextmanager
def _turn(prefix: Path, progress: Progress) -> Iterator[None]:
    """
    One install at a time in *prefix* on this machine.

    Best effort: what cannot be locked, or stays locked for too long, is installed all the same.
    """
    import tempfile

    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(os.path.realpath(prefix))).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir(), f"cachepod-{os.getuid()}-{name}.lock"))
    held = False
    try:
        lock.acquire(timeout=0)
        held = True
    except Timeout:
        progress.phase(f"waiting for another install in {prefix}")
        try:
            lock.acquire(timeout=_LOCK_PATIENCE)
            held = True
        except (Timeout, OSError):
            progress.note(f"another install has held {prefix} for too long, going on without it")
    except OSError as error:
        progress.note(f"two installs in {prefix} cannot be told apart: {error}")
    try:
        yield
    finally:
        if held:
            lock.release()


def environment_of(prefix: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* as ``bin/activate`` would make it."""
    scripts = str(prefix / "bin")
    path = environ.get("PATH", os.defpath)
    made = {**environ, "VIRTUAL_ENV": str(prefix), "PATH": os.pathsep.join([scripts, path])}
    made.pop("PYTHONHOME", None)
    return made


def check_runnable(prefix: Path) -> None:
    """
    Whether a command can be run in the environment at *prefix*.

    Raises:
        TreeUnreadable: It is missing or incomplete.
    """
    stamp = read_stamp(prefix)
    complete = stamp is None or stamp.state in (State.COMPLETE, State.INSTALLED)
    if complete and (prefix / "pyvenv.cfg").is_file() and os.path.lexists(prefix / "bin/python"):
        return
    why = "there is no environment" if complete else "the environment is not complete"
    raise TreeUnreadable(
        str(prefix), why, hint="run cachepod up, or cachepod restore || cachepod install"
    )
