"""
Which files go into one chunk: those of one distribution, so that the same wheel gives the same
chunks in every environment.

The distribution is read from ``*.dist-info/RECORD``
(https://packaging.python.org/en/latest/specifications/recording-installed-packages/); compiled
bytecode belongs to its source's. The few files that differ between two installs of one wheel go
together in a group of their own. Of a Debian package the same is read from dpkg's database.
"""

from __future__ import annotations

import csv
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from cachepod.model.layout import CHUNK_SIZE, RUN_BOUNDARY, RUN_MINIMUM, SMALL_FILE
from cachepod.model.summary import Distribution
from cachepod.model.tables import Entries, Kind
from cachepod.snapshot.debs import debs
from cachepod.snapshot.matching import first_children
from cachepod.snapshot.scan import Scan

#: Written by the installer, not by the wheel's maker.
_VOLATILE = frozenset(
    (b"RECORD", b"INSTALLER", b"REQUESTED", b"direct_url.json", b"uv_cache.json", b"uv_build.json")
)
_DIST_INFO = re.compile(rb"(?P<name>.+?)-(?P<version>[^-]+)\.dist-info")
_RECORD_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Grouping:
    """
    Args:
        distributions: What was found, by name.

        owner: ``I``, one row an entry: place in *distributions* plus one, zero for none.

        volatile: Rows that differ between two installs of one wheel.
    """

    distributions: tuple[Distribution, ...]
    owner: array[int]
    volatile: frozenset[int]


def group(scan: Scan) -> Grouping:
    """Find the distributions of every tree and what belongs to each."""
    entries = scan.entries
    found: list[tuple[Distribution, int]] = []
    for row in scan.directories:
        match = _DIST_INFO.fullmatch(entries.names[row])
        if match:
            name = re.sub(r"[-_.]+", "-", match["name"].decode("utf-8", "replace")).lower()
            found.append((Distribution(name, match["version"].decode("utf-8", "replace")), row))
    rows = _Lookup(scan)
    packages = {deb.row: deb for deb in debs(scan, rows.child)}
    found += ((deb.distribution, deb.row) for deb in packages.values())
    found.sort(key=lambda item: (item[0].name, item[0].version, item[1]))
    owner = array("I", bytes(4 * len(entries)))
    volatile: set[int] = set()
    for place, (_, row) in enumerate(found, 1):
        if row in packages:
            _claim_files(entries, rows, packages[row].files, place, owner)
        else:
            _claim(scan, rows, row, place, owner, volatile)
    if found:
        _claim_bytecode(entries, rows, owner)
    return Grouping(tuple(dist for dist, _ in found), owner, frozenset(volatile))


class _Lookup:
    """Rows by directory and name, without building a million paths."""

    def __init__(self, scan: Scan) -> None:
        self._entries = scan.entries
        self._directories = {path: row for row, path in scan.directories.items()}
        self._first = first_children(scan.entries)
        self._children: dict[int, dict[bytes, int]] = {}

    def path(self, path: bytes) -> int | None:
        directory, _, name = path.rpartition(b"/")
        above = self._directories.get(directory)
        return None if above is None else self.child(above, name)

    def child(self, above: int, name: bytes) -> int | None:
        children = self._children.get(above)
        if children is None:
            names, first = self._entries.names, self._first
            children = {names[row]: row for row in range(*first.get(above, (0, 0)))}
            self._children[above] = children
        return children.get(name)


def _claim(
    scan: Scan,
    rows: _Lookup,
    info_row: int,
    place: int,
    owner: array[int],
    volatile: set[int],
) -> None:
    info = scan.directories[info_row]
    site = os.path.dirname(info)
    record = rows.child(info_row, b"RECORD")
    if record is None or scan.entries.kind[record] not in (Kind.FILE, Kind.HARDLINK):
        return  # nor is a FIFO waited for
    try:
        with open(info + b"/RECORD", "rb") as file:
            text = file.read(_RECORD_LIMIT).decode("utf-8", "surrogateescape")
    except OSError:
        return
    try:
        recorded = [line[0] for line in csv.reader(text.splitlines()) if line]
    except csv.Error:
        return
    for name in recorded:
        path = site + b"/" + os.fsencode(name)
        if b".." in path or b"//" in path:
            path = os.path.normpath(path)
        row = rows.path(path)
        if row is None or owner[row] or scan.entries.kind[row] == Kind.DIRECTORY:
            continue
        owner[row] = place
        inside = path.startswith(site + b"/")
        if not inside or (path.startswith(info + b"/") and os.path.basename(path) in _VOLATILE):
            volatile.add(row)


def _claim_files(
    entries: Entries, rows: _Lookup, files: Iterable[bytes], place: int, owner: array[int]
) -> None:
    for path in files:
        row = rows.path(path)
        if row is not None and not owner[row] and entries.kind[row] != Kind.DIRECTORY:
            owner[row] = place


def _claim_bytecode(entries: Entries, rows: _Lookup, owner: array[int]) -> None:
    for row, (kind, parent, name) in enumerate(
        zip(entries.kind, entries.parent, entries.names, strict=True)
    ):
        if kind != Kind.FILE or owner[row] or not name.endswith(b".pyc"):
            continue
        if entries.names[parent] != b"__pycache__":
            continue
        source = rows.child(entries.parent[parent], name.split(b".", 1)[0] + b".py")
        if source is not None:
            owner[row] = owner[source]


def small_runs(scan: Scan, grouping: Grouping) -> Iterator[list[int]]:
    """
    Rows of the small files, cut into runs of at most one chunk each, in the order to store them.

    A run never crosses from one distribution to another. It ends where the next file would not
    fit, or where, being long enough, the hash of its last file's path says so.
    """
    entries, owner, volatile = scan.entries, grouping.owner, grouping.volatile
    groups: dict[int, array[int]] = {}
    for row, (kind, size) in enumerate(zip(entries.kind, entries.size, strict=True)):
        if kind == Kind.FILE and 0 < size <= SMALL_FILE and row not in scan.sparse:
            place = -1 if row in volatile else owner[row]
            groups.setdefault(place, array("I")).append(row)
    relative = _RelativeDirectories(scan)
    for place in sorted(groups):
        yield from _cut(groups.pop(place), entries, relative)


def _cut(
    rows: Iterable[int], entries: Entries, relative: _RelativeDirectories
) -> Iterator[list[int]]:
    run: list[int] = []
    length = 0
    for row in rows:
        size = entries.size[row]
        if run and length + size > CHUNK_SIZE:
            yield run
            run, length = [], 0
        run.append(row)
        length += size
        if length >= RUN_MINIMUM:
            path = relative.of(entries.parent[row]) + b"/" + entries.names[row]
            if xxh3_64_intdigest(path) % RUN_BOUNDARY == 0:
                yield run
                run, length = [], 0
    if run:
        yield run


class _RelativeDirectories:
    """Paths of directories below their tree's root: where a tree lies must not move boundaries."""

    def __init__(self, scan: Scan) -> None:
        self._paths = scan.directories
        self._roots = [
            path for row, path in scan.directories.items() if scan.entries.parent[row] == row
        ]

    def of(self, row: int) -> bytes:
        path = self._paths[row]
        for root in self._roots:
            if path == root or path.startswith(root + b"/"):
                return path[len(root) :]
        return path
