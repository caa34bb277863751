"""A tree in a store, the commands that restore and publish it, and a tree for who has none."""

from __future__ import annotations

import os
import random
from pathlib import Path

from benchmarks import measure

KEY = "bench"
_FILES = 16
_SMALL = 400


def restore_words(store: str | Path, place: Path, *more: str) -> list[str]:
    """The arguments of ``cachepod`` that restore the tree to *place*, and print JSON."""
    return ["restore", "--json", *_common(store), "--tree", f"bench={place}", *more]


def publish_words(store: str | Path, tree: Path, *more: str) -> list[str]:
    """The arguments of ``cachepod`` that publish *tree*, and print JSON."""
    return ["publish", "--json", *_common(store), "--tree", f"bench={tree}", *more]


def _common(store: str | Path) -> list[str]:
    # No configuration, whatever lies above the working directory.
    return ["--config", os.devnull, "--store", str(store), "--key", KEY]


def publish_tree(tree: Path, store: str | Path) -> measure.Cost:
    """Publish *tree* into *store*, unless it is there; cachepod itself tells."""
    return measure.run([measure.cachepod(), *publish_words(store, tree)])


def make_sample(root: Path, size: int) -> None:
    """
    A tree that takes *size* bytes in a store and little CPU time, beside the network's time.

    Nearly all of it are a few large files that cannot be compressed; some hundred small ones lie
    beside them.
    """
    source = random.Random(size)
    folder = root / "lib"
    folder.mkdir(parents=True)
    for number in range(_SMALL):
        (folder / f"module_{number}.py").write_bytes(b"# %d\n" % number + source.randbytes(500))
    for number in range(_FILES):
        left = size // _FILES
        with open(root / f"library_{number}.so", "wb") as file:
            while left:
                block = source.randbytes(min(left, 1 << 20))
                file.write(block)
                left -= len(block)
