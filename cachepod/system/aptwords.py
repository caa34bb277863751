"""What apt and dpkg say, in the words of cachepod; they are made to speak English (LC_ALL=C)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cachepod.errors import AptFailed, AptLocked, CachepodError, SpaceExhausted

_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|You don't have enough free space in \S+"
)
_LOCKED = re.compile(
    r"Could not get lock (?P<lock>\S+?)\.?"
    r"(?: It is held by (?P<who>process \d+ \([^)]*\)))?(?: - |\s|$)"
    r"|dpkg (?:frontend|database) lock was locked by another process"
    r"(?: with pid (?P<pid>\d+))?"
)
_NO_PACKAGE = re.compile(
    r"^E: (?:Unable to locate package (?P<name>\S+)"
    r"|Package '(?P<candidate>[^']+)' has no installation candidate"
    r"|Couldn't find any package by (?:glob|regex) '(?P<glob>[^']+)')",
    re.M,
)
_NO_VERSION = re.compile(
    r"^E: (?P<what>Version|Release) '(?P<version>[^']+)' for '(?P<name>[^']+)' was not found", re.M
)
_UNMET = re.compile(r"have unmet dependencies:\n (?P<name>\S+) : (?P<why>[^\n]+)")
_FETCH = re.compile(r"^[EW]: Failed to fetch (?P<url>\S+)\s+(?P<why>[^\n]*)", re.M)
_UNSIGNED = re.compile(
    r"^[EW]: (?:The repository '(?P<repository>[^']+)' "
    r"(?P<is>is not signed|does not have a Release file|is no longer signed)"
    r"|GPG error: (?P<gpg>\S+ \S+) \S+: (?P<why>[^\n]+))",
    re.M,
)
_PROCESSING = re.compile(
    r"^dpkg: error processing (?:package|archive) (?P<name>\S+) \([^)]*\):\n (?P<why>[^\n]+)", re.M
)
_ERROR = re.compile(r"^(?:E|dpkg: error|dpkg-deb: error): ?(?P<what>.+)$", re.M)
_INSTALLED = re.compile(r"^Inst (?P<name>\S+) ", re.M)
_FETCHED = re.compile(
    r"^Need to get (?:[\d.,]+ \w?B/)?(?P<size>[\d.,]+) ?(?P<unit>[kMGT]?B) ", re.M
)
_USED = re.compile(
    r"^After this operation, (?P<size>[\d.,]+) ?(?P<unit>[kMGT]?B) of additional disk space", re.M
)
_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}


@dataclass(frozen=True)
class Simulation:
    """
    What apt is about to do.

    Args:
        names: Packages that it would unpack.

        download: Bytes to fetch, as apt rounds them.

        unpacked: Bytes that the disk will hold in addition.
    """

    names: tuple[str, ...]
    download: int
    unpacked: int


def simulated(names: str, sizes: str) -> Simulation:
    """From the output of ``apt-get -s`` and that of ``apt-get --print-uris``."""
    return Simulation(tuple(_INSTALLED.findall(names)), _size(_FETCHED, sizes), _size(_USED, sizes))


def _size(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    if found is None:
        return 0
    return int(float(found["size"].replace(",", "")) * _UNITS[found["unit"]])


def fetch_problem(output: str) -> str:
    """Why an index or a package could not be fetched; empty if it could."""
    failed = _FETCH.search(output)
    if failed is not None:
        return f"{failed['url']} cannot be fetched: {_line(failed['why'])}"
    unsigned = _UNSIGNED.search(output)
    if unsigned is not None and unsigned["repository"]:
        return f"the repository {unsigned['repository']} {unsigned['is']}"
    if unsigned is not None:
        return f"the signature of {unsigned['gpg']} is not accepted: {_line(unsigned['why'])}"
    return ""


def explain(output: str, *, where: str, mirror: str = "", seconds: float = 0.0) -> CachepodError:
    """
    The error that *output* tells of.

    Args:
        where: The root, for an error about its disk.

        mirror: What went wrong when the lists of packages were fetched, for that is why a package
            is not known.

        seconds: How long locks are waited for.
    """
    if _FULL.search(output):
        return SpaceExhausted(
            where, "the disk ran full while apt was at work", hint="free some, or give more"
        )
    locked = _LOCKED.search(output)
    if locked is not None:
        holder = locked["who"] or (f"process {locked['pid']}" if locked["pid"] else "")
        return AptLocked(locked["lock"] or "dpkg's lock", holder, seconds)
    why, hint = _why(output, mirror)
    return AptFailed(why, output=output, hint=hint)


def _why(output: str, mirror: str) -> tuple[str, str]:
    unknown = _NO_PACKAGE.search(output)
    if unknown is not None:
        name = unknown["name"] or unknown["candidate"] or unknown["glob"]
        if mirror:
            return (
                f"apt knows no package {name}, for {mirror}",
                "check the network, and the sources in /etc/apt",
            )
        return (
            f"there is no apt package {name} in the sources of this image",
            "check its name, or add the repository that has it",
        )
    version = _NO_VERSION.search(output)
    if version is not None:
        what = f"{version['what'].lower()} {version['version']}"
        reason = f", for {mirror}" if mirror else ""
        return (
            f"the apt package {version['name']} is not to be had as {what}{reason}",
            f"see apt-cache policy {version['name']}",
        )
    unmet = _UNMET.search(output)
    if unmet is not None:
        return (
            f"the apt package {unmet['name']} cannot be installed: {_line(unmet['why'])}",
            "see what apt-get install says of it in this image",
        )
    failed = _PROCESSING.search(output)
    if failed is not None:
        return f"dpkg cannot install {failed['name']}: {_line(failed['why'])}", _SHOWN
    fetched = fetch_problem(output)
    if fetched:
        return fetched, "check the network, and the sources in /etc/apt"
    error = _ERROR.search(output)
    if error is not None:
        return f"apt failed: {_line(error['what'])}", _SHOWN
    lines = [line for line in output.splitlines() if line.strip()]
    return f"apt failed: {_line(lines[-1]) if lines else 'it said nothing'}", _SHOWN


_SHOWN = "run it again with -vv to see all that apt said"


def _line(text: str) -> str:
    """*text* on one line, without a full stop."""
    return " ".join(text.split()).rstrip(".")


def progress_of(row: str) -> tuple[str, float, str] | None:
    """
    A row of apt's status descriptor: ``dlstatus:1:20.0:Retrieving file 1 of 5``.

    Returns:
        What it is about (``dlstatus``, ``pmstatus``), per cent, and words; None for another row.
    """
    fields = row.split(":", 3)
    if len(fields) != 4 or fields[0] not in ("dlstatus", "pmstatus"):
        return None
    try:
        return fields[0], float(fields[2]), fields[3].strip()
    except ValueError:
        return None


def names_of(asked: Sequence[str]) -> dict[str, str]:
    """Plain name of each package to how it was asked for."""
    return {re.split("[:=/]", name, maxsplit=1)[0]: name for name in asked}
