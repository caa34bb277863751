"""
The file system as it is at one moment, to be compared with what it is later.

Kept on disk, for an installation may be killed and another one end it. A file of records, each
five fields and the path, apart by NUL::

    f 33188 0 0 4096 1700000000000000000 1700000000000000000 131 <token> usr/bin/env
    | |     | | |    |                   |                   |   |       path below the root
    | |     | | |    mtime               ctime, nanoseconds  |   what it held
    | |     | | size                                         inode
    | |     | group
    | |     user
    | mode
    kind: f file, d directory, l symlink, o other

A **token** says what a path held, so that another machine can tell whether it has the same there:

==========================  ========================================================
``md5:DIGEST:BYTES:SECONDS`` a file whose digest dpkg knows, its size and mtime
``blake3:DIGEST``           a small file that is no package's
``size:BYTES:SECONDS``      any other file: its size and mtime
``link:TARGET``             a symlink
``dir:MODE:USER GROUP``     a directory
==========================  ========================================================
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from cachepod.errors import TreeUnreadable
from cachepod.system.accounts import names_of
from cachepod.system.paths import TOPS, is_below, is_unseen

#: Files up to this size are read, up to so many bytes altogether; bigger ones tell by their time.
_SMALL = 1 << 20
_BUDGET = 256 << 20
_BLOCK = 1 << 20
_SECOND = 1_000_000_000
#: Where maintainer scripts change files that no package owns.
_READ = ("etc", "var", "usr")


@dataclass(frozen=True)
class Seen:
    """One path: its *kind* as above, what lstat says, and a *token* of what it held."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    inode: int
    token: str = ""


class Names:
    """Users and groups of a root, by id."""

    def __init__(self, root: Path) -> None:
        self._users = names_of(read_text(root / "etc/passwd"))
        self._groups = names_of(read_text(root / "etc/group"))

    def owners(self, uid: int, gid: int) -> str:
        """``USER GROUP``, ``#1234`` for an id without a name."""
        return f"{self._users.get(uid, f'#{uid}')} {self._groups.get(gid, f'#{gid}')}"


def read_text(path: Path) -> str:
    """What the file at *path* holds; empty where there is none."""
    try:
        return path.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def look(
    root: Path, *, avoid: Collection[str], token: Callable[[str, str, os.stat_result], str]
) -> dict[str, Seen]:
    """
    Walk what belongs to a layer, on the file system of *root* alone.

    Args:
        avoid: Paths below the root that are passed over with all that is in them.

        token: Gives the token of a file or symlink from its path below the root, its full path,
            and what lstat says.

    Raises:
        TreeUnreadable: Something cannot be read.
    """
    top = os.path.abspath(root).rstrip("/")
    names = Names(root)
    found: dict[str, Seen] = {}
    try:
        device = os.stat(top + "/").st_dev
        pending = [("", name) for name in TOPS if os.path.lexists(f"{top}/{name}")]
        while pending:
            folder, name = pending.pop()
            path = f"{folder}/{name}" if folder else name
            if path in avoid or (is_unseen(path) and not _has_kept(path)):
                continue
            full = f"{top}/{path}"
            try:
                info = os.lstat(full)
            except FileNotFoundError:  # removed meanwhile by something else
                continue
            seen = _seen(path, full, info, names, token)
            if seen.kind == "d":
                if info.st_dev != device:
                    continue
                try:
                    pending.extend((path, below) for below in sorted(os.listdir(full)))
                except FileNotFoundError:
                    continue
            if not is_unseen(path):
                found[path] = seen
    except OSError as error:
        where = os.fsdecode(error.filename or top)
        raise TreeUnreadable(where, error.strerror or str(error)) from error
    return found


def _has_kept(path: str) -> bool:
    # Two directories hold something that is captured without being captured themselves.
    return path in ("var/cache", "var/cache/debconf")


def _seen(
    path: str,
    full: str,
    info: os.stat_result,
    names: Names,
    token: Callable[[str, str, os.stat_result], str],
) -> Seen:
    mode = info.st_mode
    if stat.S_ISDIR(mode):
        kind = "d"
        said = directory_token(mode, names.owners(info.st_uid, info.st_gid))
    elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        kind = "f" if stat.S_ISREG(mode) else "l"
        said = token(path, full, info)
    else:
        kind, said = "o", "other:"
    return Seen(
        kind,
        mode,
        info.st_uid,
        info.st_gid,
        info.st_size,
        info.st_mtime_ns,
        info.st_ctime_ns,
        info.st_ino,
        said,
    )


def directory_token(mode: int, owners: str) -> str:
    """The token of a directory."""
    return f"dir:{stat.S_IMODE(mode):04o}:{owners}"


class Tokens:
    """
    Gives tokens to what is there before an installation.

    Args:
        digests: MD5 of the files of packages, by path.
    """

    def __init__(self, digests: Mapping[str, str]) -> None:
        self._digests = digests
        self._left = _BUDGET

    def __call__(self, path: str, full: str, info: os.stat_result) -> str:
        """See :func:`look`."""
        if stat.S_ISLNK(info.st_mode):
            return f"link:{os.readlink(full)}"
        known = self._digests.get(path)
        if known is not None:
            return f"md5:{known}:{_by_time(info)}"
        if info.st_size <= min(_SMALL, self._left) and is_below(path, _READ):
            self._left -= info.st_size
            try:
                return f"blake3:{digest(full, 'blake3')}"
            except OSError:
                pass
        return f"size:{_by_time(info)}"


def _by_time(info: os.stat_result) -> str:
    return f"{info.st_size}:{info.st_mtime_ns // _SECOND}"


def no_token(path: str, full: str, info: os.stat_result) -> str:
    """For the second look, which is compared with the first."""
    return ""


def digest(full: str, kind: str) -> str:
    """That of a file's content; OSError if it cannot be read."""
    hasher = blake3() if kind == "blake3" else hashlib.md5(usedforsecurity=False)
    with open(os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()[:32]


def matches(
    token: str, full: str, info: os.stat_result, owners: str, *, strict: bool = False
) -> bool:
    """
    Whether what lies at *full* is what *token* says; OSError if it cannot be read.

    Args:
        info: What lstat says of it.

        owners: As :meth:`Names.owners` has them; only directories are asked.

        strict: Read a file of a package even if size and time are right. Else they suffice: a
            build of the image may have changed what dpkg knows, and then it is the base's all
            the same.
    """
    kind, _, value = token.partition(":")
    if kind == "link":
        return stat.S_ISLNK(info.st_mode) and os.readlink(full) == value
    if kind == "dir":
        return stat.S_ISDIR(info.st_mode) and directory_token(info.st_mode, owners) == token
    if not stat.S_ISREG(info.st_mode):
        return False
    if kind == "md5":
        known, _, times = value.partition(":")
        return (not strict and times == _by_time(info)) or digest(full, kind) == known
    if kind == "blake3":
        return digest(full, kind) == value
    return kind == "size" and value == _by_time(info)


def save(found: Mapping[str, Seen], path: Path) -> None:
    """Write *found* to *path*; OSError as the file system has it."""
    with open(path, "wb") as file:
        for name, seen in found.items():
            numbers = (seen.mode, seen.uid, seen.gid, seen.size, seen.mtime, seen.ctime, seen.inode)
            fields = " ".join((seen.kind, *map(str, numbers)))
            for field in (fields, seen.token, name):
                file.write(os.fsencode(field) + b"\0")


def load(path: Path) -> dict[str, Seen]:
    """
    What :func:`save` wrote.

    Raises:
        OSError: It cannot be read.

        ValueError: It is not that.
    """
    fields = path.read_bytes().split(b"\0")
    if fields.pop() or len(fields) % 3:
        raise ValueError("it was cut short")
    return dict(_loaded(iter(fields)))


def _loaded(fields: Iterator[bytes]) -> Iterator[tuple[str, Seen]]:
    for numbers, token, name in zip(fields, fields, fields, strict=True):
        kind, *rest = numbers.decode("ascii").split()
        mode, uid, gid, size, mtime, ctime, inode = map(int, rest)
        seen = Seen(kind, mode, uid, gid, size, mtime, ctime, inode, os.fsdecode(token))
        yield os.fsdecode(name), seen


def differences(
    root: Path, before: Mapping[str, Seen], now: Mapping[str, Seen]
) -> tuple[list[str], list[str], list[str]]:
    """
    What was added, changed and removed, each sorted.

    A file that was only touched, or replaced by the same, has not changed.

    Raises:
        TreeUnreadable: A file cannot be read.
    """
    added = sorted(now.keys() - before.keys())
    removed = sorted(before.keys() - now.keys())
    changed = sorted(
        path for path, seen in now.items() if path in before and _differs(root, path, before, seen)
    )
    return added, changed, removed


def _differs(root: Path, path: str, before: Mapping[str, Seen], now: Seen) -> bool:
    old = before[path]
    if (old.kind, old.mode, old.uid, old.gid) != (now.kind, now.mode, now.uid, now.gid):
        return True
    if old.kind in ("d", "o"):
        return False
    times = (old.size, old.mtime, old.ctime, old.inode)
    if times == (now.size, now.mtime, now.ctime, now.inode):
        return False
    full = os.path.join(root, path)
    try:
        return not matches(old.token, full, os.lstat(full), "", strict=True)
    except OSError as error:
        raise TreeUnreadable(full, error.strerror or str(error)) from error
