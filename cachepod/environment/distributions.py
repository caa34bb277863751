"""What is installed: the distributions of a site-packages directory and the files of each."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SEPARATORS = re.compile(r"[-_.]+")


@dataclass(frozen=True)
class Distribution:
    """
    One installed distribution.

    Args:
        name: Normalised as PEP 503 has it.

        version: As its directory spells it.

        info: Its ``.dist-info`` directory.

        files: Absolute paths of its files as its RECORD lists them; None if it has no RECORD
            that can be read.
    """

    name: str
    version: str
    info: Path
    files: tuple[str, ...] | None


def normal_name(name: str) -> str:
    """*name* as PEP 503 compares it."""
    return _SEPARATORS.sub("-", name).lower()


def distributions(site: Path) -> Iterator[Distribution]:
    """The distributions in *site*, in the order of their directories' names."""
    try:
        infos = sorted(name for name in os.listdir(site) if name.endswith(".dist-info"))
    except FileNotFoundError:
        return
    for directory in infos:
        name, _, version = directory.removesuffix(".dist-info").partition("-")
        info = site / directory
        yield Distribution(normal_name(name), version, info, _recorded(site, info))


def installed_versions(site: Path) -> dict[str, str]:
    """Normalised name to version, without reading any RECORD."""
    found = {}
    try:
        names = os.listdir(site)
    except FileNotFoundError:
        return {}
    for directory in names:
        if directory.endswith(".dist-info"):
            name, _, version = directory.removesuffix(".dist-info").partition("-")
            found[normal_name(name)] = version
    return found


def _recorded(site: Path, info: Path) -> tuple[str, ...] | None:
    """The files that the RECORD in *info* lists, normalised but with no link followed."""
    try:
        with open(info / "RECORD", encoding="utf-8", newline="") as file:
            rows = [row[0] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    root = str(site)
    return tuple(os.path.normpath(os.path.join(root, row)) for row in rows)
