"""All that a prune looks at before it does anything: from here its plan is made."""

from __future__ import annotations

import time

from cachepod.model.names import CONDEMNED, DAMAGED, INCOMING, LEASES, PINS, TRASH
from cachepod.snapshot.census import take_census
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.prune_plan import Litter, Plan, Policy, make_plan
from cachepod.snapshot.signing import Keyring
from cachepod.snapshot.uses import last_used, stale
from cachepod.stores.base import ObjectInfo, PruneStore

__all__ = ["Plan", "Policy", "plan_prune"]


def plan_prune(
    store: PruneStore,
    policy: Policy,
    *,
    now: float | None = None,
    keyring: Keyring | None = None,
    progress: Progress | None = None,
) -> Plan:
    """
    Look at *store* and plan what :func:`.prune.prune` does. Nothing is written.

    Args:
        now: Seconds since 1970, by the clock of this machine if it is not given. What is decided
            by it costs an installation at most if it is wrong.

        keyring: That of :func:`.prune.prune`, if there is one.

    Raises:
        ManifestUnreadable: What a snapshot needs is not known, so nothing can be deleted.

        StoreUnreachable: As the store has it.
    """
    told = progress or NoProgress()
    if now is None:
        now = time.time()
    # Before the census: the trash of now, not what a prune beside this one is about to put there.
    trash = list(store.list(TRASH))
    damaged = list(store.list(DAMAGED))
    held = [info for prefix in (PINS, LEASES, CONDEMNED, INCOMING) for info in store.list(prefix)]
    leftovers = list(store.leftovers())
    used = last_used(store)
    census = take_census(store, told)
    records = [ObjectInfo(name, 0, 0.0) for name in stale(store, now)]
    litter = Litter([*trash, *records], damaged, held, leftovers)
    can_sign = keyring is not None and keyring.own is not None
    fixed = frozenset(each.name for each in census.snapshots if each.signed and not can_sign)
    return make_plan(census, policy, now, used=used, litter=litter, fixed=fixed)
