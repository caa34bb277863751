"""The plan of a prune: pure, so any store can be made up."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.model.names import NAMED_FAMILY, family_of, manifest_name
from cachepod.model.pack import pack_size
from cachepod.snapshot.census import Census, StoredSnapshot, chunk_number
from cachepod.snapshot.pins import FoundPin
from cachepod.snapshot.prune_plan import Litter, Plan, Policy, Verdict, make_plan
from cachepod.stores.base import Leftover, ObjectInfo

NOW = 1_800_000_000.0
DAY = 86_400.0
CHUNK = 10_000
MANIFEST = 700
F, G = "cp310-linux_x86_64-cu126-torch2.7.0", "cp311-linux_x86_64-nocuda-notorch"


def key(number: int, family: str = F) -> str:
    return f"{family}-{number:016x}"


def pack(number: int) -> str:
    return f"{number:032x}"


def snapshot(
    name: str,
    chunks: Iterable[tuple[int, int]],
    *,
    age: float = 0.0,
    used: float | None = None,
    size: int = MANIFEST,
    signed: bool = False,
) -> StoredSnapshot:
    """Needs some chunks, each a pack's number and its place there; *age* and *used* in days."""
    chunks = list(chunks)
    return StoredSnapshot(
        name=manifest_name(name),
        key=name,
        digest="d" * 64,
        size=size,
        created=NOW - age * DAY,
        modified=NOW - (age if used is None else used) * DAY,
        signed=signed,
        packs=frozenset(number for number, _ in chunks),
        chunks=array("Q", (chunk_number(number, 8 + place * CHUNK) for number, place in chunks)),
    )


def census(
    snapshots: Iterable[StoredSnapshot], packs: Mapping[int, int], pins: Iterable[FoundPin] = ()
) -> Census:
    """*packs*: number to its chunks; of a pack without chunks nothing is there."""
    snapshots = tuple(snapshots)
    highest = max([-1, *packs, *(number for each in snapshots for number in each.packs)])
    return Census(
        url="memory:",
        ids=tuple(pack(number) for number in range(highest + 1)),
        listed={number: pack_size(chunks, chunks * CHUNK) for number, chunks in packs.items()},
        stored={chunk: CHUNK for each in snapshots for chunk in each.chunks},
        snapshots=snapshots,
        pins=tuple(pins),
    )


def dropped(plan: Plan) -> set[str]:
    return {verdict.snapshot.key for verdict in plan.dropped}


def why(plan: Plan, name: str) -> str:
    return next(each.why for each in plan.verdicts if each.snapshot.key == name)


def plan_of(found: Census, **policy: object) -> Plan:
    return make_plan(found, Policy(**policy), NOW)  # type: ignore[arg-type]


def four(family: str = F) -> list[StoredSnapshot]:
    """Ages of 0, 10, 20 and 30 days, each with a pack of its own."""
    return [snapshot(key(n, family), [(n, 0)], age=10 * n) for n in range(4)]


def test_without_a_rule_no_snapshot_goes() -> None:
    plan = plan_of(census(four(), dict.fromkeys(range(4), 1)))
    assert not plan.dropped
    assert plan.idle
    assert {verdict.why for verdict in plan.verdicts} == {"no rule drops it"}


def test_the_newest_of_each_family_stay() -> None:
    both = [*four(F), *(snapshot(key(9 + n, G), [(n, 0)], age=100 + n) for n in range(2))]
    plan = plan_of(census(both, dict.fromkeys(range(4), 1)), keep_last=1)
    assert dropped(plan) == {key(1), key(2), key(3), key(10, G)}
    assert why(plan, key(0)) == "the newest of its family"
    assert why(plan, key(3)) == "not the newest of its family"


def test_what_was_not_used_for_too_long_goes() -> None:
    found = census(four(), dict.fromkeys(range(4), 1))
    plan = plan_of(found, max_age=15 * DAY)
    assert dropped(plan) == {key(2), key(3)}
    assert why(plan, key(2)) == "not used for too long"
    used = {key(3): NOW - DAY}
    assert dropped(make_plan(found, Policy(max_age=15 * DAY), NOW, used=used)) == {key(2)}


def test_a_snapshot_that_one_rule_keeps_is_kept() -> None:
    found = census(four(), dict.fromkeys(range(4), 1))
    plan = plan_of(found, keep_last=1, max_age=15 * DAY)
    assert dropped(plan) == {key(2), key(3)}
    assert dropped(plan_of(found, keep_last=3, max_age=0.0)) == {key(3)}


def test_a_named_key_stays() -> None:
    found = census(four(), dict.fromkeys(range(4), 1))
    plan = plan_of(found, keep_last=1, max_size=0, keep=frozenset({key(3), "absent"}))
    assert dropped(plan) == {key(1), key(2)}
    assert why(plan, key(3)) == "named to be kept"
    assert plan.absent == ("absent",)


def test_the_least_recently_used_go_until_the_store_is_small_enough() -> None:
    found = census(four(), dict.fromkeys(range(4), 1))
    one = pack_size(1, CHUNK) + MANIFEST
    assert not plan_of(found, max_size=4 * one).dropped
    assert dropped(plan_of(found, max_size=4 * one - 1)) == {key(3)}
    assert dropped(plan_of(found, max_size=2 * one)) == {key(2), key(3)}
    plan = plan_of(found, max_size=one - 1)
    assert plan.drops_all
    assert plan.over == 0


def test_what_must_stay_may_be_larger_than_the_store_should_be() -> None:
    found = census(four(), dict.fromkeys(range(4), 1))
    one = pack_size(1, CHUNK) + MANIFEST
    plan = plan_of(found, max_size=one, keep_last=3)
    assert dropped(plan) == {key(3)}
    assert plan.over == 2 * one


def test_a_shared_pack_goes_with_the_last_that_needs_it() -> None:
    both = [snapshot(key(0), [(0, 0), (1, 0)]), snapshot(key(1), [(0, 0), (2, 0)], age=9)]
    plan = plan_of(census(both, {0: 1, 1: 1, 2: 1}), keep_last=1)
    assert [each.id for each in plan.deleted] == [pack(2)]
    of = {verdict.snapshot.key: verdict for verdict in plan.verdicts}
    assert of[key(1)].exclusive == pack_size(1, CHUNK)
    assert of[key(1)].needs == 2 * pack_size(1, CHUNK)
    assert plan.freed == pack_size(1, CHUNK) + MANIFEST


def test_a_pack_that_no_snapshot_needs_goes_without_any_rule() -> None:
    plan = plan_of(census(four(), dict.fromkeys(range(6), 1)))
    assert [each.id for each in plan.deleted] == [pack(4), pack(5)]


def test_what_a_pin_names_is_told_and_not_counted_as_freed() -> None:
    writer = FoundPin(f"{5:016x}", b"", frozenset({pack(4)}))
    plan = plan_of(census(four(), dict.fromkeys(range(7), 1), [writer]))
    assert [(each.id, each.pinned) for each in plan.deleted] == [
        (pack(4), True),  # named
        (pack(5), True),  # written by it
        (pack(6), False),
    ]
    assert plan.freed == pack_size(1, CHUNK)
    assert plan.pinned == 2 * pack_size(1, CHUNK)


def test_a_manifest_under_a_strange_name_is_no_snapshot_and_keeps_its_packs() -> None:
    import dataclasses

    strange = dataclasses.replace(snapshot(key(0), [(0, 0)]), key="")
    plan = plan_of(census([strange], {0: 1}), max_size=0)
    assert not plan.dropped
    assert not plan.deleted
    assert plan.over > 0


def test_packs_that_are_not_there_are_told() -> None:
    plan = plan_of(census([snapshot(key(0), [(0, 0), (1, 0)])], {0: 1}))
    assert plan.missing == (pack(1),)


# Rewriting


def test_a_pack_that_is_mostly_dead_is_written_anew() -> None:
    plan = plan_of(census([snapshot(key(0), [(0, 3)])], {0: 5}))
    [rewritten] = plan.rewritten
    assert rewritten.id == pack(0)
    assert rewritten.after == pack_size(1, CHUNK)
    assert plan.freed == pack_size(5, 5 * CHUNK) - pack_size(1, CHUNK)
    assert plan.kept_packs == (0, 0)


@pytest.mark.parametrize(
    ("live", "size", "signed"),
    [(3, MANIFEST, False), (1, 4 * CHUNK, False), (1, MANIFEST, True)],
    ids=["half of it is alive", "the manifest is larger than the gain", "it is signed"],
)
def test_a_pack_stays_if_writing_it_anew_does_not_pay(live: int, size: int, signed: bool) -> None:
    each = snapshot(key(0), [(0, n) for n in range(live)], size=size, signed=signed)
    found = census([each], {0: 5})
    fixed = frozenset({each.name} if signed else ())
    assert not make_plan(found, Policy(), NOW, fixed=fixed).rewritten


def test_a_chunk_that_two_snapshots_need_is_alive_once() -> None:
    both = [snapshot(key(n), [(0, 3)]) for n in range(2)]
    [rewritten] = plan_of(census(both, {0: 5})).rewritten
    assert rewritten.after == pack_size(1, CHUNK)


# What lies beside


def test_litter_goes_if_it_looks_old_enough() -> None:
    held = [
        ObjectInfo("pins/1", 10, NOW - 5),
        ObjectInfo("pins/2", 10, NOW - 5000),
    ]
    leftovers = [Leftover(f"packs/00/{n}", str(n), 100, age) for n, age in ((1, 5.0), (2, 9e9))]
    damaged = [ObjectInfo(f"damaged/{pack(n)}", 30, NOW) for n in (0, 7)]
    trash = [ObjectInfo("trash/x", 500, NOW)]
    plan = make_plan(
        census([snapshot(key(0), [(0, 0)])], {0: 1}),
        Policy(),
        NOW,
        litter=Litter(trash, damaged, held, leftovers),
    )
    assert [each.name for each in plan.swept] == ["trash/x", f"damaged/{pack(7)}"]
    assert [each.name for each in plan.watched] == ["pins/2"]
    assert [each.token for each in plan.leftovers] == ["2"]
    assert plan.freed == 500 + 30 + 100


# Anything


@st.composite
def stores(draw: st.DrawFn) -> Census:
    packs = draw(st.dictionaries(st.integers(0, 6), st.integers(1, 5), max_size=7))
    snapshots = []
    for number in range(draw(st.integers(0, 7))):
        places = st.tuples(st.integers(0, 6), st.integers(0, 4))
        chunks = draw(st.sets(places, max_size=6))
        chunks = {(p, c) for p, c in chunks if c < packs.get(p, 5)}
        name = draw(st.sampled_from([key(number, F), key(number, G), f"mine-{number}"]))
        snapshots.append(
            snapshot(
                name,
                chunks,
                age=draw(st.integers(0, 40)),
                used=draw(st.integers(0, 40)),
                size=draw(st.integers(1, 30_000)),
            )
        )
    return census(snapshots, packs)


policies = st.builds(
    Policy,
    keep_last=st.none() | st.integers(0, 3),
    max_age=st.none() | st.integers(0, 40).map(lambda days: days * DAY),
    max_size=st.none() | st.integers(0, 400_000),
    keep=st.frozensets(st.sampled_from([key(0), key(1, G), "mine-2"]), max_size=2),
)


def needs_of(found: Census, kept: Iterable[Verdict]) -> int:
    kept = list(kept)
    needed = {number for verdict in kept for number in verdict.snapshot.packs}
    return sum(found.listed.get(number, 0) for number in needed) + sum(
        verdict.snapshot.size for verdict in kept
    )


@given(found=stores(), policy=policies)
def test_no_plan_deletes_what_a_snapshot_that_stays_needs(found: Census, policy: Policy) -> None:
    plan = make_plan(found, policy, NOW)
    kept = [verdict.snapshot for verdict in plan.verdicts if verdict.kept]
    needed = {found.ids[number] for each in kept for number in each.packs}
    deleted = {each.id for each in plan.deleted}
    assert not deleted & needed
    assert deleted | needed >= {found.ids[number] for number in found.listed}
    assert {each.id for each in plan.rewritten} <= needed
    assert {each.snapshot.name for each in plan.verdicts} == {s.name for s in found.snapshots}


@given(found=stores(), policy=policies)
def test_the_bytes_that_a_plan_frees_add_up(found: Census, policy: Policy) -> None:
    plan = make_plan(found, policy, NOW)
    before = sum(found.listed.values()) + sum(each.size for each in found.snapshots)
    after = plan.kept_packs[1] + sum(each.after for each in plan.rewritten)
    after += sum(verdict.snapshot.size for verdict in plan.verdicts if verdict.kept)
    assert plan.freed == before - after


@given(found=stores(), policy=policies)
def test_every_rule_that_keeps_is_obeyed(found: Census, policy: Policy) -> None:
    plan = make_plan(found, policy, NOW)
    gone = dropped(plan)
    assert not gone & policy.keep
    for family in (F, G):
        members = sorted(
            (each for each in found.snapshots if each.family == family),
            key=lambda each: (-each.created, -each.modified, each.key),
        )
        assert not gone & {each.key for each in members[: policy.keep_last or 0]}
    if policy.max_size is None:
        if policy.max_age is not None:
            lately = {each.key for each in found.snapshots if NOW - each.modified <= policy.max_age}
            assert not gone & lately
        if policy.keep_last is None and policy.max_age is None:
            assert not gone
        if policy.max_age is None:
            assert not [each for each in gone if family_of(each) == NAMED_FAMILY]


@given(found=stores(), policy=policies)
def test_the_size_is_kept_by_dropping_the_least_recently_used_and_no_more(
    found: Census, policy: Policy
) -> None:
    plan = make_plan(found, policy, NOW)
    if policy.max_size is None:
        return
    kept = [verdict for verdict in plan.verdicts if verdict.kept]
    for_size = [verdict for verdict in plan.dropped if "too large" in verdict.why]
    loose = [each for each in kept if each.why in ("no rule drops it", "used lately")]
    assert plan.over == max(0, needs_of(found, kept) - policy.max_size)
    if plan.over:
        assert not loose
    if for_size:
        last = max(for_size, key=lambda each: (each.used, each.snapshot.name))
        assert all(each.used >= last.used for each in loose)
        assert needs_of(found, [*kept, last]) > policy.max_size
