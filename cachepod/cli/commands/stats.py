"""``cachepod stats``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cachepod.cli.options import STORE, Invocation, subcommand
from cachepod.cli.render import Document, Outcome, age, count, duration, table
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_DONE, EXIT_UNREACHABLE, CachepodError, human_bytes

if TYPE_CHECKING:
    from cachepod.snapshot.stats import StoreStats
    from cachepod.snapshot.uses import Tally

_MOST_USED = 20


@subcommand(
    "stats",
    *STORE,
    "timeout",
    expired=lambda seconds: timed_out("stats", seconds, EXIT_UNREACHABLE),
)
@click.option(
    "--prometheus",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also write the figures for the textfile collector of Prometheus.",
)
def command(call: Invocation, prometheus: Path | None) -> Outcome:
    """
    Show what the stores hold and what they have been good for.

    Hits, misses and the rest are those of the last 90 days; on stores across a network few of many
    hits are recorded and count for all of them. With -v also the keys that were asked for last.
    """
    from cachepod.cli.metrics import check_place, exposition, write_atomically
    from cachepod.snapshot.stats import stats

    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout, stall=True)
    if prometheus is not None:
        check_place(prometheus)
    found: list[StoreStats] = []
    down: list[tuple[str, CachepodError]] = []
    for store in call.stores(settings):
        call.moved()
        try:
            found.append(stats(store))
        except CachepodError as error:
            down.append((store.url, error))
    if prometheus is not None:
        write_atomically(prometheus, exposition(found, [url for url, _ in down]))
    for each in found:
        for key, why in each.unreadable.items():
            call.note(f"{key} in {each.store} cannot be read: {why}")
    text = _table(found)
    if call.console.verbose and found:
        text += "\n\n" + _keys(found)
    document: Document = {
        "stores": [_document(each) for each in found],
        "seconds": round(time.monotonic() - started, 3),
        "exit_code": EXIT_DONE,
    }
    outcome = Outcome(
        document=document,
        text=text,
        summary=(
            f"{count(sum(len(each.snapshots) for each in found), 'snapshot')} "
            f"in {duration(time.monotonic() - started)}"
        ),
    )
    if not down:
        return outcome
    first = down[0][1]
    document.update(
        unreachable=[{"store": url, "error": each.message} for url, each in down],
        error=first.message,
        exit_code=first.exit_code,
    )
    return Outcome(
        document=document,
        text=text,
        error=first.message + (f"; {first.hint}" if first.hint else ""),
        details=tuple(each.message for _, each in down[1:]),
        exit_code=first.exit_code,
    )


def _table(found: list[StoreStats]) -> str:
    """One column a store."""
    if not found:
        return ""
    columns = [_column(each) for each in found]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return table(("", *(each.store for each in found)), rows)


def _column(each: StoreStats) -> dict[str, str]:
    use = each.use
    rate = each.hit_rate
    return {
        "snapshots": f"{len(each.snapshots):,}"
        + (f" and {len(each.unreadable):,} unreadable" if each.unreadable else ""),
        "plain size": human_bytes(each.size),
        "compressed": human_bytes(each.needed)
        + (f" ({each.compression:.1f} times smaller)" if each.needed else ""),
        "stored": human_bytes(each.stored)
        + (f" (a byte serves {each.sharing:.1f} snapshots)" if each.stored else ""),
        "packs": f"{each.packs:,}",
        "manifests": human_bytes(each.described),
        "hits": f"{use.hits:,}" + ("" if rate is None else f" ({rate:.0%} of those who asked)"),
        "partials": f"{use.partials:,}",
        "misses": f"{use.misses:,}",
        "waits": f"{use.waits:,}" + (f", {duration(use.waited)} in all" if use.waits else ""),
        "publishes": f"{use.publishes:,}",
        "bytes restored": human_bytes(use.restored),
        "bytes published": human_bytes(use.published),
        "time saved": f"{'-' if use.saved < 0 else ''}{duration(abs(use.saved))}",
        "last asked": age(use.last) if use.last else "-",
    }


def _keys(found: list[StoreStats]) -> str:
    """The keys that were asked for last, and whether there is a snapshot of each."""
    rows = []
    for each in found:
        held = {summary.key for summary in each.snapshots}
        for key, tally in each.keys.items():
            rows.append((tally.last, key, "yes" if key in held else "no", tally, each.store))
    rows.sort(key=lambda row: row[0], reverse=True)
    header = ("KEY", "STORED", "LAST ASKED", "HITS", "PARTIALS", "MISSES", "SAVED", "STORE")
    cells = [
        (
            key,
            stored,
            age(last),
            f"{tally.hits:,}",
            f"{tally.partials:,}",
            f"{tally.misses:,}",
            duration(max(tally.saved, 0.0)),
            store,
        )
        for last, key, stored, tally, store in rows[:_MOST_USED]
    ]
    return table(header, cells, right="HITS PARTIALS MISSES") if cells else "nothing is recorded"


def _document(each: StoreStats) -> Document:
    return {
        "store": each.store,
        "snapshots": len(each.snapshots),
        "unreadable": each.unreadable,
        "size": each.size,
        "needed": each.needed,
        "packs": each.packs,
        "stored": each.stored,
        "manifests": each.described,
        "compression": round(each.compression, 3),
        "dedup": round(each.sharing, 3),
        "hit_rate": None if each.hit_rate is None else round(each.hit_rate, 4),
        **_tally(each.use),
        "keys": {key: _tally(tally) for key, tally in each.keys.items()},
    }


def _tally(use: Tally) -> Document:
    return {
        "hits": use.hits,
        "partials": use.partials,
        "misses": use.misses,
        "waits": use.waits,
        "publishes": use.publishes,
        "waited_seconds": round(use.waited, 3),
        "restored_bytes": use.restored,
        "published_bytes": use.published,
        "restore_seconds": round(use.restoring, 3),
        "publish_seconds": round(use.publishing, 3),
        "saved_seconds": round(use.saved, 3),
        "last": use.last or None,
    }
