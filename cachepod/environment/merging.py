"""
The part of a restore that follows the engine's: the apt layer is merged into the system.

The engine brings the layer's tree as any other. What the packages are good for is there only when
it is merged, so a restore whose merge fails or is refused is no hit; and one that was killed
between the two is completed by the next, which finds the tree in its place.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cachepod.environment.hook import brought
from cachepod.environment.layer import (
    adopt,
    apply_layer,
    holds_layer,
    in_place,
    is_mislabelled,
    make_ours,
    refuse,
)
from cachepod.errors import (
    EXIT_MISS,
    EXIT_PARTIAL,
    BaseDiffers,
    CachepodError,
    TreeUnreadable,
    write_problem,
)
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.restore import RestoreReport, Target, confirmed
from cachepod.snapshot.stamp import State
from cachepod.snapshot.swap import clean_up
from cachepod.system.record import TREE

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.environment.restoration import Restoration


def confirmed_below(settings: Settings, identity: Identity) -> RestoreReport | None:
    """
    The report of a restore that finds every tree in place, the layer's perhaps not yet merged.

    The layer's files are the system's own by now, and have other names and times than when they
    were restored; whether they are there still is for :func:`merged` to say.
    """
    roots = brought(settings, identity)
    layer = roots.pop(TREE)
    if not holds_layer(identity.key):
        return None
    clean_up(layer)
    targets = [Target(name, root) for name, root in roots.items()]
    if not targets:
        return RestoreReport("confirmed")
    return confirmed(targets, identity.key)


def targets_beside(settings: Settings, identity: Identity, force: bool) -> list[Target]:
    """What a restore has to bring: all, or all but a layer that is in place under another key."""
    roots = brought(settings, identity, force=force)
    if not force and in_place(identity):
        del roots[TREE]
    else:
        make_ours()
    return [Target(name, root) for name, root in roots.items()]


def merged(
    settings: Settings, identity: Identity, found: Restoration, progress: Progress
) -> Restoration:
    """
    *found*, when its layer is merged into the system; no hit any more if that fails.

    The environment that came with it stays, and an install has only apt's part to do.
    """
    assert found.report is not None
    started = time.monotonic()
    try:
        done = apply_layer(settings, progress)
        try:
            adopt(identity, State.COMPLETE)
        except OSError as error:
            raise write_problem(error.filename or "", error) from error
    except CachepodError as error:
        if is_at_fault(identity, error):
            refuse(identity, for_all=True)
        if settings.wants_environment:
            return replace(found, outcome="partial", exit_code=EXIT_PARTIAL, problem=error)
        return replace(
            found, outcome="miss", exit_code=EXIT_MISS, source="", report=None, problem=error
        )
    report = found.report
    phases = dict(report.phases)
    if done.outcome != "confirmed":
        phases["apply"] = time.monotonic() - started
    return replace(
        found, report=replace(report, phases=phases, warnings=(*report.warnings, *done.notes))
    )


def is_at_fault(identity: Identity, problem: CachepodError) -> bool:
    """Whether a merge failed for what the snapshot holds, and not for this machine's state."""
    if isinstance(problem, BaseDiffers):
        return is_mislabelled(identity)
    return isinstance(problem, TreeUnreadable)
