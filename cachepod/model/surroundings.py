"""
What belongs to a tree and lies outside of it: links to it, and the dynamic linker's configuration.

Paths are told as the directory that holds the tree sees them, ``.`` being the tree itself, so that
they hold wherever the tree is restored to. Nothing in them can name a place elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Only such links are made again: what lies on a store must not choose names in a directory.
_LINK = r"cuda[A-Za-z0-9._-]{0,60}"
_FILE = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,80}\.conf"
_PIECE = r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,80}"
_MOST = 32  # of each; two are usual


@dataclass(frozen=True)
class Surroundings:
    """
    What lies around a tree.

    Args:
        links: Names of symbolic links in the directory that holds the tree, which lead to it, and
            whether each is an absolute one.

        linker: Names of files in ``/etc/ld.so.conf.d``, and the directories of the tree that each
            lists: ``./lib64``, or through a link ``cuda/lib64``.

        release: Of the CUDA toolkit, ``13.0.88``; for people only, empty where unknown.
    """

    links: Mapping[str, bool] = field(default_factory=dict)
    linker: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    release: str = ""

    def __post_init__(self) -> None:
        if len(self.links) > _MOST or len(self.linker) > _MOST:
            raise ValueError("a tree has too much around it")
        for name in self.links:
            if not is_link_name(name):
                raise ValueError(f"no link to a tree is called {name!r}")
        for name, directories in self.linker.items():
            if not is_linker_file(name):
                raise ValueError(f"the dynamic linker has no file {name!r}")
            for directory in directories:
                first, *rest = directory.split("/")
                if first != "." and first not in self.links:
                    raise ValueError(f"{directory!r} does not lie in the tree")
                if len(rest) > _MOST or not all(re.fullmatch(_PIECE, piece) for piece in rest):
                    raise ValueError(f"{directory!r} is no directory of a tree")

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back; the same for what is equal."""
        return {
            "links": dict(sorted(self.links.items())),
            "linker": {name: list(found) for name, found in sorted(self.linker.items())},
            "release": self.release,
        }

    @classmethod
    def from_json(cls, value: object) -> Surroundings:
        """
        Parse what :meth:`to_json` made.

        Raises:
            ValueError: It is something else, or names a place that it must not.
        """
        try:
            if not isinstance(value, dict):
                raise ValueError("what lies around a tree is an object")
            return cls(
                links={str(name): bool(absolute) for name, absolute in value["links"].items()},
                linker={
                    str(name): tuple(str(each) for each in found)
                    for name, found in value["linker"].items()
                },
                release=str(value["release"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"what lies around a tree lacks {error}") from error


def is_link_name(name: str) -> bool:
    """Whether a link of this name is one that a CUDA toolkit has to its tree."""
    return re.fullmatch(_LINK, name) is not None


def is_linker_file(name: str) -> bool:
    """Whether a file of this name can be one of the dynamic linker's configuration."""
    return re.fullmatch(_FILE, name) is not None


def is_piece(name: str) -> bool:
    """Whether a directory of this name can stand in it."""
    return re.fullmatch(_PIECE, name) is not None
