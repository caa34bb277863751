"""
The start-up hook: restore, else install and publish; the restore is in restoration.py.

A shell reads ``cachepod restore || cachepod install && cachepod publish`` as
``(restore || install) && publish``, so a publish also follows a hit and must cost nothing there:
the engine is imported by the functions that need it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment.building import abandon, installing, publishing
from cachepod.environment.private import private_file
from cachepod.environment.toolkit import (
    cannot_be_made,
    captured,
    goes_without,
    stays,
    with_toolkit,
)
from cachepod.errors import (
    CachepodError,
    CheckFailed,
    CorruptObject,
    ObjectMissing,
    ToolkitMissing,
    TreeUnreadable,
    UsageProblem,
)
from cachepod.model.names import manifest_name
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.stamp import (
    CUDA_TREE,
    ENVIRONMENT_TREE,
    Stamp,
    State,
    read_stamp,
    write_stamp,
)
from cachepod.stores.base import Store, WriteStore

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.environment.install import InstallReport
    from cachepod.environment.layer import LayerInstallation
    from cachepod.environment.publication import Publication
    from cachepod.snapshot.scan import TreeSource

_LOCK_PATIENCE = 900.0  # seconds; longer than any install that is still alive


@dataclass(frozen=True)
class Installation:
    """
    What an install did.

    Args:
        environment: Of the environment; None where none is asked for.

        layer: Of the apt packages.
    """

    environment: InstallReport | None
    layer: LayerInstallation | None = None


def trees(settings: Settings, identity: Identity) -> dict[str, Path]:
    """Every tree that a snapshot of this configuration has, and where it lies."""
    roots = {ENVIRONMENT_TREE: settings.prefix} if settings.wants_environment else {}
    if identity.layer is not None:
        from cachepod.environment.layer import tree_place
        from cachepod.system.record import TREE

        roots[TREE] = tree_place()
    toolkit = captured(settings)
    if toolkit is not None:
        roots[CUDA_TREE] = toolkit
    return {**roots, **settings.trees}


def brought(settings: Settings, identity: Identity, *, force: bool = False) -> dict[str, Path]:
    """
    Those of them that a restore brings: not the CUDA toolkit of the image, unless by force, and
    none that cannot be made and may be gone without.
    """
    found = trees(settings, identity)
    lost = goes_without(settings) and cannot_be_made(settings)
    if lost or (not force and stays(settings)):
        del found[CUDA_TREE]
    return found


def sources(settings: Settings, identity: Identity) -> list[TreeSource]:
    """What a publish reads: every tree, and what lies around the CUDA toolkit."""
    from cachepod.snapshot.scan import TreeSource

    found = [TreeSource(name, root) for name, root in trees(settings, identity).items()]
    toolkit = captured(settings)
    if toolkit is None:
        return found
    from cachepod.environment.cudatree import around_of, told_around

    # What a user without root could not make again is not forgotten for that.
    around = told_around(toolkit) or around_of(toolkit)
    return [replace(each, around=around) if each.name == CUDA_TREE else each for each in found]


def sentence(error: CachepodError) -> str:
    """What a line of a log says of *error*."""
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
    Store the trees under the key, in every store that lacks it; see publication.py for how.

    The lease that a restore has taken is renewed meanwhile and released at the end.

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
    from cachepod.environment.publication import publish_everywhere

    with publishing(settings, identity.key, stores):
        return publish_everywhere(settings, identity, stores, force, progress or NoProgress())


def stored_digest(store: Store, key: str) -> str:
    """
    Digest of the snapshot of *key*, as its header has it; empty where there is none.

    Raises:
        StoreUnreachable, NewerFormat: The store cannot be asked.
    """
    from cachepod.model.manifest import HEADER, Manifest

    head = bytearray(HEADER.size)
    try:
        with memoryview(head) as view:
            store.read_range(manifest_name(key), 0, view)
    except ObjectMissing:
        return ""
    except CorruptObject:
        return "damaged"
    return Manifest.digest_of(bytes(head))


def check_publishable(settings: Settings, identity: Identity, force: bool) -> None:
    """Refuse to store, for ever and for everyone, what is not the environment of the key."""
    key = identity.key
    if captured(settings) is not None:
        from cachepod.environment.cudatree import check_tree

        try:
            check_tree(settings)
        except ToolkitMissing:
            if not goes_without(settings):
                raise
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
) -> Installation | None:
    """
    Install what the configuration asks for; None where it asks for nothing that is installed.

    The apt packages come first: what is built from source may need them.

    Two hooks that start for one prefix take turns, and the second finds the work done. The lease
    that a restore has taken is renewed meanwhile, so that other containers wait.

    Raises:
        ForeignDirectory: The prefix holds what cachepod did not make.

        InstallFailed: The installer gave up.

        CheckFailed: It is installed, but a module that must be importable is not.

        ConfigurationProblem: The CUDA tree that the configuration names is not there.

        NotRoot, AptFailed, DriverPackage: The apt packages cannot be had, and the configuration
            says that this is an error.
    """
    told = progress or NoProgress()
    if captured(settings) is not None:
        from cachepod.environment.cudatree import check_tree

        try:
            check_tree(settings)
        except ToolkitMissing as error:
            if not goes_without(settings):
                raise
            told.note(f"{sentence(error)}; going on without")
    if not settings.wants_environment and not settings.wants_packages:
        return None
    if identity.without is not None:
        told.note(f"{sentence(identity.without)}; going on without")
    with installing(settings, identity.key):
        done = _install_both(settings, identity, force, told)
    if done.layer is not None and done.layer.withheld:
        # What is not published is not to be waited for.
        abandon(settings, identity.key, failed=done.layer.problem is not None)
    return done


def _install_both(
    settings: Settings, identity: Identity, force: bool, told: Progress
) -> Installation:
    layer: LayerInstallation | None = None
    if identity.layer is not None:
        from cachepod.environment.layer import install_layer

        layer = install_layer(settings, identity, told)
        if layer.problem is not None:
            told.note(f"{sentence(layer.problem)}; going on without")
    if not settings.wants_environment:
        return Installation(None, layer)
    from cachepod.environment.install import install

    with _turn(settings.prefix, told):
        # with the toolkit, for what is built from source
        environ = with_toolkit(settings, os.environ)
        report = install(settings, identity, force=force, progress=told, environ=environ)
        if report.outcome == "present":
            _check_again(settings, identity, layer)
    return Installation(report, layer)


def _check_again(settings: Settings, identity: Identity, layer: LayerInstallation | None) -> None:
    """
    Try an environment that was there before, where nobody has tried it as it is now: the packages
    that it counts on have just come, or it is a relative's, made beside other packages.
    """
    stamp = read_stamp(settings.prefix)
    unpublished = stamp is not None and stamp.state is State.INSTALLED
    if not unpublished and (layer is None or layer.report is None):
        return
    from cachepod.environment.check import check

    try:
        check(settings.prefix, identity.checked(settings.check), with_toolkit(settings, os.environ))
    except CheckFailed:
        # Otherwise it would be published, and the next install would find it complete.
        write_stamp(settings.prefix, Stamp(State.INSTALLING, identity.key, ENVIRONMENT_TREE))
        raise


@contextmanager
def _turn(prefix: Path, progress: Progress) -> Iterator[None]:
    """
    One install at a time in *prefix* on this machine.

    Best effort: what cannot be locked, or stays locked for too long, is installed all the same.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as stack:
        try:
            lock = FileLock(private_file("install", [prefix], ".lock"))
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                progress.phase(f"waiting for another install in {prefix}")
                stack.enter_context(lock.acquire(timeout=_LOCK_PATIENCE))
        except Timeout:
            progress.note(f"another install has held {prefix} for too long, going on without it")
        except OSError as error:
            progress.note(f"another install in {prefix} would not be noticed: {error}")
        yield


def environment_of(
    settings: Settings, prefix: Path | None, environ: Mapping[str, str]
) -> dict[str, str]:
    """
    What a command that cachepod starts is given.

    Args:
        prefix: An environment that is put into it as its ``bin/activate`` would; None for none.

        environ: The variables of this process. The CUDA toolkit is added where there is one.
    """
    made = with_toolkit(settings, environ)
    if prefix is not None:
        path = made.get("PATH", os.defpath)
        made["VIRTUAL_ENV"] = str(prefix)
        made["PATH"] = os.pathsep.join([str(prefix / "bin"), path])
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
