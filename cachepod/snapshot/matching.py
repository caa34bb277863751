"""Which row of one snapshot is which row of another: the same path, found without paths."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from cachepod.model.tables import Entries, Kind

NONE = -1


def first_children(entries: Entries) -> dict[int, tuple[int, int]]:
    """Row of each directory that is not empty to the range of its children's rows."""
    ranges: dict[int, tuple[int, int]] = {}
    parent = entries.parent
    total = len(parent)
    row = 0
    while row < total and parent[row] == row:
        row += 1
    while row < total:
        above, begin = parent[row], row
        while row < total and parent[row] == above:
            row += 1
        ranges[above] = (begin, row)
    return ranges


def match(new: Entries, old: Entries, roots: Mapping[int, int]) -> array[int]:
    """
    For each row of *new* the row of *old* with the same path, or -1.

    Args:
        roots: Row of a tree's root in *new* to that of the same tree in *old*.
    """
    matched: array[int] = array("q", [NONE]) * len(new)
    old_children, new_children = first_children(old), first_children(new)
    for row, root in roots.items():
        matched[row] = root
    old_names, new_names = old.names, new.names
    for row, (begin, end) in new_children.items():
        other = matched[row]
        if other == NONE or old.kind[other] != Kind.DIRECTORY:
            continue
        at, stop = old_children.get(other, (0, 0))
        for child in range(begin, end):
            name = new_names[child]
            while at < stop and old_names[at] < name:
                at += 1
            if at == stop:
                break
            if old_names[at] == name:
                matched[child] = at
                at += 1
    return matched
