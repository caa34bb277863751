"""
Users and groups: what an installation added, and adding it elsewhere.

The files are those of passwd(5), group(5), shadow(5), gshadow(5), subuid(5) and subgid(5)::

    passwd    name:x:uid:gid:comment:home:shell
    group     name:x:gid:member,member
    shadow    name:password:...
    gshadow   name:password:administrators:member,member
    subuid    name:first:count

They are never replaced, only added to: a container may have accounts of its own. A name that is
there stays as it is; an id that is taken by another name is exchanged for the next free one, and
who owns a file goes by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain

from cachepod.system.metadata import Accounts

#: Each file, how many fields a line of it has, and its mode where it has to be made.
FILES: Mapping[str, tuple[int, int]] = {
    "group": (4, 0o644),
    "gshadow": (4, 0o640),
    "passwd": (7, 0o644),
    "shadow": (9, 0o640),
    "subuid": (3, 0o644),
    "subgid": (3, 0o644),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}\$?")
_ID = re.compile(r"[0-9]{1,9}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SYSTEM = range(100, 1000)  # where Debian has accounts of packages
_PEOPLE = range(1000, 60000)


def names_of(text: str, field: int = 2) -> dict[int, str]:
    """Id to the first name that has it, of a ``passwd`` (or ``group``: the field is the same)."""
    found: dict[int, str] = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > field and _ID.fullmatch(fields[field]):
            found.setdefault(int(fields[field]), fields[0])
    return found


def ids_of(text: str) -> dict[str, int]:
    """Name to id, likewise."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and _ID.fullmatch(fields[2]):
            found.setdefault(fields[0], int(fields[2]))
    return found


def _by_name(text: str) -> dict[str, str]:
    return {line.partition(":")[0]: line for line in text.splitlines() if ":" in line}


def _members(line: str) -> list[str]:
    return [name for name in line.rpartition(":")[2].split(",") if name]


def added(before: Mapping[str, str], after: Mapping[str, str]) -> Accounts:
    """What *after* has that *before* has not; both give the name of a file to its text."""
    lines: dict[str, tuple[str, ...]] = {}
    for name in FILES:
        old = _by_name(before.get(name, ""))
        new = [line for who, line in _by_name(after.get(name, "")).items() if who not in old]
        if new:
            lines[name] = tuple(new)
    groups = names_of(after.get("group", ""))
    primary = {}
    for line in lines.get("passwd", ()):
        fields = line.split(":")
        if len(fields) > 3 and _ID.fullmatch(fields[3]) and int(fields[3]) in groups:
            primary[fields[0]] = groups[int(fields[3])]
    old_groups = _by_name(before.get("group", ""))
    members = {}
    for group, line in _by_name(after.get("group", "")).items():
        if group in old_groups:
            was = _members(old_groups[group])
            more = tuple(name for name in _members(line) if name not in was)
            if more:
                members[group] = more
    return Accounts(lines, primary, members)


def check(accounts: Accounts, *, trusted: bool) -> None:
    """
    Refuse lines that are none, and, from a stranger, another root.

    Raises:
        ValueError: Some line is that.
    """
    for file, lines in accounts.lines.items():
        if file not in FILES:
            raise ValueError(f"{file!r} holds no accounts")
        for line in lines:
            fields = line.split(":")
            sound = len(fields) == FILES[file][0] and not _CONTROL.search(line)
            if not sound or not _NAME.fullmatch(fields[0]):
                raise ValueError(f"{line!r} is no line of {file}")
            numbers = {"passwd": (2, 3), "group": (2,), "subuid": (1, 2), "subgid": (1, 2)}
            for number in numbers.get(file, ()):
                if not _ID.fullmatch(fields[number]):
                    raise ValueError(f"{line!r} is no line of {file}")
            if file in ("passwd", "group") and int(fields[2]) == 0 and not trusted:
                raise ValueError(f"{fields[0]!r} would be another root")
    for group, names in (*accounts.members.items(), *((g, (u,)) for u, g in _pairs(accounts))):
        if not all(_NAME.fullmatch(name) for name in (group, *names)):
            raise ValueError(f"{group!r} is no group with members")


def _pairs(accounts: Accounts) -> Iterable[tuple[str, str]]:
    return accounts.primary.items()


def merge(
    current: Mapping[str, str], accounts: Accounts, *, trusted: bool
) -> tuple[dict[str, str], list[str]]:
    """
    Add *accounts*, which :func:`check` has passed, to the files as they are.

    Args:
        current: Name of a file to its text; a file that is not there is left out.

        trusted: Whether passwords are taken over; else nobody can log in by one.

    Returns:
        The files that change, and what a user should know.
    """
    texts = dict(current)
    notes: list[str] = []
    groups = _Adder(texts.get("group", ""), accounts.lines.get("group", ()))
    gids = ids_of(texts.get("group", ""))
    for line in accounts.lines.get("group", ()):
        fields = line.split(":")
        if fields[0] in gids:
            continue
        gid = groups.free(int(fields[2]))
        if gid != int(fields[2]):
            notes.append(f"group {fields[0]} is {gid} here, for {fields[2]} is taken")
        gids[fields[0]] = gid
        groups.add(":".join((fields[0], "x", str(gid), fields[3])))
    texts["group"] = _with_members(groups.text, accounts.members)
    users = _Adder(texts.get("passwd", ""), accounts.lines.get("passwd", ()))
    uids = ids_of(texts.get("passwd", ""))
    for line in accounts.lines.get("passwd", ()):
        fields = line.split(":")
        if fields[0] in uids:
            continue
        uid = users.free(int(fields[2]))
        if uid != int(fields[2]):
            notes.append(f"user {fields[0]} is {uid} here, for {fields[2]} is taken")
        gid = gids.get(accounts.primary.get(fields[0], ""), int(fields[3]))
        password = fields[1] if trusted else "x"
        users.add(":".join((fields[0], password, str(uid), str(gid), *fields[4:])))
    texts["passwd"] = users.text
    for file in ("shadow", "gshadow"):
        if file in texts:  # a system without shadow passwords gets none
            lines = [_locked(line, trusted) for line in accounts.lines.get(file, ())]
            texts[file] = _with_new(texts[file], lines)
    if "gshadow" in texts:
        texts["gshadow"] = _with_members(texts["gshadow"], accounts.members)
    for file in ("subuid", "subgid"):
        if file in texts or accounts.lines.get(file):
            texts[file] = _with_new(texts.get(file, ""), accounts.lines.get(file, ()))
    return {name: text for name, text in texts.items() if text != current.get(name, "")}, notes


class _Adder:
    """A file with ids that gets lines."""

    def __init__(self, text: str, lines: Sequence[str]) -> None:
        self.text = text
        self._taken = set(names_of(text))
        # What others of the layer are to have is not given away.
        self._wanted = {int(line.split(":")[2]) for line in lines}

    def free(self, wanted: int) -> int:
        if wanted not in self._taken:
            return wanted
        numbers = _PEOPLE if wanted in _PEOPLE else _SYSTEM
        for number in chain(numbers, range(_PEOPLE.stop, 1 << 31)):
            if number not in self._taken and number not in self._wanted:
                return number
        raise AssertionError("unreachable")

    def add(self, line: str) -> None:
        self.text = _appended(self.text, line)
        self._taken.add(int(line.split(":")[2]))


def _appended(text: str, line: str) -> str:
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"


def _with_new(text: str, lines: Iterable[str]) -> str:
    names: Collection[str] = _by_name(text).keys()
    for line in lines:
        if line.partition(":")[0] not in names:
            text = _appended(text, line)
    return text


def _locked(line: str, trusted: bool) -> str:
    """*line* with a password that is none, unless it comes from somebody who is trusted."""
    fields = line.split(":")
    if not trusted and not fields[1].startswith(("!", "*")):
        fields[1] = "!"
    return ":".join(fields)


def _with_members(text: str, members: Mapping[str, Sequence[str]]) -> str:
    if not members:
        return text
    lines = []
    for line in text.splitlines():
        group = line.partition(":")[0]
        has = _members(line)
        more = [name for name in members.get(group, ()) if name not in has]
        lines.append(line.rpartition(":")[0] + ":" + ",".join((*has, *more)) if more else line)
    return "\n".join(lines) + "\n"
