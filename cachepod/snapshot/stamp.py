"""
The state directory ``.cachepod/`` in the root of every tree that cachepod made.

::

    .cachepod/
      stamp.json    state and key; written last, atomically
      manifest      the manifest of the snapshot that the tree holds, as the store has it
      index         inode and ctime of every regular file, to see later what was touched

It is never captured by a publish. Its presence is what tells a tree of ours from a foreign one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from cachepod.model.names import STATE_NAME

STATE_DIRECTORY = STATE_NAME.decode()
#: The tree that is a Python environment; its stamp says for which key it was made.
ENVIRONMENT_TREE = "env"
#: The tree that is a CUDA toolkit.
CUDA_TREE = "cuda"
#: What may lie in the root of a tree and is none of its content: the latter is a mount point's own.
NOT_CONTENT = frozenset((STATE_DIRECTORY, "lost+found"))
_STAMP = "stamp.json"
_LIMIT = 64 * 1024


class State(str, Enum):
    """How far a tree has come."""

    COMPLETE = "complete"  # holds exactly the snapshot of the key
    PARTIAL = "partial"  # holds a relative's snapshot; an install must top it up
    INSTALLING = "installing"  # an installer is at work, or died at it
    INSTALLED = "installed"  # installed for the key, not yet published
    FILLING = "filling"  # a restore fills it in place, or died at it


@dataclass(frozen=True)
class Stamp:
    """
    What a tree is.

    Args:
        state: How far it has come.

        key: The key it was made for.

        tree: Its name in the snapshot, ``env`` for the environment.

        manifest: Hex digest of the manifest it holds, empty where it holds none.

        spoils: Hex digest of the manifest of a snapshot of *key* that was found not to work on
            this machine, empty if none was: what is installed here instead may replace it.

        install_seconds: How long the install took that made the tree, 0 where none did or it is
            not known.
    """

    state: State
    key: str
    tree: str
    manifest: str = ""
    spoils: str = ""
    install_seconds: float = 0.0


def state_directory(root: Path) -> Path:
    """Where the state of the tree at *root* lies."""
    return root / STATE_DIRECTORY


def read_stamp(root: Path) -> Stamp | None:
    """The stamp of the tree at *root*; None if there is none or it cannot be understood."""
    try:
        with open(state_directory(root) / _STAMP, "rb") as file:
            value = json.loads(file.read(_LIMIT))
        return Stamp(
            state=State(value["state"]),
            key=str(value["key"]),
            tree=str(value["tree"]),
            manifest=str(value["manifest"]),
            spoils=str(value.get("spoils", "")),
            install_seconds=_seconds(value.get("install_seconds")),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _seconds(value: object) -> float:
    # A comparison with NaN is false too.
    return float(value) if isinstance(value, int | float) and 0 < value < 1e9 else 0.0


def has_stamp(root: Path) -> bool:
    """Whether the tree at *root* has a stamp, be it one that cannot be understood."""
    return os.path.lexists(state_directory(root) / _STAMP)


def write_stamp(root: Path, stamp: Stamp) -> None:
    """Replace the stamp of the tree at *root*, atomically; OSError as the file system has it."""
    directory = state_directory(root)
    directory.mkdir(exist_ok=True)
    temporary = directory / f"{_STAMP}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(stamp)) + "\n", encoding="ascii")
    os.replace(temporary, directory / _STAMP)
