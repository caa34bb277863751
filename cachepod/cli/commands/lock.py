"""``cachepod lock``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click

from cachepod.cli.options import KEY, Invocation, subcommand
from cachepod.cli.render import Outcome, count, duration
from cachepod.errors import UsageProblem


@subcommand("lock", *KEY, "cache_dir")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The lock file: by default the one that the configuration names, else "
    "requirements.lock beside the configuration.",
)
def command(call: Invocation, output: str | None) -> Outcome:
    """
    Resolve the requirements into a lock file with hashes.

    With `lock = "requirements.lock"` in cachepod.toml the environment is installed from it, and
    the hashes are the key.
    """
    from cachepod.environment.identity import identify
    from cachepod.environment.lock import lock

    started = time.monotonic()
    settings = call.settings()
    path = Path(output) if output else settings.lock or settings.root / "requirements.lock"
    # The lock is what is being made: one that is named and not there yet is no error here.
    settings = replace(settings, lock=None)
    if not settings.wants_environment:
        raise UsageProblem(
            "there is nothing to lock: no requirements are configured",
            hint="name a file with -r FILE or in cachepod.toml",
        )
    identity = identify(settings)
    with call.display() as progress:
        report = lock(settings, identity, path, progress=progress)
        for warning in report.warnings:
            progress.note(warning)
    seconds = time.monotonic() - started
    return Outcome(
        document={
            "outcome": report.outcome,
            "path": str(report.path),
            "packages": report.packages,
            "warnings": list(report.warnings),
            "seconds": round(seconds, 3),
        },
        summary=(
            f"{report.outcome} {report.path}: {count(report.packages, 'package')} "
            f"in {duration(seconds)}"
        ),
    )
