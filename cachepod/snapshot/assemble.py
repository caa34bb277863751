"""What a publish has stored, as the manifest that makes it a snapshot."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence

from cachepod.model.manifest import Manifest
from cachepod.model.summary import Summary
from cachepod.model.tables import Chunks, Extents, Kind, PackInfo
from cachepod.snapshot.packing import Place
from cachepod.snapshot.reading import Task
from cachepod.snapshot.scan import Scan


def assemble(
    found: Scan,
    tasks: Sequence[Task],
    places: Sequence[Sequence[Place]],
    pack_sizes: Mapping[str, int],
    summary: Callable[..., Summary],
) -> Manifest:
    """
    The manifest of what was stored.

    Args:
        found: The trees.

        tasks: What was read, in the order in which the manifest lists it.

        places: Of each task, where its chunks lie.

        pack_sizes: Bytes of each pack that one of them lies in.

        summary: All of the summary but ``files``, ``size`` and ``stored``.
    """
    rows: dict[bytes, int] = {}
    distinct: list[Place] = []
    uses: list[list[tuple[Task, int]]] = []
    for task, stored in zip(tasks, places, strict=True):
        for chunk, place in enumerate(stored):
            row = rows.setdefault(place.id, len(distinct))
            if row == len(distinct):
                distinct.append(place)
                uses.append([])
            uses[row].append((task, chunk))
    packs = dict.fromkeys(place.pack for place in distinct)
    order = {pack: number for number, pack in enumerate(packs)}
    entries = found.entries
    return Manifest(
        summary=summary(
            files=sum(1 for kind in entries.kind if kind in (Kind.FILE, Kind.HARDLINK)),
            size=sum(
                size
                for kind, size in zip(entries.kind, entries.size, strict=True)
                if kind == Kind.FILE
            ),
            stored=sum(place.stored for place in distinct),
        ),
        entries=entries,
        extents=_extents(found, uses),
        chunks=Chunks(
            pack=array("I", (order[place.pack] for place in distinct)),
            offset=array("I", (place.offset for place in distinct)),
            stored=array("I", (place.stored for place in distinct)),
            raw=array("I", (place.raw for place in distinct)),
            encoding=array("B", (place.encoding for place in distinct)),
            ids=b"".join(place.id for place in distinct),
            checks=b"".join(place.check for place in distinct),
        ),
        packs=tuple(PackInfo(pack, pack_sizes[pack]) for pack in packs),
    )


def _extents(found: Scan, uses: Sequence[Sequence[tuple[Task, int]]]) -> Extents:
    """Chunk by chunk, where its bytes go; a chunk that comes twice has two uses."""
    extents = Extents(array("I"), array("I"), array("Q"), array("I"), array("I"))
    for chunk in uses:
        extents.first.append(len(extents.entry))
        for task, number in chunk:
            position = 0
            for row, offset, length in task.pieces(found, number):
                extents.entry.append(row)
                extents.offset.append(offset)
                extents.length.append(length)
                extents.start.append(position)
                position += length
    extents.first.append(len(extents.entry))
    return extents
