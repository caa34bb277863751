"""What is in place already, what is still to be brought, and whether what was brought works."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cachepod.environment.flash_plan import NAME as FLASH_ATTN
from cachepod.environment.flash_plan import lacks_it
from cachepod.environment.hook import brought, sentence, trees
from cachepod.environment.outcome import Restoration
from cachepod.environment.toolkit import with_toolkit
from cachepod.errors import EXIT_MISS, CachepodError, CheckFailed, Miss
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.stamp import ENVIRONMENT_TREE, Stamp, State, read_stamp, write_stamp

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.snapshot.restore import Target


def confirm(settings: Settings, identity: Identity, progress: Progress) -> Restoration | None:
    """What is in place already; None if there is work to do."""
    key = identity.key
    if identity.layer is None:
        from cachepod.snapshot.restore import RestoreReport, confirmed

        targets = targets_of(settings, identity)
        # Without a tree it is apt packages alone that are wanted, and the image has them.
        nothing = not targets and not trees(settings, identity)
        report = RestoreReport("confirmed") if nothing else confirmed(targets, key)
    else:
        from cachepod.environment.merging import confirmed_below, is_at_fault, merged

        report = confirmed_below(settings, identity)
    if report is None:
        return None
    found = Restoration("confirmed", key, source=key, report=report)
    if identity.layer is None:
        return found
    found = merged(settings, identity, found, progress)
    if found.problem is None or not is_at_fault(identity, found.problem):
        return found  # where this machine prevents the merge, no store is of any help
    progress.note(sentence(found.problem))
    return None


def targets_of(settings: Settings, identity: Identity, force: bool = False) -> list[Target]:
    """What a restore has to bring: every tree, but not a layer that is in place."""
    if identity.layer is not None:
        from cachepod.environment.merging import targets_beside

        return targets_beside(settings, identity, force)
    from cachepod.snapshot.restore import Target

    return [Target(name, root) for name, root in brought(settings, identity, force=force).items()]


def tried(
    settings: Settings, identity: Identity, restored: Restoration, progress: Progress
) -> Restoration:
    """*restored* if the environment works on this machine; else a miss, to be installed anew."""
    if settings.toolkit:
        from cachepod.environment.around import settle

        settle(settings, progress, fresh=restored.outcome != "confirmed")
    if not settings.wants_environment:
        return restored
    from cachepod.environment.check import check, interpreter_works

    started = time.monotonic()
    problem: CachepodError | None = None
    if not interpreter_works(settings.prefix, identity.interpreter):
        problem = Miss(
            identity.key, "the interpreter of this machine is not the one of the snapshot"
        )
    elif restored.outcome in ("restored", "updated"):
        from cachepod.environment.advice import driver_advice

        outdated = driver_advice(identity)
        if outdated:
            progress.note(outdated)
        try:
            modules = identity.checked(settings.check)
            check(settings.prefix, modules, with_toolkit(settings, os.environ))
        except CheckFailed as error:
            problem = error
    checked = time.monotonic() - started
    if problem is None:
        absent = identity.flash_attn is not None and lacks_it(settings.prefix)
        return replace(restored, checked=checked, lacks=FLASH_ATTN if absent else "")
    # Otherwise the next restore would confirm it, and an install would find it complete.
    before = read_stamp(settings.prefix)
    spoils = before.manifest if before is not None else ""
    write_stamp(
        settings.prefix, Stamp(State.INSTALLING, identity.key, ENVIRONMENT_TREE, spoils=spoils)
    )
    return Restoration(
        "miss",
        identity.key,
        exit_code=EXIT_MISS,
        store=restored.store,
        problem=problem,
        checked=checked,
        waited=restored.waited,
    )
