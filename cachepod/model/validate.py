"""Whether a manifest that was read can be believed; nothing on a volume is trusted."""

from __future__ import annotations

import operator
from array import array
from itertools import chain, count

from cachepod.model.layout import CHUNK_SIZE, KIB, MAX_DEPTH, MAX_FILE_SIZE
from cachepod.model.names import STATE_NAME, is_pack_id
from cachepod.model.summary import Summary
from cachepod.model.tables import Chunks, Encoding, Entries, Extents, Kind, PackInfo

#: Of the value of an extended attribute; Linux allows no more (xattr(7)).
_LONGEST_ATTRIBUTE = 64 * KIB


def find_problem(
    summary: Summary,
    entries: Entries,
    extents: Extents,
    chunks: Chunks,
    packs: tuple[PackInfo, ...],
) -> str:
    """
    What is wrong with a manifest that was read; empty if nothing is.

    After this, rows may be used as indices and sizes be allocated without looking again. The
    checks run over whole columns, a million entries in about a second.
    """
    return (
        _find_entry_problem(summary, entries)
        or _find_name_problem(entries)
        or _find_shape_problem(summary, entries)
        or find_chunk_problem(chunks, packs)
        or _find_extent_problem(entries, extents, chunks)
    )


def _find_entry_problem(summary: Summary, entries: Entries) -> str:
    total, trees = len(entries), len(summary.trees)
    columns = (
        entries.parent,
        entries.mode,
        entries.mtime,
        entries.size,
        entries.owner,
        entries.flags,
        entries.names,
    )
    if any(len(column) != total for column in columns):
        return "its entries' columns differ in length"
    if not 0 < trees <= total or len({tree.name for tree in summary.trees}) != trees:
        return "its trees do not fit its entries"
    if max(entries.kind) > Kind.HARDLINK:
        return "it has an entry of an unknown kind"
    parent = entries.parent
    if list(parent[:trees]) != list(range(trees)):
        return "its roots are not where they must be"
    if not all(map(operator.lt, parent[trees:], count(trees))):
        return "an entry comes before its directory"
    if not all(map(operator.le, parent[trees:], parent[trees + 1 :])):
        return "its entries are not in order"
    kind = entries.kind
    if any(kind[row] != Kind.DIRECTORY for row in set(parent)):
        return "an entry lies in what is not a directory"
    if max(entries.owner, default=0) > len(summary.distributions):
        return "an entry belongs to an unknown distribution"
    for row, (what, size) in enumerate(zip(kind, entries.size, strict=True)):
        if what == Kind.FILE:
            if size > MAX_FILE_SIZE:
                return f"a file claims {size} bytes"
        elif what == Kind.SYMLINK:
            if size >= len(entries.targets):
                return "a symlink has no target"
        elif what == Kind.HARDLINK and (size >= row or kind[size] != Kind.FILE):
            return "a hard link is not another name of a file"
    if any(not 0 < length < 4096 for length in entries.targets.lengths):
        return "a symlink's target is empty or too long"
    if b"\0" in entries.targets.data:
        return "a symlink's target holds a NUL"
    for row, name, value in entries.xattrs:
        if row >= total:
            return "an extended attribute belongs to no entry"
        if not 0 < len(name) <= 255 or b"\0" in name or len(value) > _LONGEST_ATTRIBUTE:
            return "an extended attribute has an impossible name or size"
    return ""


def _find_name_problem(entries: Entries) -> str:
    names, parent = entries.names, entries.parent
    if b"/" in names.data or b"\0" in names.data:
        return "a name holds a slash or a NUL"
    previous, above = b"", -1
    for row, (name, directory) in enumerate(zip(names, parent, strict=True)):
        if directory == row:
            if name:
                return "a root has a name"
            continue
        if not 0 < len(name) <= 255 or name == b"." or name == b"..":
            return f"{name!r} is not a name"
        if name == STATE_NAME and parent[directory] == directory:
            # What a restore writes there must not go through a link of the snapshot's.
            return "an entry stands where cachepod keeps the state of a tree"
        if directory == above and name <= previous:
            return "its names are not in order"
        previous, above = name, directory
    return ""


def _find_shape_problem(summary: Summary, entries: Entries) -> str:
    """After names and parents were checked."""
    depth: dict[int, int] = {}
    for row, (kind, parent) in enumerate(zip(entries.kind, entries.parent, strict=True)):
        if kind == Kind.DIRECTORY:
            level = depth[row] = depth[parent] + 1 if parent != row else 0
            if level > MAX_DEPTH:
                return "its directories are nested too deep"
    if len(summary.trees) > 1:
        tree: array[int] = array("I", bytes(4 * len(entries)))
        for row, (kind, parent, size) in enumerate(
            zip(entries.kind, entries.parent, entries.size, strict=True)
        ):
            tree[row] = tree[parent] if parent != row else row
            if kind == Kind.HARDLINK and tree[size] != tree[row]:
                return "a hard link leads from one tree to another"
    return ""


def find_chunk_problem(chunks: Chunks, packs: tuple[PackInfo, ...]) -> str:
    """What is wrong with the chunks alone; empty if nothing is."""
    total = len(chunks)
    columns = (chunks.offset, chunks.stored, chunks.raw, chunks.encoding)
    if any(len(column) != total for column in columns):
        return "its chunks' columns differ in length"
    if len(chunks.ids) != 32 * total or len(chunks.checks) != 16 * total:
        return "its chunks' ids are not complete"
    if any(not is_pack_id(pack.id) for pack in packs):
        return "a pack's id is none"
    if not total:
        return ""
    if max(chunks.pack) >= len(packs):
        return "a chunk lies in an unknown pack"
    if max(chunks.encoding) > Encoding.ZSTD:
        return "a chunk has an unknown encoding"
    if max(chunks.raw) > CHUNK_SIZE or min(chunks.raw) < 1:
        return "a chunk claims an impossible size"
    for pack, offset, stored, raw, encoding in zip(
        chunks.pack, chunks.offset, chunks.stored, chunks.raw, chunks.encoding, strict=True
    ):
        if not 0 < stored <= raw or (encoding == Encoding.RAW and stored != raw):
            return "a chunk is stored in an impossible size"
        if offset + stored > packs[pack].size:
            return "a chunk ends after its pack"
    return ""


def _find_extent_problem(entries: Entries, extents: Extents, chunks: Chunks) -> str:
    total = len(extents)
    if any(len(column) != total for column in (extents.offset, extents.length, extents.start)):
        return "its extents' columns differ in length"
    first = extents.first
    if len(first) != len(chunks) + 1 or first[0] != 0 or first[-1] != total:
        return "its extents do not fit its chunks"
    if not all(map(operator.le, first, first[1:])):
        return "its extents are not in order"
    if not total:
        return ""
    if max(extents.entry) >= len(entries):
        return "an extent belongs to no entry"
    if set(map(entries.kind.__getitem__, extents.entry)) != {Kind.FILE}:
        return "an extent belongs to what is not a file"
    ends = map(operator.add, extents.offset, extents.length)
    if not all(map(operator.le, ends, map(entries.size.__getitem__, extents.entry))):
        return "an extent ends after its file"
    if min(extents.length) < 1:
        return "an extent is empty"
    if _overlap(entries, extents):
        return "a file's extents overlap"
    raws = chain.from_iterable(
        (raw,) * (first[row + 1] - first[row]) for row, raw in enumerate(chunks.raw)
    )
    if not all(map(operator.le, map(operator.add, extents.start, extents.length), raws)):
        return "an extent ends after its chunk"
    return ""


def _overlap(entries: Entries, extents: Extents) -> bool:
    """Whether two extents cover the same byte of a file; each ends within its file."""
    sizes = entries.size
    whole = bytearray(len(entries))
    parts: list[tuple[int, int, int]] = []
    for row, offset, length in zip(extents.entry, extents.offset, extents.length, strict=True):
        if length != sizes[row]:
            parts.append((row, offset, offset + length))
        elif whole[row]:
            return True
        else:
            whole[row] = 1
    parts.sort()
    last, reached = -1, 0
    for row, begin, end in parts:
        if whole[row] or (row == last and begin < reached):
            return True
        last, reached = row, end
    return False
