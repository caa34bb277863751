"""
The image below every layer, known by what its dpkg database says.

A layer of apt packages fits one base: the same distribution, and the same packages in the same
versions. Where a layer is in place, the base is what was there before it; that is recorded beside
the layer (:mod:`cachepod.system.record`), for the database has changed since.

dpkg's database is text (deb822(5)), a stanza a package, stanzas apart by an empty line::

    Package: libc6
    Status: install ok installed
    Architecture: amd64
    Version: 2.36-9+deb12u9
    Provides: libc6-x
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Where dpkg keeps its database, and in it what is installed.
DPKG = "var/lib/dpkg"
STATUS = f"{DPKG}/status"

_DIGITS = 16
_FIELD = re.compile(rb"^(Package|Status|Architecture|Version|Provides):[ \t]*(.*?)[ \t]*$", re.M)
# Unpacked and configured; the last two only wait for the triggers of others.
_INSTALLED = frozenset((b"installed", b"triggers-awaited", b"triggers-pending"))
_NAMED = 3  # packages that a difference names


@dataclass(frozen=True)
class Base:
    """
    An image before any layer.

    Args:
        distribution: Name and release, ``debian 12``.

        architecture: As dpkg has it, ``amd64``.

        digest: 16 hex digits over the distribution and every installed package, its version and
            its architecture.

        packages: How many are installed.
    """

    distribution: str
    architecture: str
    digest: str
    packages: int


@dataclass(frozen=True)
class Installed:
    """
    What dpkg has installed.

    Args:
        versions: ``NAME:ARCHITECTURE`` to version.

        provided: Names of packages that are none themselves, which others provide.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    provided: frozenset[str] = frozenset()

    def version(self, name: str) -> str | None:
        """That of the package *name* (``NAME`` or ``NAME:ARCHITECTURE``); None if there is none."""
        if ":" in name and not name.endswith(":any"):
            return self.versions.get(name)
        wanted = name.partition(":")[0] + ":"
        for known, version in self.versions.items():
            if known.startswith(wanted):
                return version
        return None


def parse_status(text: bytes) -> Installed:
    """What a dpkg database says; a stanza that makes no sense is passed over."""
    versions: dict[str, str] = {}
    provided: set[str] = set()
    for stanza in text.split(b"\n\n"):
        said = dict(_FIELD.findall(stanza))
        state = said.get(b"Status", b"").rpartition(b" ")[2]
        if state not in _INSTALLED or b"Package" not in said:
            continue
        name = said[b"Package"].decode("utf-8", "replace")
        architecture = said.get(b"Architecture", b"").decode("utf-8", "replace")
        version = said.get(b"Version", b"").decode("utf-8", "replace")
        versions[f"{name}:{architecture}"] = version
        for one in said.get(b"Provides", b"").decode("utf-8", "replace").split(","):
            virtual = one.partition("(")[0].strip()
            if virtual:
                provided.add(virtual)
    return Installed(versions, frozenset(provided))


def installed(root: Path = Path("/")) -> Installed | None:
    """What dpkg has installed in *root*; None where there is no dpkg."""
    try:
        return parse_status((root / STATUS).read_bytes())
    except OSError:
        return None


def distribution(root: Path = Path("/")) -> str:
    """
    The system's name and release from os-release, ``debian 12``; ``unknown`` where there is none.

    Source: os-release(5).
    """
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / name).read_text("utf-8", "replace")
        except OSError:
            continue
        said = {}
        for line in text.splitlines():
            field, _, value = line.partition("=")
            said[field.strip()] = value.strip().strip("\"'")
        return " ".join(filter(None, (said.get("ID", "linux"), said.get("VERSION_ID", ""))))
    return "unknown"


def base_from(name: str, versions: Mapping[str, str]) -> Base:
    """The base that is the distribution *name* with these packages (``NAME:ARCHITECTURE``)."""
    rows = [f"distribution {name}\n"]
    rows += (f"{package} {version}\n" for package, version in sorted(versions.items()))
    digest = hashlib.sha256("".join(rows).encode("utf-8", "surrogateescape")).hexdigest()
    return Base(name, _architecture(versions), digest[:_DIGITS], len(versions))


def _architecture(versions: Mapping[str, str]) -> str:
    """dpkg's own: there is no dpkg without the package, and it is never ``all``."""
    for package in versions:
        name, _, architecture = package.partition(":")
        if name == "dpkg":
            return architecture
    counts: dict[str, int] = {}
    for package in versions:
        architecture = package.partition(":")[2]
        if architecture != "all":
            counts[architecture] = counts.get(architecture, 0) + 1
    return max(sorted(counts), key=counts.__getitem__, default="unknown")


def base_of(root: Path = Path("/"), found: Installed | None = None) -> Base | None:
    """
    The image at *root* before any layer; None where there is no dpkg.

    Where a layer is in place, or one was being put there, that is what was there before it.

    Args:
        found: What is installed there, for those who have read it already.
    """
    from cachepod.system.record import read_record

    record = read_record(root)
    if record is not None and record.base is not None:
        return record.base
    found = installed(root) if found is None else found
    return None if found is None else base_from(distribution(root), found.versions)


def difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """
    How the packages *ours* differ from *theirs*, for a sentence; empty if they do not.

    ``libc6 is 2.36-9+deb12u10 instead of 2.36-9+deb12u9, curl is missing and 3 more``.
    """
    said = []
    for package in sorted(theirs.keys() | ours.keys()):
        name = package.partition(":")[0]
        if package not in ours:
            said.append(f"{name} is missing")
        elif package not in theirs:
            said.append(f"{name} is there as well")
        elif ours[package] != theirs[package]:
            said.append(f"{name} is {ours[package]} instead of {theirs[package]}")
    if len(said) > _NAMED + 1:
        return ", ".join(said[:_NAMED]) + f" and {len(said) - _NAMED} more differences"
    return ", ".join(said)


def missing_of(packages: Iterable[str], found: Installed | None) -> list[str]:
    """Those of *packages* (``NAME``, ``NAME=VERSION``) that *found* does not have."""
    lacking = []
    for package in packages:
        name, _, version = package.partition("=")
        name = name.partition("/")[0]  # NAME/RELEASE says where from, not what
        have = None if found is None else found.version(name)
        if have is None and found is not None and not version and name in found.provided:
            continue
        if have is None or (version and have != version):
            lacking.append(package)
    return lacking
