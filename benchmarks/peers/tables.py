"""Tables and the picture of what was found, out of the samples of a result alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import measure, pictures
from benchmarks.peers.rows import OURS, Found, Row, ranked, reference
from benchmarks.pictures import Bar
from benchmarks.results import Results, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {
    "local": "a local directory",
    "moosefs": "MooseFS",
    "moosefs-far": "MooseFS behind a network (a model)",
    "s3": "S3",
    "volume": "the volume",
}
_PUBLISHED = ("publish s", "range", "ratio", "CPU s", "resident MB")


def tables(samples: Mapping[str, Any]) -> list[Table]:
    """Every table that *samples* have something for."""
    made = []
    for source, document in samples["sources"].items():
        found = Found.read(document)
        if found.missing:
            title = f"restore from {_TITLES[source]}"
            made.append(Table(f"restore-{source}", [title, ""], [["all of them", found.missing]]))
        if found.restore:
            made.append(_restores(source, found, samples))
        if found.publish:
            made.append(_publishes(source, found, samples))
        if found.again:
            made.append(_again(source, found, samples))
    rows = [[name, facts["versions"]] for name, facts in samples["peers"].items()]
    notes = [f"{name}: {facts['set_up']}" for name, facts in samples["peers"].items()]
    made.append(Table("peers", ["peer", "versions"], rows, notes))
    return made


def _restores(source: str, found: Found, samples: Mapping[str, Any]) -> Table:
    module = samples["module"]
    headings = [f"restore from {_TITLES[source]}", "restore s", "range", "ratio", "CPU s"]
    headings += ["resident MB"]
    headings += [f"import {module} s", "both s", "range", "ratio"] if module else []
    first = reference(found.restore)
    lines, notes = [], []
    for row in ranked(found.restore):
        if not row.ran:
            lines.append([row.name, row.blank, *[""] * (len(headings) - 2)])
            continue
        line = [_marked(row, first), *_costs(row, first)]
        if module:
            line.append(f"{measure.median(row.imports):.2f}")
            line += [f"{row.total:.2f}", measure.spread(row.totals), _ratio(row, first)]
        lines.append(line)
    notes.append(f"{_sentence(found.kind)}; page cache {found.cache} before each run.")
    notes += _ahead(found.restore, first, samples) + _said(found.restore)
    return Table(f"restore-{source}", headings, lines, notes)


def _publishes(source: str, found: Found, samples: Mapping[str, Any]) -> Table:
    headings = [f"publish to {_TITLES[source]}", *_PUBLISHED, "stored MB"]
    notes = [f"{_sentence(found.kind)}; page cache {found.cache} before each run."]
    if found.synced:
        notes.append(
            "The time of every peer includes a sync of the file system that it stored to: only "
            "cachepod waits by itself until what it stored is durable."
        )
    notes += _ahead(found.publish, reference(found.publish), samples) + _said(found.publish)
    return Table(f"publish-{source}", headings, _stored(headings, found.publish), notes)


def _again(source: str, found: Found, samples: Mapping[str, Any]) -> Table:
    headings = [f"publish again to {_TITLES[source]}", *_PUBLISHED, "added MB"]
    notes = []
    if found.changed:
        notes.append(
            f"{_sentence(found.kind)}. Every file of {found.changed} was written anew since the "
            "publish before, in a tree that each peer knew by its path. Peers without a row store "
            "all of it again."
        )
    notes += _ahead(found.again, reference(found.again), samples) + _said(found.again)
    return Table(f"again-{source}", headings, _stored(headings, found.again), notes)


def _stored(headings: Sequence[str], rows: Sequence[Row]) -> list[list[str]]:
    first = reference(rows)
    lines = []
    for row in ranked(rows):
        if not row.ran:
            lines.append([row.name, row.blank, *[""] * (len(headings) - 2)])
            continue
        stored = max(measure.median(row.stored), 0) / 1e6  # who overwrites may store less
        lines.append([_marked(row, first), *_costs(row, first), f"{stored:,.1f}"])
    return lines


def _costs(row: Row, first: Row | None) -> list[str]:
    if not any(row.seconds):  # nothing had to be run
        return ["-", "", "", "-", "-"]
    seconds = measure.median(row.seconds)
    return [
        f"{seconds:.2f}",
        measure.spread(row.seconds),
        f"{seconds / measure.median(first.seconds):.2f}" if first else "",
        f"{measure.median(row.cpu):.2f}",
        f"{max(row.resident) / 1e6:.0f}",
    ]


def _ratio(row: Row, first: Row | None) -> str:
    return f"{row.total / first.total:.2f}" if first else ""


def _is_ahead(row: Row, first: Row | None) -> bool:
    return first is not None and row is not first and row.ran and row.total < first.total


def _marked(row: Row, first: Row | None) -> str:
    return f"{row.name} (ahead)" if _is_ahead(row, first) else row.name


def _ahead(rows: Sequence[Row], first: Row | None, samples: Mapping[str, Any]) -> list[str]:
    ahead = [row for row in ranked(rows) if _is_ahead(row, first)]
    if first is None or not ahead:
        return []
    names = [
        f"{row.name} (within the range of cachepod's)"
        if max(row.totals) >= min(first.totals)
        else row.name
        for row in ahead
    ]
    reasons = (samples["peers"].get(row.name, {}).get("why_ahead", "") for row in ahead)
    return [f"Ahead of cachepod here: {'; '.join(names)}.", *dict.fromkeys(filter(None, reasons))]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _said(rows: Sequence[Row]) -> list[str]:
    broken = [f"{row.name}: {row.blank}, after that." for row in rows if row.ran and row.blank]
    notes = [row.note for row in rows if row.ran and row.note]
    notes += [
        f"{row.name}: the same import once more, on a machine that has just done it, takes "
        f"{measure.median(row.warm):.2f} s."
        for row in rows
        if row.warm
    ]
    return list(dict.fromkeys(notes + broken))


def draw(results: Results) -> Figure:
    """Restore and import from each source, as bars."""
    samples = results.samples
    module = samples["module"]
    groups = {}
    for source, document in samples["sources"].items():
        rows = ranked(Found.read(document).restore)
        if rows:
            groups[f"from {_TITLES[source]}"] = [_bar(row, module) for row in rows]
    if not groups:
        raise SystemExit("no restores were measured, so there is nothing to draw")
    size, files = results.subject.get("size", ""), results.subject.get("files", "")
    title = f"An environment of {size} in {files} files" if size else "Restores"
    return pictures.draw_bars(
        f"{title}: restore{f' and import {module}' if module else ''}", groups
    )


def _bar(row: Row, module: str) -> Bar:
    if not row.ran:
        return Bar(row.name, {}, note=row.blank)
    parts = {"restore": measure.median(row.seconds)}
    if module:
        parts[f"import {module}"] = measure.median(row.imports)
    spread = (min(row.totals), max(row.totals))
    return Bar(row.name, parts, spread, ours=row.name == OURS)
