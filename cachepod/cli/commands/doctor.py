"""``cachepod doctor``."""

from __future__ import annotations

import os
import sys
import time

from cachepod.cli.options import STORE, Invocation, subcommand
from cachepod.cli.render import Document, Outcome, count, duration, printable
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_DONE, EXIT_FAILURE, EXIT_UNREACHABLE

_PATIENCE = 30.0  # seconds for one check; the commands of the hook wait longer


@subcommand(
    "doctor",
    *STORE,
    "prefix",
    "requirements",
    "trees",
    "timeout",
    expired=lambda seconds: timed_out("the last check", seconds, EXIT_UNREACHABLE),
)
def command(call: Invocation) -> Outcome:
    """
    Check the machine, the stores and the prefix, and say what each result means.

    Exit code 1 means that something would not work. The store is tried with a few small objects,
    which are deleted again.
    """
    from cachepod.environment.doctor import Severity, examine

    started = time.monotonic()
    settings = call.settings()
    patience = settings.timeout if "timeout" in call.flags else _PATIENCE
    call.limit(patience, stall=True)
    checks: list[Document] = []
    tally = dict.fromkeys(Severity, 0)
    about = ""
    for check in examine(settings, os.environ):
        call.moved()
        tally[check.severity] += 1
        checks.append(
            {
                "about": check.about,
                "check": check.name,
                "severity": check.severity.value,
                "result": check.result,
                "meaning": check.meaning,
            }
        )
        if call.console.json:
            continue
        # At once, line by line: what comes next may be a volume that does not answer.
        if check.about != about:
            about = check.about
            _say(about)
        _say(f"  {check.severity.value:8} {check.name}: {check.result}; {check.meaning}")
    problems, warnings = tally[Severity.PROBLEM], tally[Severity.WARNING]
    code = EXIT_FAILURE if problems else EXIT_DONE
    document: Document = {"checks": checks, "problems": problems, "exit_code": code}
    if problems:
        document["error"] = f"{count(problems, 'problem')} found"
    return Outcome(
        document=document,
        summary=(
            f"{count(len(checks), 'check')}, {count(problems, 'problem')}, "
            f"{count(warnings, 'warning')}, {duration(time.monotonic() - started)}"
        ),
        exit_code=code,
    )


def _say(text: str) -> None:
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()
