"""``cachepod config``."""

from __future__ import annotations

import time

from cachepod.cli.options import Invocation, all_settings, subcommand
from cachepod.cli.render import Outcome, count, duration, table


@subcommand("config", *all_settings())
def command(call: Invocation) -> Outcome:
    """
    Print the effective configuration and where each value comes from.

    A flag counts before an environment variable, that before cachepod.toml or [tool.cachepod] in
    pyproject.toml, and that before the default. Credentials are masked.
    """
    from cachepod.environment.config import rows

    started = time.monotonic()
    settings = call.settings()
    shown = rows(settings)
    file = None if settings.file is None else str(settings.file)
    return Outcome(
        document={
            "file": file,
            "settings": {row.name: row.value for row in shown},
            "sources": {row.name: row.source for row in shown},
        },
        text=table(("KEY", "VALUE", "FROM"), [(row.name, row.text, row.source) for row in shown]),
        summary=(
            f"{count(len(shown), 'value')}, configuration file {file or '(none)'}, "
            f"{duration(time.monotonic() - started)}"
        ),
    )
