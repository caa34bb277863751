"""
What a store holds and what it has been good for, in figures.

Only the beginning of each manifest is read, and two listings: what no snapshot needs any more is
not found out here, but by a prune.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cachepod.errors import CachepodError
from cachepod.model.names import MANIFESTS, PACKS, is_pack_id
from cachepod.model.summary import Summary
from cachepod.snapshot.catalog import summaries
from cachepod.snapshot.uses import Tally, read_uses
from cachepod.stores.base import Store


@dataclass(frozen=True)
class StoreStats:
    """
    Figures of one store; sizes are in bytes.

    Args:
        store: Its URL.

        snapshots: Those that can be read.

        unreadable: Key of each other one to why it cannot be read.

        size: Plain bytes of all snapshots, as if each stood for itself.

        needed: Compressed bytes that they need, likewise: what several share counts for each.

        packs: Number of packs.

        stored: Their bytes, what no snapshot needs included.

        described: Bytes of the manifests.

        use: What is recorded of all keys.

        keys: What is recorded of each.
    """

    store: str
    snapshots: tuple[Summary, ...]
    unreadable: dict[str, str]
    size: int
    needed: int
    packs: int
    stored: int
    described: int
    use: Tally
    keys: dict[str, Tally] = field(default_factory=dict)

    @property
    def compression(self) -> float:
        """How many plain bytes one compressed byte stands for; 0 where there is nothing."""
        return self.size / self.needed if self.needed else 0.0

    @property
    def sharing(self) -> float:
        """
        How many snapshots need a stored byte, on average; 0 where there is nothing.

        Below 1 where packs lie around that nothing needs.
        """
        return self.needed / self.stored if self.stored else 0.0

    @property
    def hit_rate(self) -> float | None:
        """Share of those who asked that found what they asked for; None where nobody asked."""
        asked = self.use.hits + self.use.partials + self.use.misses
        return self.use.hits / asked if asked else None


def stats(store: Store) -> StoreStats:
    """
    The figures of *store*.

    Raises:
        StoreUnreachable: It cannot be listed.
    """
    unreadable: dict[str, str] = {}

    def skip(key: str, error: CachepodError) -> None:
        unreadable[key] = getattr(error, "why", "") or error.message

    found = tuple(summaries(store, on_error=skip))
    packs = [info.size for info in store.list(PACKS) if is_pack_id(info.name.rpartition("/")[2])]
    uses = read_uses(store)
    return StoreStats(
        store=store.url,
        snapshots=found,
        unreadable=unreadable,
        size=sum(each.size for each in found),
        needed=sum(each.stored for each in found),
        packs=len(packs),
        stored=sum(packs),
        described=sum(info.size for info in store.list(MANIFESTS)),
        use=uses.total,
        keys=uses.tallies,
    )
