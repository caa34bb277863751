"""
What somebody does who needs packs that a prune has condemned, and cannot choose others.

He pins them, and then waits until no prune is at it any more::

    the prune                                           what becomes of the pinned packs
    is still to look at the pins                        they stay
    had looked before the pin was there                 they are deleted soon, for that is all it
                                                        still does; then its list goes
    died; its list stays, and nobody renews it          they stay: the next prune looks at the pins
    slept, and goes on                                  they stay: it finds that its list was not
                                                        renewed for long, and looks again
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachepod.errors import ObjectMissing
from cachepod.model.names import CONDEMNED
from cachepod.snapshot.beat import UNCHANGED, Clock, boottime
from cachepod.snapshot.pins import PIN_LIMIT, packs_in
from cachepod.stores.base import Store

_POLL = 2.0


def outwait(
    store: Store,
    packs: frozenset[str],
    patience: float,
    *,
    told: Callable[[], None] = lambda: None,
    clock: Clock = boottime,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """
    Wait until no living prune has any of *packs* condemned; the caller has pinned them.

    Args:
        patience: Seconds to wait at most.

        told: Called at every look.

    Returns:
        Whether the packs that are there now stay there. False: the patience was over before.

    Raises:
        StoreUnreachable, CorruptObject: The lists of condemned packs cannot be read.
    """
    began = clock()
    seen: dict[str, tuple[bytes, float]] = {}
    while True:
        told()
        lists = _lists(store)
        now = clock()
        living = False
        for name, data in lists.items():
            if seen.get(name, (b"", 0.0))[0] != data:
                seen[name] = data, now
            if packs & packs_in(data, name) and now - seen[name][1] < UNCHANGED:
                living = True
        if not living:
            return True
        left = began + patience - now
        if left <= 0:
            return False
        sleep(min(_POLL, left))


def _lists(store: Store) -> dict[str, bytes]:
    found = {}
    for info in store.list(CONDEMNED):
        try:
            found[info.name] = store.read(info.name, limit=PIN_LIMIT)
        except ObjectMissing:
            continue
    return found
