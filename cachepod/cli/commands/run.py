"""``cachepod run``."""

from __future__ import annotations

import click

from cachepod.cli.execute import execute
from cachepod.cli.options import Invocation, subcommand
from cachepod.cli.render import Outcome


@subcommand("run", "prefix", context_settings={"allow_interspersed_args": False})
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] CMD...")
def command(call: Invocation, words: tuple[str, ...]) -> Outcome:
    """
    Run a command in the environment, nothing else.

    The command takes this process's place, with the environment first on its PATH.
    """
    from cachepod.environment.hook import check_runnable

    settings = call.settings()
    check_runnable(settings.prefix)
    return execute(words, settings, settings.prefix)
