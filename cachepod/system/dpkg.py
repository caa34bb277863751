"""
dpkg's own database: which files are whose.

::

    /var/lib/dpkg/
      status                     what is installed; configuration files and their MD5
      info/NAME.list             the files of a package; NAME:ARCHITECTURE.list for Multi-Arch: same
      info/NAME.md5sums          MD5 of each, "digest  path"; configuration files are not among them
      diversions                 three lines each: from, to, package
      statoverride               a line each: user group mode path
      alternatives/, triggers/   what is written by update-alternatives and for triggers
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cachepod.system.base import DPKG, STATUS

INFO = f"{DPKG}/info"
#: Records of several packages in one file, and how many lines a record has.
SHARED = {f"{DPKG}/diversions": 3, f"{DPKG}/statoverride": 1}

_CONFFILE = re.compile(rb"^ (/.+) ([0-9a-f]{32})(?: (?:obsolete|remove-on-upgrade))*$", re.M)
_MD5 = re.compile(rb"^([0-9a-f]{32})  (.+)$", re.M)


def info_files(root: Path, packages: Iterable[str], kind: str) -> Iterator[tuple[str, bytes]]:
    """Each of *packages* (``NAME:ARCHITECTURE``) and its file of *kind*, where there is one."""
    for package in packages:
        for name in (package, package.partition(":")[0]):
            try:
                yield package, (root / INFO / f"{name}.{kind}").read_bytes()
                break
            except OSError:
                continue


class Canonical:
    """
    From paths as packages have them to where they lie: ``lib/x`` is ``usr/lib/x`` on most systems.

    Only directories are followed, and only within the root.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._known: dict[str, str] = {"": ""}

    def path(self, path: str) -> str:
        """*path*, relative to the root, with no link among its directories."""
        folder, _, name = path.strip("/").rpartition("/")
        above = self._folder(folder)
        return f"{above}/{name}" if above else name

    def _folder(self, path: str, depth: int = 0) -> str:
        known = self._known.get(path)
        if known is not None:
            return known
        above, _, name = path.rpartition("/")
        here = self._folder(above, depth)
        here = f"{here}/{name}" if here else name
        try:
            target = os.readlink(os.path.join(self._root, here))
        except OSError:
            pass  # a directory, or nothing
        else:
            if depth < 20:
                folder = "" if target.startswith("/") else os.path.dirname(here)
                # normpath never climbs above its leading slash
                inside = os.path.normpath(f"/{folder}/{target}").strip("/")
                here = self._folder(inside, depth + 1)
        self._known[path] = here
        return here


def owned_paths(root: Path, packages: Iterable[str], canonical: Canonical) -> dict[str, str]:
    """Every path of *packages*, where it lies, and whose it is."""
    owned: dict[str, str] = {}
    for package, text in info_files(root, packages, "list"):
        for line in text.splitlines():
            path = os.fsdecode(line)
            if path.startswith("/") and path not in ("/", "/."):
                owned[canonical.path(path)] = package
    return owned


def conffiles(root: Path, canonical: Canonical) -> dict[str, str]:
    """Every configuration file that dpkg knows, and the MD5 of it as it came."""
    text = (root / STATUS).read_bytes()
    return {
        canonical.path(os.fsdecode(path)): digest.decode()
        for path, digest in _CONFFILE.findall(text)
    }


def md5sums(root: Path, packages: Iterable[str], canonical: Canonical) -> dict[str, str]:
    """Every file of *packages* whose MD5 is known, and that."""
    return {
        canonical.path(os.fsdecode(path)): digest.decode()
        for _, text in info_files(root, packages, "md5sums")
        for digest, path in _MD5.findall(text)
    }


def united(ours: str, theirs: str, lines: int) -> str:
    """*ours* and those records of *theirs* (*lines* each) that it lacks."""
    have = set(_records(ours, lines))
    more = [record for record in _records(theirs, lines) if record not in have]
    return "\n".join([*_records(ours, lines), *more]) + "\n" if have or more else ""


def _records(text: str, lines: int) -> list[str]:
    rows = text.splitlines()
    whole = len(rows) // lines * lines
    return ["\n".join(rows[at : at + lines]) for at in range(0, whole, lines)]
