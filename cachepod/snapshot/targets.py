"""Which trees of a snapshot go where, and whether that can be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cachepod.errors import CorruptObject, Miss, UsageProblem
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.manifest import Manifest
from cachepod.model.names import manifest_name


@dataclass(frozen=True)
class Target:
    """Where the tree named *tree* goes."""

    tree: str
    root: Path


def check_apart(targets: Sequence[Target]) -> None:
    """Raise UsageProblem if one of the places is that of another, or lies in it."""
    places = [os.path.realpath(target.root) for target in targets]
    for place in places:
        if places.count(place) > 1 or any(other.startswith(place + "/") for other in places):
            raise UsageProblem(f"{place} is the place of one tree, and not of another as well")


def roots_of(
    manifest: Manifest, key: str, targets: Sequence[Target], expect: Fingerprint | None
) -> list[int]:
    """
    Row of the root of each target's tree.

    Raises:
        CorruptObject: The manifest is that of another key.

        Miss: It is not of the fingerprint that is expected, or lacks a tree.
    """
    summary = manifest.summary
    if summary.key != key:
        raise CorruptObject(manifest_name(key), f"it says that it is {summary.key}")
    if expect is not None and summary.fingerprint.digest != expect.digest:
        raise Miss(key, "the snapshot of this key was made of other inputs")
    rows = {tree.name: row for row, tree in enumerate(summary.trees)}
    missing = [target.tree for target in targets if target.tree not in rows]
    if missing:
        raise Miss(key, f"the snapshot has no tree {', '.join(missing)}")
    return [rows[target.tree] for target in targets]


def rows_below(manifest: Manifest, roots: Sequence[int]) -> bytearray:
    """One byte an entry, 1 if it belongs to one of the trees with *roots*."""
    entries = manifest.entries
    marks = bytearray(len(entries))
    for root in roots:
        marks[root] = 1
    for row, parent in enumerate(entries.parent):
        marks[row] = marks[parent]
    return marks
