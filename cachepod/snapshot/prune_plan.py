"""
What a prune will do: which snapshots go and why, and what then is needed by nobody.

Pure: it looks at a census and asks no store. What ``--dry-run`` prints is the object that
:func:`cachepod.snapshot.prune.prune` carries out.

A snapshot that any rule keeps is kept: one that is named; one among the newest of its family; one
that was used lately. Of the others the least recently used go until the store is small enough. Ages
decide only what costs an installation if it is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cachepod.model.names import DAMAGED, NAMED_FAMILY
from cachepod.model.pack import pack_size
from cachepod.snapshot.census import Census, StoredSnapshot, pack_of
from cachepod.stores.base import Leftover, ObjectInfo

#: Seconds after which what nobody renews may be the leftover of a dead holder, and is watched.
LOOKS_DEAD = 600.0
#: Seconds after which an unfinished object of a writer is removed.
ABANDONED = 3600.0


@dataclass(frozen=True)
class Policy:
    """
    Which snapshots to drop; without any rule, none.

    Args:
        keep_last: The newest so many of each family stay. It says nothing of keys that a user has
            named: they are no versions of one thing, and no install makes them anew.

        max_age: Those used within so many seconds stay; with either of these two rules, the
            others go.

        max_size: Bytes that the store may have afterwards.

        keep: Keys that stay whatever the other rules say.
    """

    keep_last: int | None = None
    max_age: float | None = None
    max_size: int | None = None
    keep: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """
    What becomes of one snapshot, and why in words.

    Args:
        used: When it was last used, in seconds since 1970.

        needs: Bytes of the packs that it needs.

        exclusive: Bytes of those packs that no other snapshot needs.
    """

    snapshot: StoredSnapshot
    kept: bool
    why: str
    used: float
    needs: int
    exclusive: int


@dataclass(frozen=True)
class PlannedPack:
    """
    A pack that nobody needs as it is.

    Args:
        id: In hex.

        size: In bytes.

        after: Bytes that its live chunks take when they are written anew; 0 for a pack that is
            deleted.

        pinned: Somebody relies on it, or did until he died: the pins tell when they have been
            watched for a while.

        damaged: A mark says so, which goes with it.
    """

    id: str
    size: int
    after: int = 0
    pinned: bool = False
    damaged: bool = False


@dataclass(frozen=True)
class Plan:
    """
    All that a prune will do.

    Args:
        url: Of the store.

        verdicts: Of every snapshot, the most recently used first.

        deleted: Packs that nobody needs, once the snapshots are dropped.

        rewritten: Packs that are mostly dead, whose live chunks go into new ones.

        kept_packs: How many packs stay, and so many bytes they have.

        swept: Objects that nobody can rely on: what lies in the trash, and such.

        watched: Objects whose holder may be dead: deleted if nothing changes them meanwhile.

        leftovers: Of writers that died.

        missing: Packs that snapshots need and that are not there.

        over: Bytes by which the store stays above what the policy allows.

        absent: Keys that the policy names and the store has not.
    """

    url: str
    verdicts: tuple[Verdict, ...]
    deleted: tuple[PlannedPack, ...] = ()
    rewritten: tuple[PlannedPack, ...] = ()
    kept_packs: tuple[int, int] = (0, 0)
    swept: tuple[ObjectInfo, ...] = ()
    watched: tuple[ObjectInfo, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    missing: tuple[str, ...] = ()
    over: int = 0
    absent: tuple[str, ...] = ()
    census: Census | None = field(default=None, repr=False, compare=False)

    @property
    def dropped(self) -> list[Verdict]:
        """The snapshots that go."""
        return [verdict for verdict in self.verdicts if not verdict.kept]

    @property
    def drops_all(self) -> bool:
        """Whether no snapshot would be left of those there are."""
        return bool(self.verdicts) and not any(verdict.kept for verdict in self.verdicts)

    @property
    def freed(self) -> int:
        """Bytes that the store will have less, if nobody comes to need what is to be deleted."""
        return (
            sum(pack.size for pack in self.deleted if not pack.pinned)
            + sum(pack.size - pack.after for pack in self.rewritten)
            + sum(verdict.snapshot.size for verdict in self.dropped)
            + sum(info.size for info in self.swept)
            + sum(leftover.size for leftover in self.leftovers)
        )

    @property
    def pinned(self) -> int:
        """Bytes that will be freed besides, if those who pinned them are dead."""
        return sum(pack.size for pack in self.deleted if pack.pinned)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.dropped
            or self.deleted
            or self.rewritten
            or self.swept
            or self.watched
            or self.leftovers
        )


def make_plan(
    census: Census,
    policy: Policy,
    now: float,
    *,
    used: Mapping[str, float] | None = None,
    litter: Litter | None = None,
    fixed: frozenset[str] = frozenset(),
) -> Plan:
    """
    The plan of a prune.

    Args:
        now: Seconds since 1970.

        used: Of each key when it was last used; one without a record is taken to have been
            used when its manifest was written.

        litter: What else lies in the store.

        fixed: Names of manifests that cannot be written anew, for they are signed with a key that
            is not at hand.
    """
    litter = litter or Litter()
    last = {
        each.name: max(each.modified, (used or {}).get(each.key, 0.0)) for each in census.snapshots
    }
    fates, over = _judge(census, policy, now, last)
    kept = [each for each in census.snapshots if fates[each.name].kept]
    needed: set[int] = set().union(*(each.packs for each in kept)) if kept else set()
    rewritten = _mostly_dead(census, kept, fixed)
    deleted = [number for number in census.listed if number not in needed]
    users = Counter(number for each in census.snapshots for number in each.packs)
    verdicts = [
        Verdict(
            each,
            fates[each.name].kept,
            fates[each.name].why,
            last[each.name],
            needs=sum(census.listed.get(number, 0) for number in each.packs),
            exclusive=sum(
                census.listed.get(number, 0) for number in each.packs if users[number] == 1
            ),
        )
        for each in census.snapshots
    ]
    verdicts.sort(key=lambda verdict: (-verdict.used, verdict.snapshot.name))
    staying = [number for number in census.listed if number in needed and number not in rewritten]
    keys = {each.key for each in census.snapshots}
    damaged = {mark.name.removeprefix(f"{DAMAGED}/") for mark in litter.damaged}
    return Plan(
        url=census.url,
        verdicts=tuple(verdicts),
        deleted=tuple(
            PlannedPack(
                census.ids[number],
                census.listed[number],
                pinned=_is_pinned(census, census.ids[number]),
                damaged=census.ids[number] in damaged,
            )
            for number in deleted
        ),
        rewritten=tuple(
            PlannedPack(
                census.ids[number],
                census.listed[number],
                after,
                damaged=census.ids[number] in damaged,
            )
            for number, after in rewritten.items()
        ),
        kept_packs=(len(staying), sum(census.listed[number] for number in staying)),
        swept=tuple(litter.swept(census)),
        watched=tuple(info for info in litter.held if now - info.modified > LOOKS_DEAD),
        leftovers=tuple(
            each
            for each in litter.leftovers
            if each.age > ABANDONED and not _is_pinned(census, each.name)
        ),
        missing=tuple(sorted(census.ids[number] for number in census.missing())),
        over=over,
        absent=tuple(sorted(policy.keep - keys)),
        census=census,
    )


@dataclass(frozen=True)
class Litter:
    """
    What lies in a store beside snapshots and packs.

    Args:
        unneeded: What nobody can rely on: the trash, old records of use.

        damaged: Marks of packs that were found damaged; those of packs that are gone have no use.

        held: What holders renew while they live, or is on its way to another place.

        leftovers: Unfinished objects.
    """

    unneeded: Sequence[ObjectInfo] = ()
    damaged: Sequence[ObjectInfo] = ()
    held: Sequence[ObjectInfo] = ()
    leftovers: Sequence[Leftover] = ()

    def swept(self, census: Census) -> Iterable[ObjectInfo]:
        """What nothing is lost with."""
        yield from self.unneeded
        there = {census.ids[number] for number in census.listed}
        for mark in self.damaged:
            if mark.name.removeprefix(f"{DAMAGED}/") not in there:
                yield mark


def _is_pinned(census: Census, name: str) -> bool:
    return any(pin.protects(name) for pin in census.pins)


@dataclass
class _Fate:
    kept: bool
    why: str
    firm: bool  # no rule about the size of the store can change it


def _judge(
    census: Census, policy: Policy, now: float, used: Mapping[str, float]
) -> tuple[dict[str, _Fate], int]:
    fates: dict[str, _Fate] = {}
    families: dict[str, list[StoredSnapshot]] = {}
    for each in census.snapshots:
        if each.key:
            families.setdefault(each.family, []).append(each)
        else:
            # Nobody finds it, but somebody put it there, and its packs are not ours to take.
            fates[each.name] = _Fate(True, "its name is not that of its key", firm=True)
    for members in families.values():
        members.sort(key=lambda each: (-each.created, -each.modified, each.key))
        for rank, each in enumerate(members):
            fates[each.name] = _fate(each, rank, policy, now - used[each.name])
    over = 0
    if policy.max_size is not None:
        over = _shrink(census, fates, policy.max_size, used)
    return fates, over


def _fate(each: StoredSnapshot, rank: int, policy: Policy, age: float) -> _Fate:
    last, longest = policy.keep_last, policy.max_age
    if each.family == NAMED_FAMILY:
        last = None
    if each.key in policy.keep:
        return _Fate(True, "named to be kept", firm=True)
    if last is not None and rank < last:
        why = "the newest of its family" if last == 1 else f"among the newest {last} of its family"
        return _Fate(True, why, firm=True)
    if longest is not None and age <= longest:
        return _Fate(True, "used lately", firm=False)
    if last is None and longest is None:
        return _Fate(True, "no rule drops it", firm=False)
    reasons = []
    if last is not None:
        reasons.append(
            f"not among the newest {last} of its family"
            if last > 1
            else "not the newest of its family"
            if last
            else "none of its family is kept"
        )
    if longest is not None:
        reasons.append("not used for too long")
    return _Fate(False, ", ".join(reasons), firm=False)


def _shrink(census: Census, fates: dict[str, _Fate], most: int, used: Mapping[str, float]) -> int:
    """Drop the least recently used until what is needed has *most* bytes; how many it has more."""
    kept = [each for each in census.snapshots if fates[each.name].kept]
    users = Counter(number for each in kept for number in each.packs)
    total = sum(census.listed.get(number, 0) for number in users)
    total += sum(each.size for each in kept)
    for each in sorted(kept, key=lambda each: (used[each.name], each.name)):
        if total <= most:
            break
        if fates[each.name].firm:
            continue
        fates[each.name] = _Fate(
            False, "least recently used, and the store is too large", firm=False
        )
        total -= each.size
        for number in each.packs:
            users[number] -= 1
            if not users[number]:
                total -= census.listed.get(number, 0)
    return max(0, total - most)


def _mostly_dead(
    census: Census, kept: Sequence[StoredSnapshot], fixed: frozenset[str]
) -> dict[int, int]:
    """
    The packs that it pays to write anew, and the bytes that each will then take.

    It pays if more is freed than must be written for it: the live chunks, and the manifests of the
    snapshots that need them. So more than half of the pack is dead.
    """
    stored = census.stored
    live: Counter[int] = Counter()
    chunks: Counter[int] = Counter()
    needed: set[int] = set()
    for chunk in needed.union(*(each.chunks for each in kept)):
        live[pack_of(chunk)] += stored[chunk]
        chunks[pack_of(chunk)] += 1
    manifests: Counter[int] = Counter()
    out_of_reach: set[int] = set()
    for each in kept:
        for number in each.packs:
            manifests[number] += each.size
        if each.name in fixed or not each.key:
            out_of_reach |= each.packs
    found = {}
    for number, size in live.items():
        there = census.listed.get(number)
        if there is None or number in out_of_reach:
            continue
        after = pack_size(chunks[number], size)
        dead = there - after
        if dead > after + manifests[number]:
            found[number] = after
    return found
