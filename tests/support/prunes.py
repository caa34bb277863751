"""Prunes for tests: nobody really waits, and others can be let in between two calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from cachepod.model.names import MANIFESTS, PACKS, pack_name
from cachepod.snapshot.beat import Beat
from cachepod.snapshot.pins import Pin, hold_pin
from cachepod.snapshot.prune import GRACE, PruneReport, prune
from cachepod.snapshot.survey import Plan, Policy, plan_prune
from cachepod.snapshot.verify import verify
from cachepod.stores.base import PruneStore, Store, WriteStore
from tests.support.snapshots import manifest_of
from tests.support.stores import Around

LATER = 7200.0  # seconds after which everything looks old


class Time:
    """
    Passes only while somebody sleeps; *hooks* are called then, every second.

    Args:
        renewing: Whether prunes renew their lists of condemned packs by it.
    """

    def __init__(self, *, renewing: bool = True) -> None:
        self.now = 1000.0
        self.renewing = renewing
        self.hooks: list[Callable[[], object]] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for hook in self.hooks:
            hook()


def prune_now(
    store: PruneStore,
    clock: Time | None = None,
    *,
    grace: float = GRACE,
    later: float = LATER,
    **policy: Any,
) -> PruneReport:
    """Plan and carry out, *later* seconds from now as far as ages count."""
    return carry_out(
        store, plan_prune(store, Policy(**policy), now=time.time() + later), clock, grace
    )


def carry_out(
    store: PruneStore, plan: Plan, clock: Time | None = None, grace: float = GRACE
) -> PruneReport:
    """Carry out *plan*, waiting by *clock*."""
    clock = clock or Time()
    return prune(store, plan, grace=grace, clock=clock.clock, sleep=clock.sleep, period=0)


class HookedBeat(Beat):
    """Renewed by the hooks of a :class:`Time`, past everything that stands around the store."""

    def start(self, delay: float = 0.0) -> None:
        super().start(delay)
        clock = getattr(self._clock, "__self__", None)
        if isinstance(clock, Time) and clock.renewing:
            clock.hooks.append(_renewal(self, clock))


@contextmanager
def hooked_prunes() -> Iterator[None]:
    """Prunes within renew their lists by the clock that they are given."""
    with mock.patch("cachepod.snapshot.prune.Beat", HookedBeat):
        yield


def _renewal(beat: Beat, clock: Time) -> Callable[[], None]:
    last = clock.now

    def renew() -> None:
        nonlocal last
        if beat._touched and not beat._lock.locked() and clock.now - last >= 20:
            last = clock.now
            around, beat._store = beat._store, _innermost(beat._store)
            beat.renew()
            beat._store = around

    return renew


@contextmanager
def publishers(clock: Time, *, alive: bool) -> Iterator[None]:
    """Publishers within renew their pins by *clock*, if they are alive; else never."""

    @contextmanager
    def hold(store: WriteStore) -> Iterator[Pin]:
        with hold_pin(store, clock=clock.clock, period=0) as pin:
            renew = _renewal(pin._beat, clock)
            if alive:
                clock.hooks.append(renew)
            try:
                yield pin
            finally:
                if alive:
                    clock.hooks.remove(renew)

    with (
        mock.patch("cachepod.snapshot.publish.hold_pin", hold),
        mock.patch("cachepod.snapshot.publish.outlast"),
    ):
        yield


def _innermost(store: Any) -> Any:
    while isinstance(store, Around):
        store = store.store
    return store


def keys_of(store: Store) -> set[str]:
    """The snapshots that are there."""
    return {info.name.rpartition("/")[2] for info in store.list(MANIFESTS)}


def packs_of(store: Store) -> set[str]:
    """The packs that are there."""
    return {info.name.rpartition("/")[2] for info in store.list(PACKS)}


def needed_by(store: WriteStore) -> set[str]:
    """The packs that the snapshots need."""
    return {pack.id for key in keys_of(store) for pack in manifest_of(store, key).packs}


def check_sound(store: Store) -> None:
    """Every snapshot that is there is whole."""
    problems = verify(store, threads=1).problems
    assert not problems, problems


def bytes_of(store: Store) -> int:
    """Of everything that is there."""
    prefixes = ("packs", "manifests", "trash", "pins", "condemned", "leases", "damaged", "incoming")
    return sum(info.size for prefix in prefixes for info in store.list(prefix))


def orphan(store: WriteStore, pack: str, size: int = 500) -> None:
    """A pack that nothing needs, as a killed publish leaves it."""
    with store.create(pack_name(pack)) as writer:
        writer.write(bytes(size))
        writer.commit()


class Between(Around):
    """Calls *act* once, just before call number *call*."""

    def __init__(self, store: PruneStore, call: int, act: Callable[[], object]) -> None:
        super().__init__(store)
        self._call, self._act = call, act
        self.log: list[tuple[str, str]] = []

    @property
    def calls(self) -> int:
        return len(self.log)

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        self.log.append((method, name))
        if self.calls - 1 == self._call:
            self._act()
        return act()


class Killed(BaseException):
    """Stands for SIGKILL: what it met does nothing more."""


class Mortal(Around):
    """Dies at call number *call*: that call and all after it do nothing and raise Killed."""

    def __init__(self, store: PruneStore, call: int) -> None:
        super().__init__(store)
        self._call = call
        self.calls = 0

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls > self._call:
            raise Killed
        return act()


class Stepper:
    """
    Runs *act* in a thread, one call of its store at a time.

    Args:
        act: Takes the store.
    """

    def __init__(self, store: PruneStore, act: Callable[[PruneStore], object]) -> None:
        self._turn = threading.Condition()
        self._allowed = 0
        self._waiting = 0
        self._over = False
        self.error: BaseException | None = None
        self.result: Any = None
        gate = self

        class Gated(Around):
            def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
                gate._pass()
                return act()

        def run() -> None:
            try:
                self.result = act(Gated(store))
            except BaseException as error:
                self.error = error
            with self._turn:
                self._over = True
                self._turn.notify_all()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def _pass(self) -> None:
        with self._turn:
            self._waiting += 1
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._allowed > 0, timeout=60)
            self._allowed -= 1
            self._waiting -= 1

    def step(self, calls: int) -> bool:
        """Let so many calls happen; False if it is over before."""
        for _ in range(calls):
            with self._turn:
                assert self._turn.wait_for(lambda: self._waiting or self._over, timeout=60)
                if self._over:
                    return False
                self._allowed += 1
                self._turn.notify_all()
                assert self._turn.wait_for(lambda: self._allowed == 0 or self._over, timeout=60)
        with self._turn:  # until it stands before the next call
            assert self._turn.wait_for(lambda: self._waiting or self._over, timeout=60)
            return not self._over

    def finish(self) -> None:
        """Let it run to its end."""
        while self.step(1):
            pass
        self._thread.join(60)
