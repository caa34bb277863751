"""
Await one's turn: until another has done the work, or the lease of it can be had.

The work is done when *ready* says so; it alone looks for what is being made. The lease only says
whether it is worth while to wait for it.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from cachepod.errors import CachepodError, StoreUnreachable
from cachepod.snapshot import lease as leases
from cachepod.snapshot.claim import Holder
from cachepod.snapshot.lease import Clock, Lease, Sight, Sleep, Standing, Watch
from cachepod.stores.base import WriteStore

PAUSE = (0.5, 5.0)  # seconds between two looks at the lease: at first, and at most
GLANCE = 1.0  # seconds, at most, between two questions whether the work is done: they cost little


class Ending(str, Enum):
    """How waiting ended."""

    READY = "ready"
    TAKEN = "taken"
    TAKEN_OVER = "taken over"
    TIRED = "tired"
    HOPELESS = "hopeless"


@dataclass(frozen=True)
class Turn:
    """
    How waiting ended.

    Args:
        ending: ``ready``: another has done the work. ``taken``: it is ours, nobody was at it.
            ``taken over``: it is ours, for a holder died, failed or was stopped. ``tired``: the
            patience is over, another is at it. ``hopeless``: so many have failed that nobody
            waits any more.

        lease: To be renewed and released; None unless it was taken.

        waited: Seconds.

        holder: Who was at it when it was last seen; None if nobody was met.

        elapsed: Seconds for which that one had been at it.
    """

    ending: Ending
    lease: Lease | None = None
    waited: float = 0.0
    holder: Holder | None = None
    elapsed: float = 0.0


def await_turn(
    store: WriteStore,
    name: str,
    *,
    ready: Callable[[], bool],
    wait: float,
    token: str = "",
    told: Callable[[Sight], None] = lambda sight: None,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Turn:
    """
    Wait until *ready*, or until the lease *name* is ours, for at most *wait* seconds.

    Args:
        store: Where the lease is. Once it has answered, failures of it are waited out.

        name: A key for its build, ``fill.<key>`` for the filling of one store.

        ready: Whether the work is done. Asked at every look, every second between two of them,
            and once more when the lease was taken. It must not raise what should not end the
            waiting.

        wait: Seconds; 0 takes a lease that can be had, and does not wait for another.

        token: Of a lease that this machine may hold from before.

        told: Called at every look at a lease that another holds, and while the store fails.

    Raises:
        CachepodError: The store cannot be asked for a lease at all, or not be written to.
    """
    watch = Watch(store, name, clock)
    token = token or leases.new_token()
    started, pause = clock(), PAUSE[0]
    seen: Sight | None = None
    met: Sight | None = None
    met_at = started

    def ended(ending: Ending, lease: Lease | None = None) -> Turn:
        holder = met.claim.holder if met and met.claim else None
        return Turn(ending, lease, clock() - started, holder, met.elapsed if met else 0.0)

    while True:
        if ready():
            return ended(Ending.READY)
        trouble: CachepodError | None = None
        try:
            seen = watch.look()
        except CachepodError:
            if seen is None:
                raise
            if met is not None:
                told(replace(met, elapsed=met.elapsed + clock() - met_at))
        else:
            if _is_held_by_another(seen, token):
                met, met_at = seen, clock()
                if seen.failures >= leases.MOST_FAILURES:
                    return ended(Ending.HOPELESS)
                told(seen)
            else:
                met = seen if seen.claim and seen.claim.token != token else met
                try:
                    lease = _had(store, name, seen, token, clock, sleep)
                except StoreUnreachable as error:
                    if not error.transient:
                        raise
                    lease, trouble = None, error
                if lease is not None:
                    if _is_needed(lease, ready):
                        ending = Ending.TAKEN if met is None else Ending.TAKEN_OVER
                        return ended(ending, lease)
                    return ended(Ending.READY)
                watch.beaten(seen.number + 1)
        left = started + wait - clock()
        if left <= 0:
            if trouble is not None:
                raise trouble
            return ended(Ending.TIRED)
        moment = min(left, pause * random.uniform(0.5, 1.0))
        pause = min(1.5 * pause, PAUSE[1])
        glances = math.ceil(moment / GLANCE)
        for number in range(glances):
            sleep(moment / glances)
            if number + 1 < glances and ready():
                return ended(Ending.READY)


def _is_needed(lease: Lease, ready: Callable[[], bool]) -> bool:
    """Whether the work is still to be done; a lease that is of no use is left."""
    try:
        needed = not ready()
    except BaseException:
        leases.quietly(lease.hand_over)
        raise
    if not needed:
        leases.quietly(lease.release)
    return needed


def _is_held_by_another(seen: Sight, token: str) -> bool:
    return seen.standing is Standing.HELD and (seen.claim is None or seen.claim.token != token)


def _had(
    store: WriteStore, name: str, seen: Sight, token: str, clock: Clock, sleep: Sleep
) -> Lease | None:
    """The lease, if it is free, stale or ours already."""
    if seen.standing is Standing.HELD:
        return Lease.resume(store, name, token, seen.number, clock)
    return leases.take(store, name, seen, token=token, sleep=sleep, clock=clock)
