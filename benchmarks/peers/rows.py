"""What was measured of each peer, in the form in which a result keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import measure
from benchmarks.measure import Cost

OURS = "cachepod"


@dataclass
class Row:
    """
    The runs of one peer in one table; the lists have one entry a round.

    Args:
        name: Of the peer.

        blank: Why there are no numbers, or no more of them; empty if there is no reason.

        seconds: Wall time of the command; 0 where nothing has to be run.

        cpu: CPU seconds of it.

        resident: The most resident bytes of its processes together.

        imports: Wall time of the import that followed.

        warm: Wall time of the same import once more, of a peer that is used where it lies.

        stored: Bytes that it stored; of a publish only.

        note: What a reader must know, such as what it does not bring back.
    """

    name: str
    blank: str = ""
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    imports: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    note: str = ""

    def add(self, cost: Cost | None, imported: Cost | None = None) -> None:
        """One round: what the command took, None if there was none, and what the import took."""
        self.seconds.append(cost.seconds if cost else 0.0)
        self.cpu.append(cost.cpu if cost else 0.0)
        self.resident.append(cost.resident if cost else 0)
        if imported:
            self.imports.append(imported.seconds)

    @property
    def totals(self) -> list[float]:
        """Wall time of each round, with its import where there was one."""
        if not self.imports:
            return self.seconds
        return [own + after for own, after in zip(self.seconds, self.imports, strict=True)]

    @property
    def total(self) -> float:
        """The median of them; NaN if there are none."""
        return measure.median(self.totals)

    @property
    def ran(self) -> bool:
        """Whether there are numbers."""
        return bool(self.seconds)


@dataclass
class Found:
    """
    Everything that one source gave.

    Args:
        kind: What the source is, in words.

        missing: Why there is no such source here.

        cache: What was done with the page cache before each run, in words.

        synced: Whether the time of a publish includes a sync.

        changed: What was changed before the second publishes.
    """

    kind: str = ""
    missing: str = ""
    cache: str = ""
    synced: bool = False
    changed: str = ""
    restore: list[Row] = field(default_factory=list)
    publish: list[Row] = field(default_factory=list)
    again: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Found:
        """Out of the samples of a result."""
        sides = ("restore", "publish", "again")
        rows = {side: [Row(**row) for row in document[side]] for side in sides}
        return cls(**{**document, **rows})

    def as_json(self) -> dict[str, Any]:
        """For the samples of a result."""
        return asdict(self)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """cachepod first, the others by their medians, those without numbers last."""
    return sorted(
        rows, key=lambda row: (row.name != OURS, not row.ran, row.total if row.ran else 0)
    )


def reference(rows: Sequence[Row]) -> Row | None:
    """The row that the others are compared with, if it has numbers."""
    return next((row for row in rows if row.name == OURS and row.ran), None)
