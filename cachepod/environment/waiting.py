"""
What a restore does after a miss: it builds, or waits for the one that builds.

The lease lies in the farthest store that gives one, for that is the one which most containers
share. Another store, or none, costs an install that is done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachepod.environment.building import Note, read_note, write_note
from cachepod.environment.private import private_file
from cachepod.errors import CachepodError
from cachepod.snapshot.lease import Lease, Sight, quietly
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.turn import Ending, Turn, await_turn
from cachepod.stores.base import WriteStore

if TYPE_CHECKING:
    from cachepod.environment.config import Settings

#: Entered while another container is waited for, which is no part of a restore's own time.
Pause = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Wait:
    """
    What came of asking for the lease of a key.

    Args:
        outcome: ``taken``, ``taken over`` from a builder that failed, died or was stopped,
            ``awaited``: another builder has published; ``none``: the container goes on alone.

        waited: Seconds.

        built_by: The builder that was met last; empty if none was.

        lease: To be kept for the install; None unless it was taken.

        remark: What a reader of a miss should know, as a clause.
    """

    outcome: str = ""
    waited: float = 0.0
    built_by: str = ""
    lease: Lease | None = None
    remark: str = ""


def build_or_await(
    settings: Settings,
    key: str,
    stores: Sequence[WriteStore],
    published: Callable[[], bool],
    wait: float,
    progress: Progress,
) -> Wait:
    """
    Take the lease of *key* in one of *stores*, or wait until it is *published*.

    Args:
        stores: Those that lack a good snapshot of the key, nearest first.

        published: Whether there is now one to be restored.

        wait: Seconds, at most.
    """
    until = time.monotonic() + wait
    trouble: CachepodError | None = None
    for store in reversed(stores):
        try:
            turn = _turn(settings, key, store, published, until - time.monotonic(), progress)
        except CachepodError as error:
            trouble = error
            continue
        return _kept(settings, key, store, turn)
    waited = wait - (until - time.monotonic())
    why = f"{trouble.message}, so others do not know that this container builds" if trouble else ""
    return Wait("none", waited, remark=why)


def _turn(
    settings: Settings,
    key: str,
    store: WriteStore,
    published: Callable[[], bool],
    wait: float,
    progress: Progress,
) -> Turn:
    waiting = False

    def tell(sight: Sight) -> None:
        nonlocal waiting
        if not waiting:
            progress.phase("wait")
            waiting = True
        whom = sight.claim.holder if sight.claim else "another container"
        progress.status(f"waiting for {whom}, which has been building for {clock(sight.elapsed)}")

    turn = await_turn(
        store,
        key,
        ready=published,
        wait=max(0.0, wait),
        token=_own(settings, key, store),
        told=tell,
    )
    if turn.ending is Ending.TAKEN_OVER and turn.holder is not None:
        progress.note(f"{turn.holder} has not finished: this container builds {key} now")
    return turn


def _own(settings: Settings, key: str, store: WriteStore) -> str:
    """The token of a lease that this machine has from a hook that ended early; empty if none."""
    note = read_note(settings, key)
    if note is None or note.store != store.url:
        return ""
    if settings.wants_environment:
        from filelock import FileLock, Timeout

        # Whoever installs here now goes on with it, and is waited for as any other builder.
        try:
            with FileLock(private_file("install", [settings.prefix], ".lock")).acquire(timeout=0):
                pass
        except Timeout:
            return ""
        except OSError:
            pass
    return note.token


def _kept(settings: Settings, key: str, store: WriteStore, turn: Turn) -> Wait:
    builder = str(turn.holder) if turn.holder else ""
    if turn.ending is Ending.READY:
        return Wait("awaited", turn.waited, builder)
    if turn.lease is None:
        been = f"{builder or 'another container'} has been building it for {clock(turn.elapsed)}"
        if turn.ending is Ending.HOPELESS:
            been += ", but after so many failures nobody waits"
        else:
            been += ", longer than this one waits"
        return Wait("none", turn.waited, builder, remark=been)
    try:
        write_note(settings, Note(key, store.url, turn.lease.token, turn.lease.number))
    except OSError as error:
        # An install that does not know of the lease could not renew it.
        quietly(turn.lease.hand_over)
        return Wait("none", turn.waited, builder, remark=f"no note can be left for it: {error}")
    return Wait(turn.ending.value, turn.waited, builder, turn.lease, "this container builds it")


def clock(seconds: float) -> str:
    """``45 s``, ``1 min 20 s``, ``1 h 02 min``: for what is told again and again."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
