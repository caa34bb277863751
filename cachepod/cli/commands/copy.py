"""``cachepod copy``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cachepod.cli.options import Invocation, subcommand
from cachepod.cli.render import Document, Outcome, count, duration, phases, printable, rate
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_DAMAGED, EXIT_DONE, EXIT_FAILURE, EXIT_UNREACHABLE, human_bytes

if TYPE_CHECKING:
    from cachepod.snapshot.copy import CopiedSnapshot, CopyReport
    from cachepod.snapshot.copyplan import CopyPlan
    from cachepod.snapshot.damage import Problem
    from cachepod.snapshot.progress import Progress
    from cachepod.stores.base import Store, WriteStore

_WORDS = {
    "replaced": "replaced",
    "healed": "was there, with packs missing or damaged, which were brought",
    "kept": "another snapshot of this key is there and stays (--force replaces it)",
    "damaged": "damaged in the source, not copied",
    "skipped": "not copied",
    "busy": "not copied",
}


@subcommand(
    "copy",
    "threads",
    "timeout",
    expired=lambda seconds: timed_out("copy", seconds, EXIT_UNREACHABLE),
)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--force", is_flag=True, help="Replace other snapshots of the same keys in DST.")
@click.option("--dry-run", is_flag=True, help="Show what would be moved, and move nothing.")
# What the hook leaves behind to fill a nearer store: low priority, and one of the fleet at a time.
@click.option("--background", is_flag=True, hidden=True)
def command(
    call: Invocation,
    source: str,
    destination: str,
    keys: tuple[str, ...],
    force: bool,
    dry_run: bool,
    background: bool,
) -> Outcome:
    """
    Replicate snapshots from the store SRC to the store DST, all of them or those named.

    Only what is missing in DST is moved, and checked on the way, so a copy that was interrupted
    goes on where it ended. --timeout counts from the last moment at which something moved.
    """
    from cachepod.environment.trust import believed
    from cachepod.stores.places import check_apart
    from cachepod.stores.url import open_store

    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout, stall=True)
    check_apart([source, destination])
    chosen = list(keys) or None
    with call.display() as progress:
        # What is not signed is worth nothing in the other place either, where a key is configured.
        both = [open_store(url, direct=settings.direct) for url in (source, destination)]
        one, other = believed(both, settings, progress)
        if background:
            return _fill(one, other, keys, settings.threads, progress)
        if dry_run:
            from cachepod.snapshot.copyplan import plan_copy

            plan = plan_copy(one, other, chosen, force=force, progress=progress)
            return _planned(plan, (one.url, other.url), time.monotonic() - started)
        from cachepod.snapshot.copy import copy

        report = copy(one, other, chosen, force=force, threads=settings.threads, progress=progress)
    return _outcome(report, (one.url, other.url), time.monotonic() - started)


def _fill(
    source: Store, destination: WriteStore, keys: Sequence[str], threads: int, progress: Progress
) -> Outcome:
    from cachepod.environment.filling import stand_back
    from cachepod.snapshot.fill import fill

    stand_back()
    done: list[Document] = []
    code = EXIT_DONE
    for key in keys:
        report = fill(source, destination, key, threads=threads, progress=progress)
        entry: Document = {"key": key, "outcome": report.outcome}
        if report.report is not None:
            entry.update(packs=report.report.packs, size=report.report.size)
            code = EXIT_DAMAGED if report.report.problems else code
        done.append(entry)
    told = ", ".join(f"{each['key']} {each['outcome']}" for each in done)
    return Outcome(
        document={"filled": done, "exit_code": code},
        summary=f"{destination.url}: {told or 'nothing to fill'}",
        exit_code=code,
    )


def _outcome(report: CopyReport, ends: tuple[str, str], seconds: float) -> Outcome:
    document = _document(report.snapshots, report.problems, ends, seconds)
    document.update(
        packs=report.packs,
        size=report.size,
        there=report.there,
        phases={name: round(value, 3) for name, value in report.phases.items()},
    )
    return Outcome(
        document=document,
        text="\n".join(_lines(report.snapshots, "copied")),
        error=document.get("error", ""),
        summary=_summary(report, ends, seconds),
        exit_code=document["exit_code"],
    )


def _summary(report: CopyReport, ends: tuple[str, str], seconds: float) -> str:
    source, destination = ends
    if not report.snapshots:
        return f"nothing to copy: {source} holds no snapshot"
    from cachepod.snapshot.copy import BROUGHT

    brought = sum(each.outcome in BROUGHT for each in report.snapshots)
    if all(each.outcome == "present" for each in report.snapshots):
        return (
            f"nothing was missing in {destination}: {count(len(report.snapshots), 'snapshot')}, "
            f"{human_bytes(report.there)} ({duration(seconds)})"
        )
    return (
        f"copied {brought:,} of {count(len(report.snapshots), 'snapshot')} to {destination}: "
        f"{count(report.packs, 'pack')}, {human_bytes(report.size)} in {duration(seconds)} "
        f"({rate(report.size, seconds)}), {human_bytes(report.there)} were there"
        f"{phases(report.phases)}"
    )


def _planned(plan: CopyPlan, ends: tuple[str, str], seconds: float) -> Outcome:
    from cachepod.snapshot.copy import CopiedSnapshot

    snapshots = [CopiedSnapshot(each.key, each.outcome, each.why) for each in plan.snapshots]
    document = _document(snapshots, plan.problems, ends, seconds)
    document.update(packs=len(plan.moved), size=plan.size, there=plan.there, dry_run=True)
    return Outcome(
        document=document,
        text="\n".join(_lines(snapshots, "would be copied")),
        error=document.get("error", ""),
        summary=(
            f"would move {count(len(plan.moved), 'pack')}, {human_bytes(plan.size)} to {ends[1]}, "
            f"where {human_bytes(plan.there)} are already; nothing was moved ({duration(seconds)})"
        ),
        exit_code=document["exit_code"],
    )


def _document(
    snapshots: Sequence[CopiedSnapshot],
    problems: Sequence[Problem],
    ends: tuple[str, str],
    seconds: float,
) -> Document:
    document: Document = {
        "source": ends[0],
        "destination": ends[1],
        "snapshots": [
            {"key": each.key, "outcome": each.outcome, **({"why": each.why} if each.why else {})}
            for each in snapshots
        ],
        "problems": [
            {"object": each.name, "why": each.why, "keys": list(each.keys)} for each in problems
        ],
        "seconds": round(seconds, 3),
        "exit_code": EXIT_DONE,
    }
    if any(each.outcome == "busy" for each in snapshots):
        document["exit_code"] = EXIT_FAILURE
        document["error"] = f"a prune is at work in {ends[1]}: copy again when it is done"
    if problems:
        document["exit_code"] = EXIT_DAMAGED
        document["error"] = (
            f"{count(len(problems), 'object')} of {ends[0]} damaged or missing; "
            "the snapshots that need them are not copied"
        )
    return document


def _lines(snapshots: Sequence[CopiedSnapshot], copied: str) -> list[str]:
    lines = []
    for each in snapshots:
        if each.outcome == "present":
            continue
        line = f"{each.key}: {_WORDS.get(each.outcome, copied)}"
        lines.append(printable(f"{line}: {each.why}" if each.why else line))
    return lines
