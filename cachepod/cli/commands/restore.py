"""``cachepod restore``."""

from __future__ import annotations

import time

import click

from cachepod.cli.describe import restoration
from cachepod.cli.options import KEY, STORE, Invocation, subcommand
from cachepod.cli.render import Outcome
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_MISS


@subcommand(
    "restore",
    *STORE,
    *KEY,
    "wait",
    "timeout",
    "fill",
    "threads",
    "direct",
    expired=lambda seconds: timed_out("restore", seconds, EXIT_MISS),
)
@click.option("--force", is_flag=True, help="Replace a directory that cachepod did not make.")
def command(call: Invocation, force: bool) -> Outcome:
    """
    Look the key up in the stores and bring the environment back.

    On a miss, another container that is building the environment is waited for; if there is none,
    this one builds it and others wait.

    Exit code 3 is a miss, 4 a relative that `cachepod install` must top up; after both of them,
    and after any other failure, `cachepod install` makes the environment.
    """
    from cachepod.cli.profile import profile_line
    from cachepod.environment.account import note_restore
    from cachepod.environment.identity import identify
    from cachepod.environment.recent import remember_hit
    from cachepod.environment.restoration import restore_environment

    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout)
    identity = identify(settings)
    stores = call.stores(settings)
    with call.display() as progress:
        result = restore_environment(
            settings,
            identity,
            stores,
            force=force,
            progress=progress,
            pause=lambda: call.waiting(settings.timeout),
        )
    remember_hit(settings, result)
    seconds = time.monotonic() - started
    call.mention(profile_line("restore", result.report))
    call.mention(note_restore(result, stores, seconds))
    return restoration(result, settings, identity, seconds)
