"""``cachepod verify``."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
    UsageProblem,
    human_bytes,
)

if TYPE_CHECKING:
    from cachepod.snapshot.repair import MendReport


@dataclass(frozen=True)
class _Result:
    """
    What was found and done in one store.

    Args:
        set_aside: Keys of snapshots.

        untrusted: Keys of those that a restore refuses, and why.
    """

    store: str
    report: MendReport
    set_aside: tuple[str, ...]
    untrusted: tuple[tuple[str, str], ...] = ()


@subcommand(
    "verify",
    *STORE,
    "threads",
    "timeout",
    expired=lambda seconds: timed_out("verify", seconds, EXIT_UNREACHABLE),
)
@click.argument("keys", nargs=-1, metavar="[KEY]...", shell_complete=complete_key)
@click.option("--quick", is_flag=True, help="Look only whether packs are there, and their sizes.")
@click.option(
    "--repair-from",
    "sources",
    multiple=True,
    metavar="STORE",
    help="Bring good copies of what is damaged from another store. Repeatable.",
)
@click.option(
    "--set-aside/--no-set-aside",
    default=True,
    help="Whether snapshots that stay damaged make room for good ones.  [default: set-aside]",
)
def command(
    call: Invocation, keys: tuple[str, ...], quick: bool, sources: tuple[str, ...], set_aside: bool
) -> Outcome:
    """
    Read snapshots back, all of them or those named, and compare every digest.

    Exit code 6 means that there is damage which was not repaired. Snapshots that it hurts are set
    aside, and the next publish stores them anew. --timeout counts from the last moment at which
    something moved. Where a key is configured, snapshots that it does not vouch for are named.
    """
    from cachepod.environment.trust import believed, keyring_of
    from cachepod.stores.places import apart_from, check_apart
    from cachepod.stores.url import open_store

    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout, stall=True)
    stores = call.stores(settings)
    check_apart(sources)
    if sources:  # what repairs is not what is repaired, if both are configured
        stores = [stores[place] for place in apart_from(settings.store, sources)]
        if not stores:
            raise UsageProblem(
                "a store cannot be repaired from itself", hint="name the damaged one with --store"
            )
    chosen: list[list[str] | None] = [[key] for key in keys] or [None]
    results: list[_Result] = []
    found: set[str] = set()
    missing: Miss | None = None
    unreachable: StoreUnreachable | None = None
    with call.display() as progress:
        from cachepod.snapshot.repair import mend, set_aside_damaged
        from cachepod.snapshot.signing import untrusted

        keyring = keyring_of(settings, progress) if settings.signed else None

        # What is brought must be signed, where a key is configured.
        others = believed(
            [open_store(url, direct=settings.direct) for url in sources], settings, progress
        )

        for store in stores:
            for some in chosen:
                try:
                    report = mend(
                        store,
                        others,
                        some,
                        quick=quick,
                        threads=settings.threads,
                        progress=progress,
                    )
                except Miss as miss:
                    missing = miss
                    continue
                except StoreUnreachable as error:
                    if len(stores) > 1:
                        progress.note(error.message)
                    unreachable = unreachable or error
                    continue
                aside: tuple[str, ...] = ()
                if report.problems and report.silent:
                    progress.note("nothing is set aside, for a repair may succeed another time")
                elif set_aside:
                    aside = set_aside_damaged(store, report.problems, progress)
                refused = untrusted(store, keyring, some) if keyring is not None else ()
                results.append(_Result(store.url, report, aside, tuple(refused)))
                found.update(some or ())
    if missing is not None and (set(keys) - found or not results):
        raise missing
    if unreachable is not None and not any(result.report.problems for result in results):
        raise unreachable
    return _outcome(results, time.monotonic() - started)


def _outcome(results: list[_Result], seconds: float) -> Outcome:
    problems: list[Document] = []
    repaired: list[Document] = []
    skipped: list[str] = []
    aside: dict[str, None] = {}
    refused: list[Document] = []
    code = EXIT_DONE
    for result in results:
        report = result.report
        for problem in report.problems:
            problems.append(
                {
                    "store": result.store,
                    "object": problem.name,
                    "why": problem.why,
                    "keys": list(problem.keys),
                }
            )
            if code != EXIT_DAMAGED:
                code = EXIT_UNREACHABLE if problem.unreachable else EXIT_DAMAGED
        repaired += [
            {"store": result.store, "object": each.name, "from": each.source}
            for each in report.repaired
        ]
        skipped += report.found.skipped
        aside.update(dict.fromkeys(result.set_aside))
        refused += [
            {"store": result.store, "key": key, "why": why} for key, why in result.untrusted
        ]
    snapshots = sum(result.report.found.snapshots for result in results)
    objects = sum(result.report.found.objects for result in results)
    size = sum(result.report.found.size for result in results)
    document: Document = {
        "snapshots": snapshots,
        "objects": objects,
        "chunks": sum(result.report.found.chunks for result in results),
        "size": size,
        "problems": problems,
        "repaired": repaired,
        "set_aside": list(aside),
        "skipped": skipped,
        "untrusted": refused,
        "seconds": round(seconds, 3),
        "exit_code": code,
    }
    lines = [printable(f"{each['object']}: repaired from {each['from']}") for each in repaired]
    for each in problems:
        lines.append(printable(f"{each['object']}: {each['why']}"))
        lines += [f"  needed by {key}" for key in each["keys"]]
        if not each["keys"]:
            lines.append("  no snapshot needs what is damaged")
    lines += [f"{key}: set aside, the next publish stores it anew" for key in aside]
    lines += [f"{key}: of a later format, not looked at" for key in skipped]
    lines += [printable(f"{each['key']}: {each['why']}; a restore refuses it") for each in refused]
    error = ""
    if problems:
        what = "damaged or missing" if code == EXIT_DAMAGED else "not to be read"
        error = document["error"] = f"{count(len(problems), 'object')} {what}"
    told = f", {count(len(repaired), 'object')} repaired" if repaired else ""
    return Outcome(
        document=document,
        text="\n".join(lines),
        error=error,
        summary=(
            f"verified {count(snapshots, 'snapshot')}: {count(objects, 'object')}{told}, "
            f"{human_bytes(size)} in {duration(seconds)} ({rate(size, seconds)})"
        ),
        exit_code=code,
    )
