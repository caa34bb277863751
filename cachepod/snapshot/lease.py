"""
Who builds a key: a lease. It spares work, and nothing else rests on it.

A lease is an object ``leases/<name>/<n>``; of several the highest n counts, and it says in JSON::

    holder    host, pid and pod, for people
    token     16 hex digits, drawn at random: whose it is
    beat      a number that the holder raises every ten seconds
    elapsed   seconds for which it has been held, by the holder's own clock
    state     building; failed: the holder gave up; free: it left before it could tell
    failures  how many holders of this name have failed or died, one after another

Taking is the exclusive creation of n + 1, and a look whether what lies there is really one's own:
a store may say "you were first" to everybody. Releasing deletes the objects, the highest last.

No clock of another machine is looked at. Whether a holder lives is judged by whether its object
changes while somebody watches it with a clock of his own. A lease that is lost, or held by two,
costs work that is done twice, never a broken snapshot: whoever builds commits by the manifest.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing, StoreUnreachable
from cachepod.model.names import LEASES, lease_name
from cachepod.snapshot.claim import LIMIT, Claim, Holder, State
from cachepod.stores.base import Store, WriteStore, put

BEAT = 10.0  # seconds between two signs of life
STALE = 45.0  # seconds without one, after which a holder is taken for dead
SETTLE = (1.5, 3.0)  # seconds to wait for rivals where a store lets several be first
MOST_FAILURES = 3  # holders that fail one after another; then nobody waits for the next

_JOIN = 2.0  # seconds to wait for a thread that may be stuck in the kernel

Clock = Callable[[], float]
Sleep = Callable[[float], None]


class Standing(Enum):
    """How a lease stands in the eyes of somebody who watches it."""

    FREE = "free"
    HELD = "held"
    STALE = "stale"


@dataclass(frozen=True)
class Sight:
    """
    What a look at a lease has shown.

    Args:
        standing: Whether it may be taken: it is free, or its holder is taken for dead.

        number: The highest n; 0 where there is none.

        claim: What it says; None where there is none, or it cannot be understood.

        elapsed: Seconds for which the holder has been building, as far as one can know.

        failures: How many holders have failed or died, the one that is taken for dead included.
    """

    standing: Standing
    number: int = 0
    claim: Claim | None = None
    elapsed: float = 0.0
    failures: int = 0


class Watch:
    """
    Judges by change, and by a clock of its own, whether the holder of a lease lives.

    Time during which the store did not answer does not count against the holder: it could not
    give a sign of life either.

    Args:
        store: Where the lease is.

        name: What is leased: a key, or ``fill.<key>``.

        clock: Seconds that only go forward.
    """

    def __init__(self, store: Store, name: str, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._name = name
        self._clock = clock
        self._content: tuple[int, bytes] | None = None
        self._highest = 0
        self._quiet = 0.0
        self._changed = 0.0
        self._looked: float | None = None

    def look(self) -> Sight:
        """
        How the lease stands now.

        Raises:
            StoreUnreachable, NewerFormat: The store cannot be asked.
        """
        if self._looked is not None:
            self._quiet += self._clock() - self._looked
            self._looked = None
        content = self._read()
        now = self._looked = self._clock()
        if content != self._content:
            self._content, self._quiet, self._changed = content, 0.0, now
        return self._judge(now)

    def beaten(self, number: int) -> None:
        """Somebody else was first to create *number*, also where a listing does not show it."""
        self._highest = max(self._highest, number)

    def _read(self) -> tuple[int, bytes]:
        listed = max(_numbers(self._store, self._name), default=0)
        for number in sorted({listed, max(listed, self._highest)}, reverse=True):
            if not number:
                break
            try:
                data = self._store.read(lease_name(self._name, number), limit=LIMIT)
            except ObjectMissing:
                continue
            except CorruptObject:
                data = b""
            self._highest = number
            return number, data
        self._highest = 0
        return 0, b""

    def _judge(self, now: float) -> Sight:
        assert self._content is not None
        number, data = self._content
        if not number:
            return Sight(Standing.FREE)
        claim = Claim.decode(data)
        failures = claim.failures if claim else 0
        if claim and claim.state is not State.BUILDING:
            return Sight(Standing.FREE, number, claim, failures=failures)
        elapsed = (claim.elapsed if claim else 0.0) + now - self._changed
        if self._quiet >= STALE:
            return Sight(Standing.STALE, number, claim, elapsed, failures + 1)
        return Sight(Standing.HELD, number, claim, elapsed, failures)


class Lease:
    """
    A lease that was taken. Its holder may lose it, and then simply goes on.

    A *fresh* one was taken a moment ago, and needs no sign of life yet.

    Every method may raise StoreUnreachable, and SpaceExhausted where it writes.
    """

    def __init__(
        self,
        store: WriteStore,
        name: str,
        number: int,
        claim: Claim,
        clock: Clock = time.monotonic,
    ) -> None:
        self.store = store
        self.name = name
        self.number = number
        self.lost = False
        self.fresh = False
        self._claim = claim
        self._clock = clock
        self._since = clock() - claim.elapsed

    @property
    def token(self) -> str:
        """What tells it from every other; with it another process can :meth:`resume` it."""
        return self._claim.token

    @classmethod
    def resume(
        cls,
        store: WriteStore,
        name: str,
        token: str,
        number: int = 0,
        clock: Clock = time.monotonic,
    ) -> Lease | None:
        """
        The lease that another process of this machine took; None if it is lost.

        Args:
            number: What it was, also where a listing does not show it yet.
        """
        number = max(number, *_numbers(store, name), 0)
        claim = _claim_at(store, name, number) if number else None
        if claim is None or claim.token != token or claim.state is not State.BUILDING:
            return None
        return cls(store, name, number, replace(claim, holder=Holder.here()), clock)

    def beat(self) -> bool:
        """Give a sign of life; False if the lease is lost."""
        found = self._found()
        if found is None:
            return False
        shown = found.beat >= self._claim.beat
        self._claim = replace(
            self._claim, beat=self._claim.beat + 1, elapsed=self._clock() - self._since
        )
        if shown:
            self._write()
        else:
            self._succeed()
        return not self.lost

    def release(self) -> None:
        """What was leased is done: delete the lease, its predecessors first."""
        if self._found() is None:
            return
        for number in sorted(_numbers(self.store, self.name) | {self.number}):
            if number <= self.number:
                self.store.delete(lease_name(self.name, number))
        self.lost = True

    def fail(self) -> None:
        """What was leased failed: whoever waits is to try at once."""
        self._leave(State.FAILED, 1)

    def hand_over(self) -> None:
        """This holder was stopped, which says nothing of what is leased: the next one, please."""
        self._leave(State.FREE, 0)

    def _leave(self, state: State, failures: int) -> None:
        if self._found() is None:
            return
        self._claim = replace(
            self._claim,
            beat=self._claim.beat + 1,
            state=state,
            failures=self._claim.failures + failures,
        )
        self._write()
        self.lost = True

    def confirm(self) -> bool:
        """Whether the lease is still this holder's."""
        return self._found() is not None

    def _found(self) -> Claim | None:
        """What is stored, if it is still ours."""
        if self.lost:
            return None
        highest = max(_numbers(self.store, self.name) | {self.number})
        claim = _claim_at(self.store, self.name, highest)
        if claim is None or claim.token != self.token:
            self.lost = True
            return None
        self.number = highest
        return claim

    def _write(self) -> None:
        self.store.replace(lease_name(self.name, self.number), self._claim.encode())

    def _succeed(self) -> None:
        """Go on under the next number: this store has lost what was written over the old one."""
        if put(self.store, lease_name(self.name, self.number + 1), self._claim.encode()):
            self.number += 1
        else:
            self.lost = True


def take(
    store: WriteStore,
    name: str,
    sight: Sight,
    *,
    token: str = "",
    sleep: Sleep = time.sleep,
    clock: Clock = time.monotonic,
) -> Lease | None:
    """
    Take the lease of *name* after what was seen of it; None if another was first.

    Args:
        sight: Free or stale: the new one has the next number.

        token: Of this taker; drawn at random if empty. Who may have to try again keeps his own, so
            that he knows an attempt that worked and whose answer was lost.

        sleep: Waits for rivals, where the store lets several be first.

    Raises:
        StoreUnreachable, SpaceExhausted: The lease could not be written, or not be read back.
    """
    number = sight.number + 1
    claim = Claim(Holder.here(), token or new_token(), failures=sight.failures)
    lease = Lease(store, name, number, claim, clock)
    try:
        try:
            first = put(store, lease_name(name, number), claim.encode())
        except StoreUnreachable:
            if not lease.confirm():
                raise
            first = True
        if first and not store.exclusive:
            sleep(random.uniform(*SETTLE))
        lease.fresh = lease.confirm()
        return lease if lease.fresh else None
    except CachepodError:
        raise  # if it was taken all the same, whoever tries again knows it by its token
    except BaseException:
        quietly(lease.hand_over)
        raise


def new_token() -> str:
    """16 hex digits that nobody else has."""
    return os.urandom(8).hex()


@contextmanager
def beating(lease: Lease | None) -> Iterator[None]:
    """A thread renews *lease* meanwhile; nothing of it is ever an error, and None is no lease."""
    if lease is None:
        yield
        return
    held, over = lease, threading.Event()

    def renew() -> None:
        pause = BEAT if held.fresh else 0.0
        while not over.wait(pause):
            try:
                if not held.beat():
                    return
            except CachepodError:
                pass  # the store may answer the next time
            pause = BEAT

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_JOIN)


@contextmanager
def held(lease: Lease | None) -> Iterator[None]:
    """
    Work under *lease*: renewed meanwhile, released at the end, failed on an error, handed over when
    the work is interrupted. None is no lease.
    """
    try:
        with beating(lease):
            yield
    except Exception:
        if lease is not None:
            quietly(lease.fail)
        raise
    except BaseException:
        if lease is not None:
            quietly(lease.hand_over)
        raise
    if lease is not None:
        quietly(lease.release)


def quietly(act: Callable[[], None]) -> None:
    """The end of a lease is never an error: those who wait find out by the silence as well."""
    try:
        act()
    except CachepodError:
        pass


def _numbers(store: Store, name: str) -> set[int]:
    """Every n of the lease *name*."""
    start = f"{LEASES}/{name}/"
    found = set()
    for info in store.list(f"{LEASES}/{name}"):
        rest = info.name.removeprefix(start)
        if rest.isascii() and rest.isdigit() and len(rest) < 16 and rest == str(int(rest)):
            found.add(int(rest))
    return found


def _claim_at(store: Store, name: str, number: int) -> Claim | None:
    try:
        return Claim.decode(store.read(lease_name(name, number), limit=LIMIT))
    except (ObjectMissing, CorruptObject):
        return None
