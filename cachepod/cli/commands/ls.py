"""``cachepod ls``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cachepod.cli.options import STORE, Invocation, subcommand
from cachepod.cli.render import Document, Outcome, count, duration, moment, table
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_UNREACHABLE, CachepodError, human_bytes

if TYPE_CHECKING:
    from cachepod.model.summary import Summary

_HEADER = ("KEY", "CREATED", "HOLDS", "FILES", "SIZE", "STORED", "PYTHON", "TORCH")


@subcommand(
    "ls",
    *STORE,
    "timeout",
    expired=lambda seconds: timed_out("ls", seconds, EXIT_UNREACHABLE),
)
def command(call: Invocation) -> Outcome:
    """
    List the snapshots of the stores, newest first.

    STORED counts the compressed bytes that a snapshot needs, those that it shares with others
    included.
    """
    from cachepod.snapshot.catalog import summaries

    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout)
    stores = call.stores(settings)
    unreadable: list[Document] = []

    def skip(key: str, error: CachepodError) -> None:
        unreadable.append({"key": key, "error": error.message})

    found = [
        (store.url, summary) for store in stores for summary in summaries(store, on_error=skip)
    ]
    found.sort(key=lambda pair: pair[1].created, reverse=True)
    several = len(stores) > 1
    header = (*_HEADER, "STORE") if several else _HEADER
    rows = [(*_row(summary), url) if several else _row(summary) for url, summary in found]
    where = ", ".join(store.url for store in stores)
    text = table(header, rows, right="FILES SIZE STORED") if rows else f"no snapshots in {where}"
    for each in unreadable:
        call.console.complain(f"cachepod: {each['key']} cannot be read: {each['error']}")
    return Outcome(
        document={
            "snapshots": [{**entry(summary), "store": url} for url, summary in found],
            "unreadable": unreadable,
        },
        text=text,
        summary=f"{count(len(found), 'snapshot')} in {duration(time.monotonic() - started)}",
    )


def _row(summary: Summary) -> tuple[str, ...]:
    trees = ",".join(tree.name for tree in summary.trees)
    handler = summary.fingerprint.inputs.get("handler")
    return (
        summary.key,
        moment(summary.created),
        f"{trees}/{handler}" if handler else trees,
        f"{summary.files:,}",
        human_bytes(summary.size),
        human_bytes(summary.stored),
        summary.fingerprint.inputs.get("python", "-").removeprefix("cpython "),
        version_of(summary, "torch") or "-",
    )


def version_of(summary: Summary, distribution: str) -> str | None:
    """The version of *distribution* in a snapshot."""
    for each in summary.distributions:
        if each.name == distribution:
            return each.version
    return None


def entry(summary: Summary) -> Document:
    """What JSON says of one snapshot."""
    return {
        "key": summary.key,
        "created": summary.created,
        "creator": dict(summary.creator),
        "family": summary.fingerprint.family,
        "handler": summary.fingerprint.inputs.get("handler"),
        "trees": [{"name": tree.name, "root": tree.root} for tree in summary.trees],
        "files": summary.files,
        "size": summary.size,
        "stored": summary.stored,
        "python": summary.fingerprint.inputs.get("python"),
        "torch": version_of(summary, "torch"),
    }
