"""Who builds a key: leases are taken, renewed, handed over and lost as they should be."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from cachepod.errors import CachepodError, SpaceExhausted, StoreUnreachable
from cachepod.model.names import lease_name
from cachepod.snapshot import lease as leases
from cachepod.snapshot.claim import Claim, Holder, State
from cachepod.snapshot.lease import Lease, Sight, Standing, Watch, take
from cachepod.snapshot.turn import Ending, Turn, await_turn
from cachepod.stores.base import PruneStore, put
from cachepod.stores.memory import MemoryStore
from tests.support.cli import wait_until
from tests.support.leases import (
    EverybodyIsFirst,
    LastOneWins,
    ListsLate,
    LosesReplacements,
    World,
)
from tests.support.stores import Around, CountingStore, FaultyStore

NAME = "some-key"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def turn(
    world: World,
    store: PruneStore,
    wait: float = 240.0,
    ready: Callable[[], bool] = lambda: False,
    **more: Any,
) -> Turn:
    return await_turn(
        store, NAME, ready=ready, wait=wait, clock=world.clock, sleep=world.sleep, **more
    )


def taken(world: World, store: PruneStore) -> Lease:
    """A lease of somebody who is not heard of again, unless a test sees to it."""
    lease = turn(world, store, wait=0).lease
    assert lease is not None
    return lease


def alive(world: World, lease: Lease) -> None:
    """Its holder gives signs of life from now on."""
    world.every(leases.BEAT, lease.beat)


def objects(store: PruneStore) -> dict[str, dict[str, Any]]:
    return {
        info.name: json.loads(store.read(info.name, limit=4096)) for info in store.list("leases")
    }


def test_a_free_lease_is_taken_at_once(world: World, store: MemoryStore) -> None:
    got = turn(world, store, wait=0)
    assert got.ending is Ending.TAKEN
    assert got.waited == 0
    assert list(objects(store)) == [lease_name(NAME, 1)]


def test_who_waits_for_nobody_still_does_not_take_what_another_holds(
    world: World, store: MemoryStore
) -> None:
    alive(world, taken(world, store))
    got = turn(world, store, wait=0)
    assert (got.ending, got.lease) == (Ending.TIRED, None)
    assert got.holder == Holder.here()


def test_a_living_holder_is_waited_for_until_the_patience_ends(
    world: World, store: MemoryStore
) -> None:
    alive(world, taken(world, store))
    told: list[Sight] = []
    got = turn(world, store, wait=240, told=told.append)
    assert got.ending is Ending.TIRED
    assert got.waited == pytest.approx(240)
    assert got.elapsed == pytest.approx(240, abs=20)
    assert [sight.elapsed for sight in told] == sorted(sight.elapsed for sight in told)
    assert 240 / 5 <= len(told) < 240


def test_that_the_work_is_done_is_seen_within_a_second_and_the_lease_is_looked_at_less_often(
    world: World, store: MemoryStore
) -> None:
    alive(world, taken(world, store))
    counted = CountingStore(store)
    asked: list[float] = []

    def ready() -> bool:
        asked.append(world.clock())
        return world.clock() >= done

    done = world.clock() + 60
    got = turn(world, counted, ready=ready)
    assert got.ending is Ending.READY
    assert 60 <= got.waited < 61.001
    assert max(after - before for before, after in pairwise(asked)) < 1.001
    assert len(asked) <= 120
    assert counted.calls["list"] + counted.calls["read"] <= 2 * 30


def test_a_dead_holder_is_noticed_within_a_minute(world: World, store: MemoryStore) -> None:
    alive(world, taken(world, store))
    world.sleep(123)
    dead = taken_over_from(world, store)
    got = turn(world, store)
    assert got.ending is Ending.TAKEN_OVER
    assert leases.STALE <= got.waited < 60
    assert got.lease is not None
    assert got.lease.number > dead.number
    assert not dead.beat()


def taken_over_from(world: World, store: MemoryStore) -> Lease:
    """The holder hands over to one that dies."""
    for info in list(store.list("leases")):
        store.delete(info.name)
    return taken(world, store)


def test_a_holder_that_is_only_slow_is_not_taken_for_dead(world: World, store: MemoryStore) -> None:
    lease = taken(world, store)
    world.every(leases.STALE - 6, lease.beat)
    assert turn(world, store).ending is Ending.TIRED


@pytest.mark.parametrize("leave", [Lease.fail, Lease.hand_over, Lease.release])
def test_who_gives_up_hands_over_at_once(
    world: World, store: MemoryStore, leave: Callable[[Lease], None]
) -> None:
    lease = taken(world, store)
    alive(world, lease)
    world.at(30, lambda: leave(lease))
    got = turn(world, store)
    assert got.ending is Ending.TAKEN_OVER
    assert 30 <= got.waited <= 36
    assert got.lease is not None
    assert got.lease.confirm()


def test_after_three_failures_nobody_waits_for_the_fourth(world: World, store: MemoryStore) -> None:
    for _ in range(leases.MOST_FAILURES - 1):
        taken(world, store).fail()
    third = taken(world, store)
    alive(world, third)
    world.at(50, third.fail)
    got = turn(world, store)
    assert got.ending is Ending.TAKEN_OVER
    assert got.lease is not None
    alive(world, got.lease)
    started = world.now
    assert turn(world, store).ending is Ending.HOPELESS
    assert world.now == started


def test_death_counts_as_a_failure_and_an_interruption_does_not(
    world: World, store: MemoryStore
) -> None:
    taken(world, store)
    over = turn(world, store).lease
    assert over is not None
    assert objects(store)[lease_name(NAME, 2)]["failures"] == 1
    over.hand_over()
    taken(world, store)
    assert objects(store)[lease_name(NAME, 3)]["failures"] == 1


def test_success_leaves_nothing_and_forgets_the_failures(world: World, store: MemoryStore) -> None:
    taken(world, store).fail()
    taken(world, store).release()
    assert objects(store) == {}
    taken(world, store)
    assert objects(store)[lease_name(NAME, 1)]["failures"] == 0


def test_waiting_ends_as_soon_as_the_work_is_done(world: World, store: MemoryStore) -> None:
    lease = taken(world, store)
    alive(world, lease)
    done: list[bool] = []
    world.at(77, lambda: done.append(True))
    got = turn(world, store, ready=lambda: bool(done))
    assert got.ending is Ending.READY
    assert 77 <= got.waited <= 82
    assert got.lease is None


def test_who_takes_the_lease_of_work_that_was_just_done_leaves_it(
    world: World, store: MemoryStore
) -> None:
    answers = iter([False, True])  # done between the look and the taking
    got = turn(world, store, ready=lambda: next(answers))
    assert (got.ending, got.lease) == (Ending.READY, None)
    assert objects(store) == {}


def test_clocks_that_jump_by_years_change_nothing(
    world: World, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: random.uniform(0, 4e9))
    lease = taken(world, store)
    alive(world, lease)
    assert turn(world, store).ending is Ending.TIRED
    lease.hand_over()
    taken(world, store)
    got = turn(world, store)
    assert got.ending is Ending.TAKEN_OVER
    assert leases.STALE <= got.waited < 60
    document = objects(store)[lease_name(NAME, 3)]
    assert set(document) == {"holder", "token", "beat", "elapsed", "state", "failures"}


def test_a_holder_that_has_lost_its_lease_leaves_the_new_one_alone(
    world: World, store: MemoryStore
) -> None:
    old = taken(world, store)
    new = turn(world, store).lease
    assert new is not None
    before = objects(store)[lease_name(NAME, new.number)]
    assert not old.beat()
    old.fail()
    old.release()
    assert objects(store)[lease_name(NAME, new.number)] == before
    assert new.confirm()


def test_another_process_goes_on_with_the_lease_by_its_token(
    world: World, store: MemoryStore
) -> None:
    first = taken(world, store)
    world.sleep(8)
    assert first.beat()
    second = Lease.resume(store, NAME, first.token, clock=world.clock)
    assert second is not None
    world.sleep(7)
    assert second.beat()
    (document,) = objects(store).values()
    assert (document["beat"], document["elapsed"]) == (2, 15.0)
    second.release()
    assert Lease.resume(store, NAME, first.token, clock=world.clock) is None


def test_a_lease_of_this_machine_from_before_is_its_own_at_once(
    world: World, store: MemoryStore
) -> None:
    before = taken(world, store)
    got = turn(world, store, token=before.token)
    assert got.ending is Ending.TAKEN
    assert got.waited == 0
    assert got.lease is not None
    assert got.lease.number == before.number


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"holder": 5}', b"x" * 5000, b"[" * 4000, b"1e999"],
)
def test_what_is_no_lease_is_waited_out_like_a_dead_holder(
    world: World, store: MemoryStore, garbage: bytes
) -> None:
    put(store, lease_name(NAME, 7), garbage)
    put(store, f"leases/{NAME}/no-number", b"{}")
    got = turn(world, store)
    assert got.ending is Ending.TAKEN_OVER
    assert leases.STALE <= got.waited < 60
    assert got.lease is not None
    assert got.lease.number == 8


def test_numbers_that_make_no_sense_end_a_claim(world: World) -> None:
    good = json.loads(Claim(Holder("h", 1), "t").encode())
    for change in ({"elapsed": -1}, {"elapsed": 1e300}):
        claim = Claim.decode(json.dumps({**good, **change}).encode())
        assert claim is not None
        assert claim.elapsed == 0
    for change in ({"beat": "x"}, {"state": "asleep"}, {"failures": None}, {"holder": {}}):
        assert Claim.decode(json.dumps({**good, **change}).encode()) is None
    long = Claim.decode(json.dumps({**good, "holder": {"host": "h" * 999, "pid": 1}}).encode())
    assert long is not None
    assert len(long.holder.host) < 300


def test_the_names_of_two_leases_do_not_mix(world: World, store: MemoryStore) -> None:
    taken(world, store)
    other = await_turn(
        store, f"fill.{NAME}", ready=lambda: False, wait=0, clock=world.clock, sleep=world.sleep
    )
    assert other.ending is Ending.TAKEN


# Stores that lie


def test_where_everybody_is_told_to_be_first_one_is(world: World, store: MemoryStore) -> None:
    lying = EverybodyIsFirst(store)
    free = Sight(Standing.FREE)
    both = [take(lying, NAME, free, sleep=world.sleep, clock=world.clock) for _ in range(2)]
    assert [lease is not None for lease in both] == [True, False]


def test_where_the_last_one_wins_rivals_of_a_moment_are_told_apart(world: World) -> None:
    store = LastOneWins()
    free = Sight(Standing.FREE)
    rivals: list[Lease | None] = []

    def rival() -> None:
        rivals.append(take(store, NAME, free, sleep=lambda seconds: None, clock=world.clock))

    world.at(1.0, rival)
    first = take(store, NAME, free, sleep=world.sleep, clock=world.clock)
    assert first is None
    assert rivals
    assert rivals[0] is not None


def test_where_two_hold_it_one_does_after_the_next_beat(world: World) -> None:
    store = LastOneWins()
    free = Sight(Standing.FREE)
    early = take(store, NAME, free, sleep=world.sleep, clock=world.clock)
    late = take(store, NAME, free, sleep=world.sleep, clock=world.clock)  # looked long ago
    assert early is not None
    assert late is not None
    assert sorted([early.beat(), late.beat()]) == [False, True]
    assert not early.beat()
    assert late.beat()


def test_a_store_that_loses_replacements_does_not_make_a_holder_look_dead(
    world: World, store: MemoryStore
) -> None:
    lying = LosesReplacements(store)
    lease = taken(world, lying)
    alive(world, lease)
    assert turn(world, lying).ending is Ending.TIRED
    lease.release()
    assert objects(store) == {}


def test_a_listing_that_lags_does_not_let_two_build(world: World, store: MemoryStore) -> None:
    lying = ListsLate(store)
    lease = taken(world, lying)
    alive(world, lease)
    assert turn(world, ListsLate(store)).ending is Ending.TIRED
    assert lease.confirm()
    other = Lease.resume(ListsLate(store), NAME, lease.token, lease.number, world.clock)
    assert other is not None, "the next process of the hook does not see it"


# Faults

LETTERS = ("E", "A", "U", "S", "M", "C")
METHODS = ("list", "read", "create", "write", "commit", "replace", "delete")


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("call", range(4))
def test_a_fault_at_any_call_costs_a_lease_at_most(
    world: World, store: MemoryStore, method: str, letter: str, call: int
) -> None:
    faulty = FaultyStore(store, {method: "." * call + letter})
    got: Turn | None = None
    try:
        got = turn(world, faulty, wait=100)
    except CachepodError:
        pass  # whoever asked goes on without a lease
    if got is not None and got.lease is not None:
        for act in (got.lease.beat, got.lease.beat, got.lease.release):
            try:
                act()
            except CachepodError:
                pass
    # Whatever was left behind, the next one is at work within a minute.
    again = turn(world, store)
    assert again.lease is not None
    assert again.waited < 60


@pytest.mark.parametrize("letter", ["E", "A"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("call", range(30))
def test_a_fault_while_waiting_is_waited_out(
    world: World, store: MemoryStore, method: str, letter: str, call: int
) -> None:
    alive(world, taken(world, store))
    done: list[bool] = []
    world.at(100, lambda: done.append(True))
    faulty = FaultyStore(store, {method: "." * (call + 1) + letter})
    assert turn(world, faulty, ready=lambda: bool(done)).ending is Ending.READY


def test_those_who_wait_are_heard_of_while_the_store_fails(
    world: World, store: MemoryStore
) -> None:
    alive(world, taken(world, store))
    told: list[Sight] = []
    faulty = FaultyStore(store, {"list": "." + "E*"})
    assert turn(world, faulty, wait=60, told=told.append).ending is Ending.TIRED
    assert told[-1].elapsed == pytest.approx(60, abs=6)
    assert len(told) > 10


def test_a_holder_is_not_blamed_for_an_outage_that_everybody_has(
    world: World, store: MemoryStore
) -> None:
    class Down(Around):
        def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
            if 1030 < world.now < 1130:
                raise StoreUnreachable("x", "down", transient=True)
            return act()

    down = Down(store)
    lease = taken(world, down)

    def beat() -> bool:
        try:
            return lease.beat()
        except StoreUnreachable:
            return True

    world.every(leases.BEAT, beat)
    assert turn(world, down).ending is Ending.TIRED
    assert lease.confirm()


@pytest.mark.parametrize("letters", ["U*", "S*"])
def test_a_store_that_cannot_be_written_has_no_lease_to_give(
    world: World, store: MemoryStore, letters: str
) -> None:
    faulty = FaultyStore(store, {"create": letters})
    with pytest.raises((StoreUnreachable, SpaceExhausted)):
        turn(world, faulty)
    assert world.now == 1000


def test_an_attempt_that_worked_although_it_failed_is_known_as_ones_own(
    world: World, store: MemoryStore
) -> None:
    # Neither the answer to the creation nor the look afterwards comes through.
    faulty = FaultyStore(store, {"commit": "A", "read": "E"})
    got = turn(world, faulty)
    assert got.ending is Ending.TAKEN
    assert got.waited <= 1
    assert got.lease is not None
    assert got.lease.number == 1


def test_a_release_that_dies_halfway_does_not_bring_an_older_lease_back(
    world: World, store: MemoryStore
) -> None:
    taken(world, store).fail()
    lease = taken(world, store)
    faulty = FaultyStore(store, {"delete": ".U"})
    lease.store = faulty
    with pytest.raises(StoreUnreachable):
        lease.release()
    assert list(objects(store)) == [lease_name(NAME, 2)]


@pytest.mark.parametrize("looks", [1, 2], ids=["while it settles", "while it looks once more"])
def test_who_is_stopped_just_after_the_taking_hands_over(world: World, looks: int) -> None:
    store = LastOneWins()
    left = iter(range(looks - 1))

    def stopped(*words: object) -> bool:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return False

    answers = iter([False])
    with pytest.raises(KeyboardInterrupt):
        await_turn(
            store,
            NAME,
            ready=lambda: next(answers, None) is None and stopped(),
            wait=0,
            clock=world.clock,
            sleep=stopped,
        )
    (document,) = objects(store).values()
    assert document["state"] == "free"


# Renewal by a thread


def test_a_lease_is_renewed_while_work_goes_on_and_gone_afterwards(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.01)
    lease = await_turn(store, NAME, ready=lambda: False, wait=0).lease
    with leases.held(lease):
        wait_until(lambda: objects(store)[lease_name(NAME, 1)]["beat"] > 3)
    assert objects(store) == {}
    assert "lease" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("error", "state", "failures"), [(RuntimeError, "failed", 1), (KeyboardInterrupt, "free", 0)]
)
def test_work_that_fails_or_is_stopped_hands_the_lease_over(
    store: MemoryStore, error: type[BaseException], state: str, failures: int
) -> None:
    lease = await_turn(store, NAME, ready=lambda: False, wait=0).lease
    with pytest.raises(error), leases.held(lease):
        raise error
    (document,) = objects(store).values()
    assert (document["state"], document["failures"]) == (state, failures)
    assert State(document["state"]) is not State.BUILDING


def test_a_store_that_fails_during_the_work_is_nobody_s_error(store: MemoryStore) -> None:
    lease = await_turn(store, NAME, ready=lambda: False, wait=0).lease
    assert lease is not None
    lease.store = FaultyStore(store, {"list": "E*", "delete": "E*", "replace": "E*"})
    with leases.held(lease):
        pass
    with leases.held(None):
        pass


def test_a_watch_sees_what_changes(world: World, store: MemoryStore) -> None:
    watch = Watch(store, NAME, world.clock)
    assert watch.look().standing is Standing.FREE
    lease = taken(world, store)
    for _ in range(20):
        world.sleep(leases.STALE - 1)
        lease.beat()
        assert watch.look().standing is Standing.HELD
    world.sleep(leases.STALE + 1)
    assert watch.look().standing is Standing.STALE
