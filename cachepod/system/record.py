"""
What this machine remembers of its layer, beside the layer's tree and never part of it.

::

    /var/lib/cachepod/
      system/           the tree: layer.json, files/
      system.state/
        record.json     how far the layer has come, and the base that it lies upon
        before          the file system as it was before the first installation
        lock            held by whoever installs or applies

A record is of this container alone: a snapshot carries none.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from cachepod.system.base import Base

#: Name of the tree in a snapshot.
TREE = "system"
HOME = "var/lib/cachepod"
_STATE = "system.state"
_RECORD = "record.json"
_LIMIT = 1 << 20


class Progressed(str, Enum):
    """How far a layer has come on this machine."""

    INSTALLING = "installing"  # apt is at work, or died at it
    APPLYING = "applying"  # a tree is being merged into the root, or that died
    IN_PLACE = "in place"


@dataclass(frozen=True)
class Record:
    """
    How far the layer of a machine has come.

    Args:
        state: That.

        base: The image before it.

        layer: Digest of the ``layer.json`` that is in place or being put there; empty where none
            was captured.

        asked: What was asked for, by whoever installed here; empty where the layer came by apply.

        why: Why the tree is not what a new container of the same base needs for what was asked,
            in words; empty where it is.
    """

    state: Progressed
    base: Base | None
    layer: str = ""
    asked: tuple[str, ...] = ()
    why: str = ""


def place(root: Path = Path("/")) -> Path:
    """Where the tree lies."""
    return root / HOME / TREE


def state_place(root: Path) -> Path:
    """The directory of what this machine remembers."""
    return root / HOME / _STATE


def read_record(root: Path) -> Record | None:
    """The record of *root*; None if there is none or it cannot be understood."""
    try:
        with open(state_place(root) / _RECORD, "rb") as file:
            value = json.loads(file.read(_LIMIT))
        base = value["base"]
        return Record(
            state=Progressed(value["state"]),
            base=None
            if base is None
            else Base(
                str(base["distribution"]),
                str(base["architecture"]),
                str(base["digest"]),
                int(base["packages"]),
            ),
            layer=str(value["layer"]),
            asked=tuple(str(name) for name in value["asked"]),
            why=str(value["why"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_record(root: Path, record: Record) -> None:
    """Replace the record of *root*, atomically; OSError as the file system has it."""
    directory = state_place(root)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = directory / f"{_RECORD}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
    os.replace(temporary, directory / _RECORD)
