"""``cachepod diff``."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import click

from cachepod.cli.describe import difference_rows, differences
from cachepod.cli.options import STORE, Invocation, complete_key, subcommand
from cachepod.cli.render import Outcome, count, duration, table
from cachepod.cli.snapshots import find_manifest
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_UNREACHABLE, human_bytes

if TYPE_CHECKING:
    from cachepod.snapshot.diff import Diff, FileChange

_LEFT_OUT = 40  # changed files beyond this many are summed up, unless -v asks for them


@subcommand(
    "diff",
    *STORE,
    "timeout",
    expired=lambda seconds: timed_out("diff", seconds, EXIT_UNREACHABLE),
)
@click.argument("first", metavar="A", shell_complete=complete_key)
@click.argument("second", metavar="B", shell_complete=complete_key)
def command(call: Invocation, first: str, second: str) -> Outcome:
    """
    Show what changed from snapshot A to snapshot B: inputs, distributions and files.

    Exit code 0 whether they differ or not. -v lists every file.
    """
    from cachepod.snapshot.diff import diff

    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout)
    stores = call.stores(settings)
    before_store, before = find_manifest(stores, first)
    after_store, after = find_manifest(stores, second)
    families = (before.summary.fingerprint.family, after.summary.fingerprint.family)
    found = diff(before, after, (before_store, after_store))
    tally = Counter(change.what for change in found.files)
    return Outcome(
        document={
            "from": first,
            "to": second,
            "inputs": differences(found.inputs, families, names=("from", "to")),
            "distributions": [
                {"name": each.name, "from": each.before, "to": each.after}
                for each in found.distributions
            ],
            "files": [
                {
                    "tree": each.tree,
                    "path": each.path,
                    "what": each.what,
                    "from": each.before,
                    "to": each.after,
                    "distribution": each.owner or None,
                }
                for each in found.files
            ],
            "unchanged": found.unchanged,
        },
        text=_text(found, families, first, second, everything=call.console.verbose > 0),
        summary=(
            "".join(f"{number:,} {what}, " for what, number in sorted(tally.items()))
            + f"{count(found.unchanged, 'file')} unchanged; {duration(time.monotonic() - started)}"
        ),
    )


def _text(
    found: Diff, families: tuple[str, str], first: str, second: str, *, everything: bool
) -> str:
    parts: list[str] = []
    inputs = difference_rows(found.inputs, families)
    if inputs:
        parts.append(table(("INPUT", "A", "B"), inputs))
    if found.distributions:
        versions = [
            (each.name, each.before or "-", each.after or "-") for each in found.distributions
        ]
        parts.append(table(("DISTRIBUTION", "A", "B"), versions))
    if found.files:
        shown = found.files if everything else found.files[:_LEFT_OUT]
        rows = [(each.what, _size(each.before), _size(each.after), _place(each)) for each in shown]
        listed = table(("FILE", "A", "B", "PATH"), rows, right="A B")
        left = len(found.files) - len(shown)
        if left:
            listed += f"\nand {count(left, 'more file')}, shown by -v"
        parts.append(listed)
    return "\n\n".join(parts) or f"{first} and {second} hold the same"


def _size(size: int | None) -> str:
    return "-" if size is None else human_bytes(size)


def _place(change: FileChange) -> str:
    return f"{change.tree}/{change.path}"
