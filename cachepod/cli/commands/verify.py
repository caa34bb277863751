"""``cachepod verify``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cachepod.cli.options import STORE, Invocation, complete_key, subcommand
from cachepod.cli.render import Document, Outcome, count, duration, printable, rate
from cachepod.cli.watchdog import timed_out
from cachepod.errors import (
    EXIT_DAMAGED,
    EXIT_DONE,
    EXIT_UNREACHABLE,
    Miss,
    StoreUnreachable,
    human_bytes,
)

if TYPE_CHECKING:
    from cachepod.snapshot.verify import VerifyReport
    from cachepod.stores.base import Store


@subcommand(
    "verify",
    *STORE,
    "threads",
    "timeout",
    expired=lambda seconds: timed_out("verify", seconds, EXIT_UNREACHABLE),
)
@click.argument("keys", nargs=-1, metavar="[KEY]...", shell_complete=complete_key)
def command(call: Invocation, keys: tuple[str, ...]) -> Outcome:
    """
    Read snapshots back, all of them or those named, and compare every digest.

    Nothing is changed: a restore that meets the damage sets the snapshot aside. Exit code 6 means
    damage. --timeout counts from the last moment at which something moved.
    """
    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout, stall=True)
    chosen: list[list[str] | None] = [[key] for key in keys] or [None]
    reports: list[tuple[Store, VerifyReport]] = []
    found: set[str] = set()
    missing: Miss | None = None
    with call.display() as progress:
        from cachepod.snapshot.verify import verify

        for store in call.stores(settings):
            for some in chosen:
                try:
                    report = verify(store, some, threads=settings.threads, progress=progress)
                except Miss as miss:
                    missing = miss
                    continue
                except StoreUnreachable as error:
                    if len(settings.store) == 1:
                        raise
                    progress.note(error.message)
                    continue
                reports.append((store, report))
                found.update(some or ())
    if missing is not None and set(keys) - found:
        raise missing
    return _outcome(reports, time.monotonic() - started)


def _outcome(reports: list[tuple[Store, VerifyReport]], seconds: float) -> Outcome:
    problems: list[Document] = []
    skipped: list[str] = []
    for store, report in reports:
        problems += [
            {"store": store.url, "object": each.name, "why": each.why, "keys": list(each.keys)}
            for each in report.problems
        ]
        skipped += report.skipped
    snapshots = sum(report.snapshots for _, report in reports)
    objects = sum(report.objects for _, report in reports)
    size = sum(report.size for _, report in reports)
    code = EXIT_DAMAGED if problems else EXIT_DONE
    document: Document = {
        "snapshots": snapshots,
        "objects": objects,
        "chunks": sum(report.chunks for _, report in reports),
        "size": size,
        "problems": problems,
        "skipped": skipped,
        "seconds": round(seconds, 3),
        "exit_code": code,
    }
    lines = []
    for each in problems:
        lines.append(printable(f"{each['object']}: {each['why']}"))
        lines += [f"  needed by {key}" for key in each["keys"]]
        if not each["keys"]:
            lines.append("  no snapshot needs what is damaged")
    lines += [f"{key}: of a later format, not looked at" for key in skipped]
    error = ""
    if problems:
        error = document["error"] = f"{count(len(problems), 'object')} damaged or missing"
    return Outcome(
        document=document,
        text="\n".join(lines),
        error=error,
        summary=(
            f"verified {count(snapshots, 'snapshot')}: {count(objects, 'object')}, "
            f"{human_bytes(size)} in {duration(seconds)} ({rate(size, seconds)})"
        ),
        exit_code=code,
    )
