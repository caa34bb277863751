"""
Any fleet: containers that come, build, fail and die at any moment, on stores that tell the truth
or lie, a second away. What must hold of them is checked against what really happened.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from cachepod.snapshot import lease as leases
from cachepod.snapshot.turn import Ending, await_turn
from cachepod.stores.base import PruneStore
from cachepod.stores.memory import MemoryStore
from tests.support.leases import (
    Distant,
    EverybodyIsFirst,
    LastOneWins,
    ListsLate,
    LosesReplacements,
    Stage,
)

NAME = "some-key"
SLACK = 20.0  # seconds for a poll, for rivals and for calls of a second each


@dataclass(frozen=True)
class Container:
    """
    What will become of a container if it has to build.

    Args:
        arrives: When it misses.

        builds: How long it builds.

        fate: ``succeeds``, ``fails``, ``is stopped`` or ``dies`` at the end of that time.
    """

    arrives: float
    builds: float
    fate: str


@dataclass
class Build:
    """One that happened: under a lease or without."""

    begun: float
    leased: bool
    container: Container
    ended: float = 0.0


@dataclass
class History:
    """What happened."""

    builds: list[Build] = field(default_factory=list)
    published: list[float] = field(default_factory=list)
    waits: list[tuple[Container, Ending, float, float]] = field(default_factory=list)


STORES: dict[str, Callable[[], Callable[[], PruneStore]]] = {
    "honest": lambda: _shared(MemoryStore()),
    "all are first": lambda: _shared(EverybodyIsFirst(MemoryStore())),
    "the last one wins": lambda: _shared(LastOneWins()),
    "loses replacements": lambda: _shared(LosesReplacements(MemoryStore())),
    "lists late": lambda: _seen_late(MemoryStore()),
}


def _shared(store: PruneStore) -> Callable[[], PruneStore]:
    return lambda: store


def _seen_late(store: PruneStore) -> Callable[[], PruneStore]:
    return lambda: ListsLate(store)


def play(containers: list[Container], kind: str, away: float, patience: float) -> History:
    """Let it happen."""
    stage, history = Stage(), History()
    view = STORES[kind]()

    def live(container: Container) -> None:
        store = Distant(view(), stage, away)
        came = stage.now
        turn = await_turn(
            store,
            NAME,
            ready=lambda: bool(history.published),
            wait=patience,
            clock=stage.clock,
            sleep=stage.sleep,
        )
        history.waits.append((container, turn.ending, came, stage.now))
        if turn.ending is Ending.READY:
            return
        build = Build(stage.now, turn.lease is not None, container)
        history.builds.append(build)
        until = stage.now + container.builds
        while stage.now < until:
            if turn.lease is not None:
                turn.lease.beat()
            stage.sleep(max(0.0, min(leases.BEAT, until - stage.now)))
        build.ended = stage.now
        if container.fate == "succeeds":
            history.published.append(stage.now)
        if turn.lease is not None and container.fate != "dies":
            end = {
                "succeeds": turn.lease.release,
                "fails": turn.lease.fail,
                "is stopped": turn.lease.hand_over,
            }[container.fate]
            end()

    for container in containers:
        stage.enter(container.arrives, lambda container=container: live(container))
    stage.perform()
    return history


fates = st.sampled_from(["succeeds", "succeeds", "fails", "is stopped", "dies"])
fleets = st.lists(
    st.builds(Container, st.floats(0, 120), st.floats(1, 200), fates), min_size=1, max_size=7
)


@settings(max_examples=150, deadline=None)
@given(
    containers=fleets,
    kind=st.sampled_from(sorted(STORES)),
    away=st.sampled_from([0.0, 0.05, 0.3]),
    patience=st.sampled_from([0.0, 60.0, 240.0]),
)
def test_one_builds_at_a_time_and_nobody_waits_in_vain(
    containers: list[Container], kind: str, away: float, patience: float
) -> None:
    history = play(containers, kind, away, patience)
    assert len(history.waits) == len(containers)

    # Of those that have the lease, one begins when the one before has ended.
    leased = sorted(
        (build for build in history.builds if build.leased), key=lambda build: build.begun
    )
    for before, after in itertools.pairwise(leased):
        assert before.ended <= after.begun

    # Nobody builds what was published long before he asked, or waits longer than he wanted.
    first = min(history.published, default=float("inf"))
    for _, ending, came, went in history.waits:
        assert went - came <= patience + SLACK
        assert ending is Ending.READY or came <= first
        assert ending is Ending.READY or went <= first + SLACK

    # Whoever builds without a lease has waited as long as he wanted, or it was hopeless.
    dead = {"fails", "dies"}
    if kind == "loses replacements":  # nobody hears of a holder that was stopped
        dead.add("is stopped")
    for container, ending, came, went in history.waits:
        if ending is Ending.TIRED:
            assert went - came >= patience - 1e-6
        if ending is Ending.HOPELESS:
            failed = [each for each in leased if each.container.fate in dead and each.ended <= went]
            assert len(failed) >= leases.MOST_FAILURES, container

    # While somebody waits, nothing lies idle for more than a minute after a builder's death.
    for build in leased:
        successors = [each.begun for each in leased if each.begun >= build.ended]
        idle_until = min(successors, default=float("inf"))
        for _, _, came, went in history.waits:
            asked = max(came, build.ended)
            if went > asked and build.container.fate != "succeeds":
                assert min(went, idle_until) - asked <= leases.STALE + SLACK


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.floats(0, 60), min_size=2, max_size=12),
    kind=st.sampled_from(sorted(STORES)),
    away=st.sampled_from([0.0, 0.3]),
)
def test_a_fleet_whose_first_builder_succeeds_builds_once(
    arrivals: list[float], kind: str, away: float
) -> None:
    history = play(
        [Container(moment, 90.0, "succeeds") for moment in arrivals], kind, away, patience=240.0
    )
    assert len(history.builds) == 1
