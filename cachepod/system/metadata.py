"""
What a layer says of itself, beside its files: ``layer.json`` in the root of the tree.

A tree of a snapshot keeps contents, modes, times and links. What it does not keep (owners,
set-uid bits, capabilities, what is to be removed) is here, with what is needed to tell whether the
layer fits. All paths are relative to the root, without a leading slash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachepod.errors import NewerFormat, TreeUnreadable
from cachepod.system.base import Base, base_from

FORMAT = 1
METADATA = "layer.json"
FILES = "files"

_LIMIT = 256 << 20
_SPECIAL = 0o6000
_OWNER = re.compile(r"[^\s:/]{1,64}")
_CAPABILITY = re.compile(r"(?:[0-9a-f]{2}){1,64}")


@dataclass(frozen=True)
class Accounts:
    """
    Users and groups that were added.

    Args:
        lines: ``passwd``, ``group``, ``shadow``, ``gshadow``, ``subuid``, ``subgid`` to the lines
            that are new there.

        primary: Each new user to the name of his group.

        members: Each group that was there to the users that were added to it.
    """

    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    primary: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """
    A captured layer.

    Args:
        distribution: Of the base.

        before: Packages of the base, ``NAME:ARCHITECTURE`` to version.

        after: Packages with the layer, likewise.

        asked: What was asked for.

        owners: Path to ``USER GROUP``, for those that are not root's; ``#1234`` for an id
            without a name.

        modes: Path to mode, for files and directories with set-uid or set-gid.

        capabilities: Path to the value of ``security.capability`` in hex.

        accounts: Users and groups.

        removed: What the base has and is gone, directories after what is in them.

        changed: What the base has in place of what the layer brings: path to a token, see
            :mod:`cachepod.system.look`.

        conffiles: Those of the packages that are new or changed.

        left: What maintainer scripts left: paths that belong to no package.

        content: Digest over names, sizes and times of the files.
    """

    distribution: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    asked: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    capabilities: Mapping[str, str] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)
    removed: tuple[str, ...] = ()
    changed: Mapping[str, str] = field(default_factory=dict)
    conffiles: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    content: str = ""

    @property
    def base(self) -> Base:
        """The base that it is for."""
        return base_from(self.distribution, self.before)

    @property
    def packages(self) -> dict[str, str]:
        """Those that are new, or of another version: ``NAME:ARCHITECTURE`` to version."""
        return {
            name: version
            for name, version in self.after.items()
            if self.before.get(name) != version
        }

    def encode(self) -> bytes:
        """As ``layer.json`` holds it; the same layer gives the same bytes."""
        after = {name: v for name, v in self.after.items() if self.before.get(name) != v}
        document = {
            "format": FORMAT,
            "distribution": self.distribution,
            "base": self.base.digest,
            "packages": dict(self.before),
            "added": after,
            "dropped": sorted(self.before.keys() - self.after.keys()),
            "asked": list(self.asked),
            "owners": dict(self.owners),
            "modes": {path: f"{mode:04o}" for path, mode in self.modes.items()},
            "capabilities": dict(self.capabilities),
            "accounts": {
                "lines": {name: list(lines) for name, lines in self.accounts.lines.items()},
                "primary": dict(self.accounts.primary),
                "members": {name: list(m) for name, m in self.accounts.members.items()},
            },
            "removed": list(self.removed),
            "changed": dict(self.changed),
            "conffiles": sorted(self.conffiles),
            "left": sorted(self.left),
            "content": self.content,
        }
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def digest_of(data: bytes) -> str:
    """What a ``layer.json`` is called by; 32 hex digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def read_metadata(place: Path) -> bytes:
    """
    The ``layer.json`` of the tree at *place*.

    Raises:
        TreeUnreadable: There is none that could be one.
    """
    path = place / METADATA
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags), "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise TreeUnreadable(str(path), error.strerror or str(error)) from error
    if len(data) > _LIMIT:
        raise TreeUnreadable(str(path), "it is too big")
    return data


def decode(data: bytes, name: str) -> Layer:
    """
    The layer that *data* describes; every field is checked.

    Args:
        name: What the bytes are called in messages.

    Raises:
        NewerFormat: A later cachepod wrote them.

        TreeUnreadable: They are no description of a layer, or name paths that no layer may touch.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        version = document.get("format")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError("it has no format")
        if version > FORMAT:
            raise NewerFormat(name, version, FORMAT)
        layer = _layer(document)
        if layer.base.digest != document.get("base"):
            raise ValueError("its base is not what its packages say")
        return layer
    except RecursionError:
        raise TreeUnreadable(name, "it is nested too deep") from None
    except ValueError as error:
        raise TreeUnreadable(name, f"it describes no layer: {error}") from error


def _layer(document: Mapping[str, Any]) -> Layer:
    before = _texts(document, "packages")
    after = {**before, **_texts(document, "added")}
    for name in _list(document, "dropped"):
        after.pop(name, None)
    accounts = document.get("accounts")
    if not isinstance(accounts, dict):
        raise ValueError("accounts is no object")
    modes = {path: _mode(text) for path, text in _texts(document, "modes").items()}
    layer = Layer(
        distribution=_text(document, "distribution"),
        before=before,
        after=after,
        asked=tuple(_list(document, "asked")),
        owners=_texts(document, "owners", _is_owners),
        modes=modes,
        capabilities=_texts(document, "capabilities", lambda v: bool(_CAPABILITY.fullmatch(v))),
        accounts=Accounts(
            lines=_lists(accounts, "lines"),
            primary=_texts(accounts, "primary"),
            members=_lists(accounts, "members"),
        ),
        removed=tuple(_list(document, "removed")),
        changed=_texts(document, "changed"),
        conffiles=frozenset(_list(document, "conffiles")),
        left=frozenset(_list(document, "left")),
        content=_text(document, "content"),
    )
    for paths in (layer.owners, layer.modes, layer.capabilities, layer.removed, layer.changed):
        for path in paths:
            check_path(path)
    return layer


def check_path(path: str) -> None:
    """
    Refuse a *path* that is none below the root.

    Raises:
        ValueError: It is absolute, empty, or climbs.
    """
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} is no path below the root")


def _mode(text: str) -> int:
    mode = int(text, 8) if re.fullmatch(r"[0-7]{4}", text) else 0
    if not mode & _SPECIAL:
        raise ValueError(f"{text!r} is no mode with set-uid or set-gid")
    return mode


def _is_owners(text: str) -> bool:
    user, blank, group = text.partition(" ")
    return bool(blank and _OWNER.fullmatch(user) and _OWNER.fullmatch(group))


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _list(document: Mapping[str, Any], name: str) -> list[str]:
    value = document.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} is no list of texts")
    return value


def _texts(
    document: Mapping[str, Any], name: str, valid: Callable[[str], bool] = lambda value: True
) -> dict[str, str]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    for key, each in value.items():
        if not isinstance(each, str) or not valid(each):
            raise ValueError(f"{name} of {key!r} makes no sense")
    return value


def _lists(document: Mapping[str, Any], name: str) -> dict[str, tuple[str, ...]]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return {key: tuple(_list(value, key)) for key in value}
