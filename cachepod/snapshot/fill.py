"""
Fill a store with one snapshot of another, one process of the fleet at a time.

A hundred containers that restore from a far store at once all want to fill the near one. The lease
``fill.<key>`` in the store that is filled lets one of them do it; without it the work would be done
twice, and nothing worse.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cachepod.errors import CachepodError, SpaceExhausted
from cachepod.model.names import manifest_name
from cachepod.snapshot.copy import BROUGHT, CopyReport, copy
from cachepod.snapshot.copyplan import plan_copy
from cachepod.snapshot.lease import MOST_FAILURES, STALE, Lease, Watch, beating, quietly
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.turn import await_turn
from cachepod.stores.base import Store, WriteStore, exists

#: Seconds to watch another filler: long enough to know whether it lives.
PATIENCE = STALE + 15.0


@dataclass(frozen=True)
class FillReport:
    """
    How filling ended.

    Args:
        outcome: ``filled``; ``present``: nothing was missing, or another process has brought it;
            ``busy``: another is at it; ``full``: so many have failed for want of space that
            nobody tries again until a prune. Else what the copy says of a snapshot that it did not
            bring: ``damaged``, ``skipped``, ``kept``, ``busy``.

        report: Of the copy, if there was one.
    """

    outcome: str
    report: CopyReport | None = None


def fill(
    source: Store,
    destination: WriteStore,
    key: str,
    *,
    threads: int = 0,
    progress: Progress | None = None,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> FillReport:
    """
    Bring the snapshot *key* from *source* to *destination*, unless another process does.

    Packs of it that *destination* has and that are missing or marked as damaged are brought too.

    Args:
        patience: Seconds for which another that seems to be at it is watched.

    Raises:
        As :func:`.copy.copy`. Want of space is remembered in the lease: who has met it several
        times in a row does not try again.
    """
    told = progress or NoProgress()
    if plan_copy(source, destination, [key], progress=told).empty:
        return FillReport("present")
    name = f"fill.{key}"
    if Watch(destination, name, clock).look().failures >= MOST_FAILURES:
        return FillReport("full")
    lacking = not exists(destination, manifest_name(key))

    def ready() -> bool:
        try:
            return lacking and exists(destination, manifest_name(key))
        except CachepodError:
            return False

    told.phase("await turn")
    turn = await_turn(
        destination,
        name,
        ready=ready,
        wait=patience,
        told=lambda _: told.advance(0, 0),  # a watchdog sees that this is no standstill
        clock=clock,
        sleep=sleep,
    )
    if turn.lease is None:
        return FillReport("present" if ready() else "busy")
    report = _under(
        turn.lease, lambda: copy(source, destination, [key], threads=threads, progress=told)
    )
    outcome = report.snapshots[0].outcome
    return FillReport("filled" if outcome in BROUGHT else outcome, report)


def _under(lease: Lease, act: Callable[[], CopyReport]) -> CopyReport:
    """*act* while *lease* is renewed; only want of space counts as a failure."""
    try:
        with beating(lease):
            report = act()
    except SpaceExhausted:
        quietly(lease.fail)
        raise
    except BaseException:
        quietly(lease.hand_over)
        raise
    quietly(lease.release)
    return report
