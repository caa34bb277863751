"""``cachepod publish``."""

from __future__ import annotations

import time

import click

from cachepod.cli.describe import publication
from cachepod.cli.options import KEY, STORE, Invocation, subcommand
from cachepod.cli.render import Outcome
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_UNREACHABLE


@subcommand(
    "publish",
    *STORE,
    *KEY,
    "level",
    "threads",
    "timeout",
    "fill",
    expired=lambda seconds: timed_out("publish", seconds, EXIT_UNREACHABLE),
)
@click.option("--force", is_flag=True, help="Store it anew even if the store has it.")
def command(call: Invocation, force: bool) -> Outcome:
    """
    Store the environment and the other trees under their key.

    Does nothing if the store has a snapshot of this key. --timeout counts from the last moment
    at which something moved.
    """
    from cachepod.environment.hook import publish_environment
    from cachepod.environment.identity import identify

    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout, stall=True)
    identity = identify(settings)
    stores = call.stores(settings)
    with call.display() as progress:
        done = publish_environment(settings, identity, stores, force=force, progress=progress)
    seconds = time.monotonic() - started
    if any(each.report or each.copied for each in done):
        from cachepod.cli.profile import profile_line
        from cachepod.environment.account import note_publish

        for each in done:
            call.mention(profile_line(f"publish to {each.store}", each.report))
        call.mention(note_publish(done, stores, identity.key))
    return publication(done, identity.key, seconds)
