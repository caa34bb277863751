"""
Which parts of a file system belong to a layer.

What is left out is of one machine or one run alone, or made anew on every machine.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cachepod.stores.mounts import mounts
from cachepod.system.accounts import FILES as ACCOUNT_FILES
from cachepod.system.record import HOME

#: What is looked at; packages own nothing elsewhere that would not be made anew.
TOPS = (
    *("bin", "boot", "etc", "lib", "lib32", "lib64", "libo32", "libx32", "opt", "sbin", "srv"),
    *("usr", "var"),
)
#: Directories of which nothing is captured, whoever owns it, and where nothing is ever applied.
NEVER = ("proc", "sys", "dev", "run", "tmp", HOME)
#: Of these only the directories that packages own, and what is in KEPT.
_UNSEEN = (
    *("root", "home", "var/tmp", "var/log", "var/cache", "var/backups", "var/lib/apt/lists"),
    *("var/lib/apt/periodic", "var/lib/apt/mirrors", "var/lib/dpkg/updates"),
    *("var/lib/dpkg/parts", "var/lib/dpkg/tmp.ci"),
)
#: What debconf was told, which lies in a cache and is none: without it packages ask again.
_KEPT = frozenset(
    ("var/cache/debconf", "var/cache/debconf/config.dat", "var/cache/debconf/templates.dat")
)
_DPKG = "var/lib/dpkg"
_ACCOUNTS = frozenset(f"etc/{name}{end}" for name in ACCOUNT_FILES for end in ("", "-"))
_MADE_ANEW = frozenset(
    {
        *("etc/ld.so.cache", "etc/.pwd.lock", "etc/mtab", "etc/hosts", "etc/hostname"),
        *("etc/resolv.conf", f"{_DPKG}/lock", f"{_DPKG}/lock-frontend", f"{_DPKG}/triggers/Lock"),
        *(f"{_DPKG}/{name}-old" for name in ("status", "available", "diversions", "statoverride")),
        "var/lib/apt/daily_lock",
    }
)
#: What tells one machine from another, or lets somebody be taken for it.
_SECRETS = (
    *("etc/ssh/ssh_host_*", "etc/machine-id", "var/lib/dbus/machine-id", "etc/ssl/private/*"),
    *("etc/ssl/certs/ssl-cert-snakeoil.pem", "var/lib/systemd/random-seed", "etc/*.keytab"),
    *("var/cache/debconf/passwords.dat", "etc/mysql/debian.cnf", "etc/hostid"),
)
_SECRET = re.compile("|".join(fnmatch.translate(pattern) for pattern in _SECRETS))
_PRIVATE_KEY = re.compile(rb"\A\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Whether *path* is one of *folders* or lies in one."""
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def is_unseen(path: str) -> bool:
    """Whether a difference at *path* means nothing."""
    return (
        path in _ACCOUNTS
        or path in _MADE_ANEW
        or is_below(path, NEVER)
        or (is_below(path, _UNSEEN) and path not in _KEPT)
    )


def is_closed(path: str) -> bool:
    """Whether no layer may put anything at *path*, nor remove it."""
    return path in _ACCOUNTS or path in _MADE_ANEW or is_below(path, NEVER)


def is_secret(path: str) -> bool:
    """Whether what lies at *path* is of this machine alone, by its name."""
    return _SECRET.match(path) is not None


def holds_private_key(path: str) -> bool:
    """Whether the file at *path* is a private key, by its first line."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags), "rb") as file:
            return _PRIVATE_KEY.match(file.read(128)) is not None
    except OSError:
        return False


def mounted(root: Path, table: Sequence[str] | None = None) -> frozenset[str]:
    """Paths below *root* on which something else is mounted, be it a single file."""
    points = [mount.point for mount in mounts()] if table is None else table
    top = os.path.realpath(root).rstrip("/") + "/"
    return frozenset(
        point[len(top) :].strip("/") for point in points if point.startswith(top) and point != top
    )


def below(root: Path, places: Iterable[Path]) -> tuple[str, ...]:
    """*places* as paths below *root*, those elsewhere left out."""
    top = os.path.realpath(root).rstrip("/") + "/"
    found = (os.path.realpath(place) for place in places)
    return tuple(place[len(top) :] for place in found if place.startswith(top) and place != top)
