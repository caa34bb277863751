"""
Which files of a tree belong to which Debian package, by dpkg's own database in the tree.

::

    var/lib/dpkg/info/NAME.list               paths, one a line, each from a slash
    var/lib/dpkg/info/NAME:ARCHITECTURE.list  likewise, for packages of several architectures
    var/lib/dpkg/status                       stanzas, apart by an empty line: Package, Version
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cachepod.model.summary import Distribution
from cachepod.model.tables import Kind
from cachepod.snapshot.scan import Scan

#: Before the name of a package, where Python's distributions have a name alone.
PREFIX = "deb:"

_INFO = b"/var/lib/dpkg/info"
_LIMIT = 64 * 1024 * 1024
_FIELD = re.compile(rb"^(Package|Architecture|Version):[ \t]*(\S+)", re.M)


@dataclass(frozen=True)
class Deb:
    """
    A package whose files are in a tree.

    Args:
        distribution: Its name and version.

        row: Of its list.

        files: Absolute paths where the tree has what the list names.
    """

    distribution: Distribution
    row: int
    files: tuple[bytes, ...]


def debs(scan: Scan, child: Callable[[int, bytes], int | None]) -> Iterator[Deb]:
    """
    The packages of every database that lies in one of the trees.

    Args:
        child: Row of what has a name in the directory with a row; None if there is nothing.
    """
    for row, info in scan.directories.items():
        if not info.endswith(_INFO):
            continue
        versions = _versions(os.path.dirname(info) + b"/status")
        names = sorted(os.listdir(info))
        beside: dict[bytes, list[bytes]] = {}
        for name in names:
            beside.setdefault(os.path.splitext(name)[0], []).append(info + b"/" + name)
        for name in names:
            package, ending = os.path.splitext(name)
            place = child(row, name)
            if ending != b".list" or place is None or scan.entries.kind[place] != Kind.FILE:
                continue
            listed = [_below(info, line) for line in _read(info + b"/" + name).splitlines()]
            shown = package.partition(b":")[0].decode("utf-8", "replace")
            version = versions.get(package) or versions.get(package.partition(b":")[0], "")
            yield Deb(
                Distribution(PREFIX + shown, version),
                place,
                tuple(filter(None, listed + beside[package])),
            )


def _below(info: bytes, line: bytes) -> bytes:
    """Where the tree has the path *line*, which may be one that /usr was merged over."""
    top = info[: -len(_INFO)]
    if not line.startswith(b"/") or b"/../" in line:
        return b""
    if os.path.lexists(top + line):
        return top + line
    return top + b"/usr" + line


def _versions(status: bytes) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for stanza in _read(status).split(b"\n\n"):
        said = dict(_FIELD.findall(stanza))
        name, version = said.get(b"Package"), said.get(b"Version", b"").decode("utf-8", "replace")
        if name:
            found[name] = version
            found[name + b":" + said.get(b"Architecture", b"")] = version
    return found


def _read(path: bytes) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""  # the publish says so where it matters: it reads every file
