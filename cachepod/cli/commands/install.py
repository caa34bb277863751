"""``cachepod install``."""

from __future__ import annotations

import time

import click

from cachepod.cli.describe import attempts, installation
from cachepod.cli.options import KEY, STORE, Invocation, subcommand
from cachepod.cli.render import Outcome


@subcommand("install", *STORE, *KEY, "cache_dir")
@click.option("--force", is_flag=True, help="Replace a directory that cachepod did not make.")
def command(call: Invocation, force: bool) -> Outcome:
    """
    Install what the configuration asks for into the prefix.

    What a restore of a relative has brought is topped up; what a killed install has left is made
    anew; an environment that is complete stays as it is. The store is not asked: --store is
    there so that the commands of the hook can be given the same options.
    """
    from cachepod.environment.hook import install_environment
    from cachepod.environment.identity import identify

    started = time.monotonic()
    settings = call.settings()
    identity = identify(settings)
    with call.display() as progress:
        report = install_environment(settings, identity, force=force, progress=progress)
    for line in attempts(report):
        call.mention(line)
    return installation(report, identity.key, settings, time.monotonic() - started)
