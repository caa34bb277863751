"""
What a copy between two stores will move, computed before it moves anything.

Of a snapshot that the destination has, nothing is moved but packs that are missing there, or that
are known to be damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cachepod.errors import CorruptObject, Miss, NewerFormat, ObjectMissing, Untrusted
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import HEADER, ChunkTable, Manifest
from cachepod.model.names import MANIFESTS, check_key, manifest_name, pack_name
from cachepod.model.tables import PackInfo
from cachepod.snapshot.chunks import ChunkAt
from cachepod.snapshot.damage import Problem
from cachepod.snapshot.packing import damaged_packs
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.signing import Trusting
from cachepod.snapshot.workers import together
from cachepod.stores.base import Store

_LOOKING = 4  # threads that ask a store, at least; each only waits for an answer


@dataclass
class Candidate:
    """
    A snapshot of the source.

    Args:
        key: Its key.

        head: The first bytes of its manifest, with the digest.

        size: Of the manifest, in bytes.

        packs: That it needs.

        outcome: ``copied``, or ``replaced`` where there is another one under the key: to be
            brought. ``present``: the destination has it; ``healed``: but for some of its packs.
            ``kept``: the destination has another one under this key, which stays. ``damaged`` in
            the source, or ``skipped`` for its later format: cannot be brought. ``busy``: not now,
            for a prune of the destination is at packs that it needs.

        why: Of the last three, in words.
    """

    key: str
    head: bytes = b""
    size: int = 0
    packs: tuple[PackInfo, ...] = ()
    outcome: str = "copied"
    why: str = ""

    @property
    def wanted(self) -> bool:
        """Whether the destination is to have all of its packs."""
        return self.outcome in ("copied", "replaced", "present", "healed")

    @property
    def uncommitted(self) -> bool:
        """Whether its manifest is to be written."""
        return self.outcome in ("copied", "replaced")


@dataclass
class PackPlan:
    """
    A pack of the source that a wanted snapshot needs.

    Args:
        size: In bytes, as manifests have it.

        chunks: By their offset, those that manifests name.

        keys: Places of the snapshots that need it.

        over: Something lies under its name in the destination and is to be replaced.
    """

    size: int
    chunks: dict[int, ChunkAt] = field(default_factory=dict)
    keys: list[int] = field(default_factory=list)
    over: bool = False


@dataclass
class CopyPlan:
    """
    Args:
        snapshots: Of the source, in the order in which they are brought.

        packs: All that the wanted ones need, by id.

        moved: Ids of those to be moved, in order.
    """

    snapshots: list[Candidate]
    packs: dict[str, PackPlan]
    moved: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of packs to be moved."""
        return sum(self.packs[pack].size for pack in self.moved)

    @property
    def there(self) -> int:
        """Bytes of packs that need not be moved."""
        return sum(each.size for each in self.packs.values()) - self.size

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.moved and not any(each.uncommitted for each in self.snapshots)

    @property
    def problems(self) -> list[Problem]:
        """Manifests of the source that are damaged."""
        return [
            Problem(manifest_name(each.key), each.why, (each.key,))
            for each in self.snapshots
            if each.outcome == "damaged"
        ]


def plan_copy(
    source: Store,
    destination: Store,
    keys: Sequence[str] | None = None,
    *,
    force: bool = False,
    deep: bool = False,
    progress: Progress | None = None,
) -> CopyPlan:
    """
    Plan to bring *keys*, or all that *source* has.

    Args:
        force: Also replace what the destination has under a key and is another snapshot.

        deep: Read the destination's manifests whole, to see whether they are damaged.

        progress: Told that something moves, at every answer of a store.

    Raises:
        Miss: The source has no snapshot of a key that was named, or one of a later format.

        StoreUnreachable: One of the two.
    """
    told = progress or NoProgress()
    named = keys is not None
    if keys is None:
        keys = sorted(_listed(source))
    keys = [check_key(key) for key in dict.fromkeys(keys)]
    plan = CopyPlan([], {})
    threads = max(_LOOKING, source.parallel_reads)
    for found, table in together(lambda key: _read(source, key, named), keys, threads):
        told.advance(0, 0)
        if found is not None:
            plan.snapshots.append(found)
            if table is not None:
                _take_in(plan, len(plan.snapshots) - 1, table)
    threads = max(_LOOKING, destination.parallel_reads)

    def compared(each: Candidate) -> str:
        return compare(destination, each, force=force, deep=deep)

    able = [each for each in plan.snapshots if each.wanted]
    for each, outcome in zip(
        able,
        together(compared, able, threads),
        strict=True,
    ):
        told.advance(0, 0)
        each.outcome = outcome
    for pack in list(plan.packs):
        if not any(plan.snapshots[place].wanted for place in plan.packs[pack].keys):
            del plan.packs[pack]
    look_at_packs(plan, destination, told)
    return plan


def look_at_packs(plan: CopyPlan, destination: Store, told: Progress) -> None:
    """
    Find out which packs are to be moved.

    Raises:
        StoreUnreachable: That cannot be found out.
    """
    marked = damaged_packs(destination)

    def look(pack: str) -> str:
        try:
            whole = destination.size(pack_name(pack)) == plan.packs[pack].size
        except ObjectMissing:
            return "missing"
        except CorruptObject:
            whole = False
        return "there" if whole and pack not in marked else "over"

    threads = max(_LOOKING, destination.parallel_reads)
    plan.moved.clear()
    for pack, state in zip(plan.packs, together(look, list(plan.packs), threads), strict=True):
        told.advance(0, 0)
        plan.packs[pack].over = state == "over"
        if state != "there":
            plan.moved.append(pack)
    hurt = {place for pack in plan.moved for place in plan.packs[pack].keys}
    for place, each in enumerate(plan.snapshots):
        if each.outcome in ("present", "healed"):
            each.outcome = "healed" if place in hurt else "present"


def read_checked(source: Store, key: str) -> tuple[bytes, ChunkTable]:
    """
    The manifest of *key*, byte for byte, and its chunks.

    Raises:
        Miss: There is none, or it is of a later format.

        CorruptObject: It is damaged, or that of another key.
    """
    name = manifest_name(key)
    for last in (False, True):
        try:
            data = source.read(name, limit=MAX_MANIFEST_SIZE)
            table = ChunkTable.decode(data, name=name)
            found = Manifest.decode_summary(data, name=name).key
            if found != key:
                raise CorruptObject(name, f"it is the manifest of {found}")
            return data, table
        except ObjectMissing as error:
            raise Miss(key) from error
        except CorruptObject:
            if last:  # a wrong byte on the way is not a wrong byte in the store
                raise
    raise AssertionError("unreachable")


def _listed(source: Store) -> Iterator[str]:
    for info in source.list(MANIFESTS):
        key = info.name.rpartition("/")[2]
        if manifest_name(key) == info.name:
            yield key


def _read(source: Store, key: str, named: bool) -> tuple[Candidate | None, ChunkTable | None]:
    try:
        data, table = read_checked(source, key)
    except (NewerFormat, Untrusted) as error:
        if named:
            raise
        return Candidate(key, outcome="skipped", why=error.why), None
    except Miss as error:
        if named:
            raise Miss(key, hint=f"cachepod ls --store {source.url} lists its keys") from error
        return None, None  # it vanished since the listing
    except CorruptObject as error:
        return Candidate(key, outcome="damaged", why=error.why), None
    return Candidate(key, data[: HEADER.size], len(data), table.packs), table


def _take_in(plan: CopyPlan, place: int, table: ChunkTable) -> None:
    """Note what a snapshot says of its packs; one that contradicts those before it is damaged."""
    chunks, infos = table.chunks, table.packs
    packs = [plan.packs.setdefault(info.id, PackPlan(info.size)) for info in infos]
    problem = any(pack.size != info.size for pack, info in zip(packs, infos, strict=True))
    known = [pack.chunks for pack in packs]
    # A thousand snapshots may name millions of chunks, so this is spelled out.
    ids = [chunks.ids[at : at + 32] for at in range(0, len(chunks.ids), 32)]
    checks = [chunks.checks[at : at + 16] for at in range(0, len(chunks.checks), 16)]
    for row, (pack, offset, identity, check) in enumerate(
        zip(chunks.pack, chunks.offset, ids, checks, strict=True)
    ):
        chunk = known[pack].get(offset)
        if chunk is None:
            known[pack][offset] = ChunkAt.of(chunks, row)
        elif chunk[5] != check or chunk[4] != identity:
            problem = True
    if problem:
        snapshot = plan.snapshots[place]
        snapshot.outcome = "damaged"
        snapshot.why = "it says something else of a pack than another snapshot does"
        return
    for each in packs:
        each.keys.append(place)


def compare(
    destination: Store, snapshot: Candidate, *, force: bool = False, deep: bool = False
) -> str:
    """
    What is to become of *snapshot*, by what the destination has under its key.

    Args:
        force: Replace another snapshot.

        deep: Believe a manifest only after it was read whole. So is one that must be signed: two
            that say the same may be signed by different keys.
    """
    name = manifest_name(snapshot.key)
    head = bytearray(HEADER.size)
    try:
        if destination.size(name) == snapshot.size:
            destination.read_range(name, 0, memoryview(head))
            if head == snapshot.head and not deep and not isinstance(destination, Trusting):
                return "present"
        data, _ = read_checked(destination, snapshot.key)
        if data[: HEADER.size] == snapshot.head and len(data) == snapshot.size:
            return "present"
    except NewerFormat:
        pass
    except (CorruptObject, Untrusted):
        return "replaced"
    except (ObjectMissing, Miss):
        return "copied"
    return "replaced" if force else "kept"
