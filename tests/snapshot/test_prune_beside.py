"""A prune beside others: whatever the order of their calls, nothing is lost that was promised."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cachepod.errors import CorruptObject, Miss, ObjectMissing, PinLost
from cachepod.model.layout import MIB
from cachepod.model.names import CONDEMNED, PINS, TRASH, manifest_name
from cachepod.snapshot.pins import pinned_when_long
from cachepod.snapshot.prune import prune
from cachepod.snapshot.survey import Policy, plan_prune
from cachepod.snapshot.verify import verify
from cachepod.stores.base import ObjectInfo, PruneStore
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_concurrent import at_once
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.prunes import (
    Between,
    Stepper,
    Time,
    check_sound,
    hooked_prunes,
    keys_of,
    needed_by,
    packs_of,
    prune_now,
    publishers,
)
from tests.support.stores import Around, CountingStore
from tests.support.trees import Directory, File, look, make

SHARED = os.urandom(MIB + 5000)
DAY = 86_400.0
EVERYTHING = {"max_size": 0}


@pytest.fixture(autouse=True)
def hooked() -> Iterator[None]:
    with hooked_prunes():
        yield


@pytest.fixture
def trees(room: Path) -> dict[str, Path]:
    """``old`` and ``new``, which share a chunk."""
    return {
        name: make(room / name, Directory({b"big": File(SHARED), b"own": File(name.encode() * 99)}))
        for name in ("old", "new")
    }


@pytest.fixture
def begun(trees: dict[str, Path]) -> Callable[[], MemoryStore]:
    """Stores that hold ``old``."""
    first = MemoryStore()
    with publishers(Time(), alive=True):
        store_tree(first, trees["old"], "old")

    def make_store() -> MemoryStore:
        store = MemoryStore()
        store._objects = dict(first._objects)
        return store

    return make_store


def calls_of(act: Callable[[PruneStore], object], store: PruneStore) -> int:
    counting = CountingStore(store)
    act(counting)
    return sum(counting.calls.values())


def settle(store: MemoryStore) -> None:
    """One more prune, alone: whatever stays now is needed."""
    prune_now(store)
    assert packs_of(store) == needed_by(store)
    assert not [*store.list(PINS), *store.list(CONDEMNED), *store.list(TRASH)]


def publish_new(trees: dict[str, Path]) -> Callable[[PruneStore], object]:
    return lambda store: store_tree(store, trees["new"], "new", threads=1)


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "asleep"])
def test_a_prune_between_any_two_calls_of_a_publish(
    trees: dict[str, Path], begun: Callable[[], MemoryStore], alive: bool
) -> None:
    """A publisher that sleeps meanwhile may fail, but leaves no snapshot that is not whole."""
    lost = 0
    for call in itertools.count():
        store, clock = begun(), Time()
        beside = Between(store, call, lambda s=store, c=clock: prune_now(s, c, **EVERYTHING))  # type: ignore[misc]
        with publishers(clock, alive=alive):
            try:
                publish_new(trees)(beside)
            except PinLost:
                assert not alive
                lost += 1
            else:
                committed = beside.log.index(("commit", manifest_name("new")))
                assert ("new" in keys_of(store)) == (call <= committed or call >= beside.calls)
        check_sound(store)
        settle(store)
        if beside.calls <= call:
            break
    assert call > 12
    assert alive or lost > 3


def test_a_publish_between_any_two_calls_of_a_prune(
    trees: dict[str, Path], begun: Callable[[], MemoryStore], room: Path
) -> None:
    for call in itertools.count():
        store, clock = begun(), Time()
        beside = Between(store, call, lambda s=store: publish_new(trees)(s))  # type: ignore[misc]
        with publishers(clock, alive=True):
            prune_now(beside, clock, **EVERYTHING)
        check_sound(store)
        if beside.calls <= call:
            break
        in_plan = call <= beside.log.index(("list", "manifests"))
        assert ("new" in keys_of(store)) != in_plan
        settle(store)
    assert call > 15


@pytest.mark.slow
@pytest.mark.parametrize("renewing", [True, False], ids=["awake", "sleepy"])
@pytest.mark.parametrize("alive", [True, False], ids=["alive", "asleep"])
def test_a_publish_and_a_prune_in_any_two_steps(
    trees: dict[str, Path], begun: Callable[[], MemoryStore], alive: bool, renewing: bool
) -> None:
    """The first part of one, the first part of the other, the rest of either."""
    publish = publish_new(trees)
    with publishers(Time(), alive=True):
        most = calls_of(publish, begun())
    whole = lost = 0
    for first in range(most + 1):
        for second in itertools.count():
            store, clock = begun(), Time(renewing=renewing)
            with publishers(clock, alive=alive):
                publisher = Stepper(store, publish)
                publisher.step(first)
                pruner = Stepper(store, lambda s, c=clock: prune_now(s, c, **EVERYTHING))  # type: ignore[misc]
                more = pruner.step(second)
                publisher.finish()
                pruner.finish()
            assert pruner.error is None
            if publisher.error is None:
                whole += "new" in keys_of(store)
            else:
                assert isinstance(publisher.error, PinLost)
                assert not alive
                assert "new" not in keys_of(store)
                lost += 1
            check_sound(store)
            if not more:
                break
    assert whole > 100
    assert alive or lost > 10


def test_two_prunes_in_any_two_steps(begun: Callable[[], MemoryStore]) -> None:
    """Each may find done what it was about to do."""
    for first in itertools.count():
        store, clock = begun(), Time()
        one = Stepper(store, lambda s, c=clock: prune_now(s, c, **EVERYTHING))  # type: ignore[misc]
        more = one.step(first)
        prune_now(store, clock, **EVERYTHING)
        one.finish()
        assert one.error is None
        assert not keys_of(store)
        settle(store)
        if not more:
            break
    assert first > 15


@pytest.mark.slow
def test_two_prunes_and_a_publish_in_any_order(
    trees: dict[str, Path], begun: Callable[[], MemoryStore]
) -> None:
    """Many orders drawn at random; the seed says which."""
    published = 0
    for seed in range(150):
        chance = random.Random(seed)
        store, clock = begun(), Time()
        with publishers(clock, alive=True):
            actors = [
                Stepper(store, publish_new(trees)),
                *(
                    Stepper(store, lambda s, c=clock: prune_now(s, c, **EVERYTHING))  # type: ignore[misc]
                    for _ in range(2)
                ),
            ]
            while actors:
                actor = chance.choice(actors)
                if not actor.step(chance.randint(1, 6)):
                    assert actor.error is None, (seed, actor.error)
                    actors.remove(actor)
        check_sound(store)
        published += "new" in keys_of(store)
        settle(store)
    assert published > 50


def test_a_restore_beside_a_prune_brings_the_snapshot_or_finds_none(
    trees: dict[str, Path], begun: Callable[[], MemoryStore], room: Path
) -> None:
    """One that has begun when its snapshot is dropped has the grace period to come to its end."""
    seen = look(trees["old"])
    for call in itertools.count():
        store, clock = begun(), Time()
        restore = Stepper(store, lambda s: bring(s, room / "there", "old", force=True, threads=1))
        more = restore.step(call)
        clock.hooks.append(lambda c=clock, r=restore: c.now > 1050 and r.finish())  # type: ignore[misc]
        prune_now(store, clock, **EVERYTHING)
        restore.finish()
        if restore.error is None:
            assert look(room / "there") == seen
        else:
            assert isinstance(restore.error, Miss)
        assert not keys_of(store)
        if not more:
            break
    assert call > 1


def test_a_long_restore_keeps_the_packs_that_it_has_pinned(
    trees: dict[str, Path], begun: Callable[[], MemoryStore], room: Path
) -> None:
    store, clock = begun(), Time()
    packs = packs_of(store)
    with pinned_when_long(store, packs, after=0.001, period=0.001):
        while not list(store.list(PINS)):
            pass

        def waits_for_a_renewal() -> None:
            [before] = (store.read(info.name, limit=9999) for info in store.list(PINS))
            while before == store.read(next(iter(store.list(PINS))).name, limit=9999):
                pass

        clock.hooks.append(waits_for_a_renewal)
        prune_now(store, clock, **EVERYTHING)
        assert packs_of(store) == packs
    clock.hooks.clear()
    settle(store)


def test_a_restore_that_comes_too_late_is_a_miss_or_finds_damage(
    begun: Callable[[], MemoryStore], room: Path
) -> None:
    """One that stood still for the whole grace period, and was too short before to have a pin."""
    store, clock = begun(), Time()
    restore = Stepper(store, lambda s: bring(s, room / "there", "old", threads=1))
    restore.step(1)
    prune_now(store, clock, **EVERYTHING)
    restore.finish()
    assert isinstance(restore.error, (Miss, ObjectMissing, CorruptObject))
    assert not (room / "there").exists()


@pytest.mark.slow
def test_processes_that_publish_restore_and_prune_at_once_lose_nothing(room: Path) -> None:
    """With next to no grace period: publishes do not rely on it, restores may come too late."""
    place = room / "store"
    trees = {
        f"k{number}": make(
            room / f"tree{number}",
            Directory({b"big": File(SHARED), b"own": File(os.urandom(40_000))}),
        )
        for number in range(3)
    }
    seen = {key: look(tree) for key, tree in trees.items()}

    def publish(key: str) -> Callable[[], int]:
        def act() -> int:
            brought = 0
            for _ in range(15):
                store_tree(LocalStore(place), trees[key], key)
                try:
                    bring(LocalStore(place), room / f"there-{key}", key, force=True)
                except (Miss, ObjectMissing, CorruptObject):
                    continue
                assert look(room / f"there-{key}") == seen[key]
                brought += 1
            (room / f"over-{key}").touch()
            return brought

        return act

    def prune_often() -> int:
        dropped = 0
        while len(list(room.glob("over-*"))) < len(trees):
            store = LocalStore(place)
            plan = plan_prune(store, Policy(max_size=0))
            dropped += len(prune(store, plan, grace=0.05).dropped)
            check_sound_or_gone(store)
        return dropped

    results = at_once([*map(publish, trees), prune_often, prune_often])
    assert all(results)
    store = LocalStore(place)
    check_sound(store)
    for key in trees:
        store_tree(store, trees[key], key)
        bring(store, room / "there", key)
        assert look(room / "there") == seen[key]


def check_sound_or_gone(store: LocalStore) -> None:
    """Whatever is damaged is not there any more, when one looks again."""
    damaged = {key for problem in verify(store, threads=1).problems for key in problem.keys}
    assert not damaged & keys_of(store)


@pytest.mark.slow
def test_packs_are_written_anew_beside_whatever_others_do(room: Path) -> None:
    """Publishes that reuse what is moved or replace the snapshot at hand, and a restore of it."""
    blobs = [random.Random(number).randbytes(6000) for number in range(6)]
    holds = {"first": (0, 1, 2, 3, 4), "second": (4,), "third": (4, 5), "other": (5,)}
    trees = {
        name: make(room / name, Directory({b"%d" % n: File(blobs[n]) for n in numbers}))
        for name, numbers in holds.items()
    }
    seen = {name: look(tree) for name, tree in trees.items()}
    first, second, third = (f"family-{number:016x}" for number in range(3))
    with mock.patch("cachepod.snapshot.grouping.SMALL_FILE", 1000), publishers(Time(), alive=True):
        begun = MemoryStore()
        store_tree(begun, trees["first"], first, threads=1)
        store_tree(begun, trees["second"], second, threads=1)
        rewritten = 0
        here = room / "there"
        for seed in range(120):
            chance = random.Random(seed)
            store, clock = MemoryStore(), Time()
            store._objects = dict(begun._objects)
            with publishers(clock, alive=True):
                actors = {
                    "prune": lambda s, c=clock: prune_now(
                        s, c, max_age=DAY, keep=frozenset({second}), later=5 * DAY
                    ),
                    "reuse": lambda s: store_tree(s, trees["third"], third, threads=1),
                    "force": lambda s: store_tree(s, trees["other"], second, threads=1, force=True),
                    "restore": lambda s: bring(s, here, second, force=True, threads=1),
                }
                chosen = ["prune", *chance.sample(["reuse", "force", "restore"], 2)]
                running = {name: Stepper(store, actors[name]) for name in chosen}
                results = {}
                while running:
                    name = chance.choice(sorted(running))
                    if not running[name].step(chance.randint(1, 9)):
                        results[name] = running.pop(name)
            check_sound(store)
            for name, each in results.items():
                # A restore that stood still all the while has no pin, and may come too late.
                late = name == "restore" and isinstance(each.error, (ObjectMissing, CorruptObject))
                assert each.error is None or late, (seed, name, each.error)
            rewritten += results["prune"].result.rewritten
            bring(store, here, second, force=True)
            expected = [seen["second"]] + [seen["other"]] * ("force" in chosen)
            assert look(here) in expected, seed
            settle(store)
    assert rewritten > 40


class Lagging(Around):
    """Listings show what there was *lag* seconds ago; everything else is of now."""

    def __init__(self, store: PruneStore, clock: Time, lag: float) -> None:
        super().__init__(store)
        self._clock, self._lag = clock, lag
        self._events: list[tuple[float, str, bool]] = []

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        if method == "list":
            until = self._clock.now - self._lag
            shown = {info.name: info for info in act()}
            for when, changed, added in reversed(self._events):
                if when > until and changed.startswith(name + "/"):
                    if added:
                        shown.pop(changed, None)
                    else:
                        shown[changed] = ObjectInfo(changed, 1, 0.0)
            return list(shown.values())
        result = act()
        now = self._clock.now
        if method in ("commit", "replace") and result is not False:
            self._events.append((now, name, True))
        elif method == "delete":
            self._events.append((now, name, False))
        return result

    def move(self, name: str, to: str) -> None:
        self.store.move(name, to)
        self._events += [(self._clock.now, name, False), (self._clock.now, to, True)]


@pytest.mark.slow
@pytest.mark.parametrize("lag", [30.0, 80.0])
def test_a_publish_is_safe_where_listings_lag_by_less_than_half_the_grace_period(
    trees: dict[str, Path], begun: Callable[[], MemoryStore], lag: float
) -> None:
    with publishers(Time(), alive=True):
        most = calls_of(publish_new(trees), begun())
    for first in range(most + 1):
        for second in (1, 45, 85, 95, 130, 175, 179):
            store, clock = begun(), Time()
            lagging = Lagging(store, clock, lag)
            with publishers(clock, alive=True):
                publisher = Stepper(lagging, publish_new(trees))
                publisher.step(first)
                clock.hooks.append(
                    lambda c=clock, p=publisher, s=second: c.now >= 1000 + s and p.finish()  # type: ignore[misc]
                )
                prune_now(lagging, clock, **EVERYTHING)
                publisher.finish()
            assert publisher.error is None
            check_sound(store)
            assert publisher.result.outcome == "present" or "new" in keys_of(store)
