"""
The tables that profiles of handlers are made of, each by itself: ours and the user's.

Ours are in profiles.json, for a container without a configuration file needs no reader of TOML at
its start. What is under ``bases`` there is no handler of its own. Every version is one that
installs together with the others for Python 3.10 to 3.13, and is the same in all profiles, so that
their snapshots share what they have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachepod.environment import pep508
from cachepod.environment import settings as readers
from cachepod.environment.keys import KEYS
from cachepod.environment.settings import Given
from cachepod.environment.sources import nearest
from cachepod.errors import ConfigurationProblem

#: The handlers that are built in, and what only serves as a base; as profiles.json has them.
BUILT_IN = ("tts", "video", "storage", "audio")
BASES = ("runpod", "torch", "sound")

#: Keys whose values are joined.
JOINED = frozenset(
    {"requirements", "packages", "apt", "check", "trees", "extra_index_urls", "find_links"}
)
#: Keys that a handler may have: what says what is installed, not how, by whom or where.
USABLE = JOINED | {
    "lock", "python", "cuda", "torch_index", "index_url", "without_gpu", "toolkit", "flash_attn",
    "flash_attn_missing", "flash_attn_build", "apt_missing",
}  # fmt: skip
_OWN = ("base", "without")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Table:
    """
    One table.

    Args:
        values: What it says, by key, read.

        given: The same as it was given.

        base: The table that this one is put on top of; empty where there is none.

        base_ours: Whether that is one of ours, whatever tables the user has.

        without: Distributions and apt packages that are left out of what is below.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Given] = field(default_factory=dict)
    base: str = ""
    base_ours: bool = False
    without: frozenset[str] = frozenset()


def read(given: Given) -> dict[str, Table]:
    """
    The user's tables, all of them checked.

    Raises:
        ConfigurationProblem: One says something that cannot be, or has a base that is not there.
    """
    tables = {
        name: _table(name, content, given)
        for name, content in readers.tables("handlers", given).items()
    }
    for name in tables:
        _check_bases(name, tables, given)
    return tables


def _where(given: Given, *path: str) -> str:
    """The place of a key, or of what holds it where that was written in one line."""
    for length in range(len(path), 0, -1):
        found = given.inner.get(".".join(path[:length]))
        if found:
            return found
    return given.where


def _table(name: str, content: Mapping[str, object], given: Given) -> Table:
    if not re.fullmatch(_NAME, name):
        raise ConfigurationProblem(
            _where(given, name),
            f"{name!r} cannot be the name of a handler",
            hint="use letters, digits, '.', '_' and '-'",
        )
    found: dict[str, Given] = {}
    for key, value in content.items():
        where = _where(given, name, key)
        if key not in USABLE and key not in _OWN:
            raise _no_key(name, key, where)
        start = f"{name}.{key}."
        inner = {
            place.removeprefix(start): line
            for place, line in given.inner.items()
            if place.startswith(start)
        }
        found[key] = Given(value, where, where, given.folder, inner=inner)
    return _of(name, found)


def _no_key(name: str, key: str, where: str) -> ConfigurationProblem:
    if key in KEYS:
        return ConfigurationProblem(
            where,
            f"{key} cannot be set for one handler",
            hint="it says how or where, not what a handler needs: write it before the tables",
        )
    guess = nearest(key, {*USABLE, *_OWN})
    return ConfigurationProblem(
        where,
        f"unknown key {key!r} in handlers.{name}",
        hint=f"did you mean {guess}?" if guess else "",
    )


def _of(name: str, found: dict[str, Given]) -> Table:
    """A table, its values read."""
    values = {key: KEYS[key].reader(key, given) for key, given in found.items() if key not in _OWN}
    base, ours = (name, True) if name in BUILT_IN or name in BASES else ("", False)
    if "base" in found:
        base = readers.text("base", found["base"])
        # a table named like one of ours that has itself as its base means ours
        ours = base == name and ours
    without = readers.texts("without", found["without"]) if "without" in found else ()
    names = frozenset(part for each in without for part in (each, pep508.normalized(each)) if part)
    return Table(values, found, base, ours, names)


def _check_bases(name: str, tables: Mapping[str, Table], given: Given) -> None:
    """Refuse a base that is not there, and tables that are based on each other in a circle."""
    passed = [name]
    while True:
        table = tables[passed[-1]]
        if not table.base or table.base_ours:
            return
        where = table.given["base"].where
        if table.base in passed:
            circle = [*passed[passed.index(table.base) :], table.base]
            raise ConfigurationProblem(
                where, f"handlers are based on each other in a circle: {' -> '.join(circle)}"
            )
        if table.base not in tables:
            if table.base in BUILT_IN or table.base in BASES:
                return
            known = {*tables, *BUILT_IN, *BASES} - {passed[-1]}
            guess = nearest(table.base, known)
            raise ConfigurationProblem(
                where,
                f"handlers.{passed[-1]} has the base {table.base!r}, which is not there; "
                f"known are {', '.join(sorted(known))}",
                hint=f"did you mean {guess}?" if guess else "",
            )
        passed.append(table.base)


def chain(name: str, tables: Mapping[str, Table]) -> tuple[list[Table], str]:
    """
    The user's tables that make up the handler *name*, the base first, and the one of ours below
    them; empty where there is none.
    """
    found: list[Table] = []
    while name in tables:
        table = tables[name]
        found.append(table)
        name = table.base
        if table.base_ours:
            break
    return found[::-1], name


def built_in(name: str) -> Table:
    """One of ours with all its bases in it."""
    import json

    document = json.loads((_FOLDER / "profiles.json").read_text("utf-8"))
    ours = {**document["bases"], **document["handlers"]}
    collected: dict[str, Any] = {}
    at = name
    while at:
        content = dict(ours[at])
        at = content.pop("base", "")
        for key, value in content.items():
            if isinstance(value, list):
                collected[key] = value + collected.get(key, [])
            else:
                collected.setdefault(key, value)
    source = f"profile {name}"
    return _of("", {key: Given(value, source, source, _FOLDER) for key, value in collected.items()})
