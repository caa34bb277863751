"""
From the tree of a layer to a root that has it.

===  ============================================  =============================================
     step                                          killed here, the root has
===  ============================================  =============================================
1.   the tree is read, the base compared,          what it had
     the room checked
2.   the record says ``applying``                  what it had
3.   accounts, directories, files; removals        files that no package owns yet
4.   dpkg's files about each package               the same, and words about them that dpkg
                                                   does not read
5.   ``/var/lib/dpkg/status``, by one rename:      the packages, as if apt had installed them
     the commit point
6.   ldconfig                                      the same; libraries may not be found
7.   the record says ``in place``                  the same
===  ============================================  =============================================

Whoever applies again after a kill goes through all steps; each finds what is done.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cachepod.errors import (
    BaseDiffers,
    NotEnoughSpace,
    NotRoot,
    PlaceTaken,
    SpaceExhausted,
    TreeUnreadable,
    write_problem,
)
from cachepod.snapshot.held import Held, read_held, reindex
from cachepod.snapshot.phases import Phases
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.system.accounts import check, merge
from cachepod.system.base import (
    DPKG,
    base_from,
    difference,
    distribution,
    installed,
)
from cachepod.system.capture import read_accounts
from cachepod.system.layer import ApplyReport, applied
from cachepod.system.locks import alone, dpkg_locked
from cachepod.system.merge import Merge
from cachepod.system.metadata import METADATA, Layer, decode, digest_of, read_metadata
from cachepod.system.plan import make_plan
from cachepod.system.record import TREE, Progressed, Record, place, read_record, write_record

_LDCONFIG = ("sbin/ldconfig", "usr/sbin/ldconfig")
_LDCONFIG_SECONDS = 120


def apply(root: Path, *, trusted: bool, progress: Progress | None) -> ApplyReport:
    """See :func:`cachepod.system.layer.apply`."""
    progress = progress or NoProgress()
    phases = Phases(progress)
    phases.begin("prepare")
    try:
        if os.stat(root).st_uid != os.geteuid():
            raise NotRoot("putting apt packages in place")
        data = read_metadata(place(root))
        layer = decode(data, os.fspath(place(root) / METADATA))
        if applied(root):
            return ApplyReport("confirmed", len(layer.packages), phases=phases.end())
        with alone(root):
            if applied(root):  # by another, while this one waited
                return ApplyReport("confirmed", len(layer.packages), phases=phases.end())
            if not (root / DPKG).is_dir():
                raise BaseDiffers("there is no dpkg in this image")
            with dpkg_locked(root, say=progress.status):
                return _apply(root, layer, digest_of(data), trusted, progress, phases)
    except OSError as error:
        problem = write_problem(error.filename or os.fspath(root), error)
        if isinstance(problem, SpaceExhausted):
            raise problem from error
        # Not the tree's fault, which was read before.
        raise PlaceTaken(problem.path, problem.why) from error


def _apply(
    root: Path, layer: Layer, digest: str, trusted: bool, progress: Progress, phases: Phases
) -> ApplyReport:
    _check_base(root, layer)
    try:
        check(layer.accounts, trusted=trusted)
    except ValueError as error:
        raise TreeUnreadable(os.fspath(place(root) / METADATA), str(error)) from error
    plan = make_plan(root, layer)
    free = os.statvfs(root)
    if plan.copied > free.f_bavail * free.f_frsize:
        raise NotEnoughSpace(os.fspath(root), plan.copied, free.f_bavail * free.f_frsize)
    # What the tree is known to hold it is known to hold afterwards, for links alone change it.
    held = _held(root)
    before = read_record(root)
    record = Record(Progressed.APPLYING, layer.base, digest, layer.asked)
    merge_ = Merge(root, layer, trusted=trusted, progress=progress)
    if before is not None and before.state is Progressed.APPLYING:
        merge_.sweep(plan)
    write_record(root, record)
    phases.begin("apply", files=len(plan.files) + len(plan.database), size=plan.size)
    texts, notes = merge(read_accounts(root), layer.accounts, trusted=trusted)
    merge_.accounts(texts)
    merge_.directories(plan.directories)
    merge_.put(plan.files)
    merge_.remove(plan.removed)
    merge_.put(plan.database, always=True)
    merge_.remove(plan.forgotten)
    if plan.status is not None:
        merge_.commit(plan.status)
    phases.begin("ldconfig")
    notes += _ldconfig(root)
    write_record(root, Record(Progressed.IN_PLACE, layer.base, digest, layer.asked))
    if held is not None:
        reindex(held)
    notes += merge_.notes
    if merge_.dropped():
        notes.append(merge_.dropped())
    for note in notes:
        progress.note(note)
    return ApplyReport(
        "applied", len(layer.packages), merge_.files, merge_.size, phases.end(), tuple(notes)
    )


def _check_base(root: Path, layer: Layer) -> None:
    """
    Refuse a root that is not the base of *layer*.

    Raises:
        BaseDiffers: In words how.
    """
    here = distribution(root)
    if here != layer.distribution:
        raise BaseDiffers(f"they were installed on {layer.distribution}, and this is {here}")
    found = installed(root)
    packages = {} if found is None else dict(found.versions)
    try:
        interrupted = os.listdir(root / DPKG / "updates")
    except FileNotFoundError:
        interrupted = []
    if interrupted:
        raise BaseDiffers("dpkg was interrupted in this container")
    if packages == layer.before or packages == layer.after:
        return
    record = read_record(root)
    if record is not None and record.base == layer.base:
        raise BaseDiffers(
            "other packages were installed in this container since it started: "
            + difference(layer.after, packages)
        )
    raise BaseDiffers(
        f"the base image differs (base {base_from(here, packages).digest} instead of "
        f"{layer.base.digest}): {difference(layer.before, packages)}"
    )


def _held(root: Path) -> Held | None:
    held = read_held(place(root), TREE)
    return held if held is not None and held.is_whole() else None


def _ldconfig(root: Path) -> list[str]:
    """Let the linker find the new libraries; what went wrong, in words."""
    program = next((name for name in _LDCONFIG if (root / name).is_file()), None)
    if program is None:
        return []
    command = [f"/{program}"]
    if os.path.realpath(root) != "/":
        chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if chroot is None:
            return ["there is no chroot, by which ldconfig could run"]
        command = [chroot, os.fspath(root), *command]
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_LDCONFIG_SECONDS,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"ldconfig failed, and libraries may not be found: {error}"]
    return []
