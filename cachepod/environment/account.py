"""What the hook did, noted in the stores for ``cachepod stats`` and for the policy of a prune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachepod.errors import EXIT_DAMAGED, EXIT_MISS, EXIT_PARTIAL
from cachepod.snapshot.uses import Event, Use, record

if TYPE_CHECKING:
    from cachepod.environment.publication import Publication
    from cachepod.environment.restoration import Restoration
    from cachepod.stores.base import WriteStore


def note_restore(result: Restoration, stores: Sequence[WriteStore], seconds: float) -> str:
    """
    Note how a restore ended, in the store that it came from; a miss in the nearest.

    Never an error, and bounded in time; see :func:`cachepod.snapshot.uses.record`. What was
    confirmed asked no store, and a store that cannot be reached is not asked again.

    Args:
        seconds: It took altogether.

    Returns:
        Why it is not noted, as a sentence; empty if all is well.
    """
    key, report = result.key, result.report
    # Where nobody else was met, it was only made sure that nobody else builds.
    waited = result.waited if result.built_by else 0.0
    if result.outcome in ("restored", "updated") and report is not None:
        saved = report.install_seconds - seconds if report.install_seconds else 0.0
        use = Use(Event.HIT, seconds, report.read, waited, saved)
    elif result.exit_code == EXIT_PARTIAL and report is not None and result.store:
        # Of the snapshot that was brought: a prune shall know that it is of use.
        key, use = result.source, Use(Event.PARTIAL, seconds, report.read, waited)
    elif result.exit_code in (EXIT_MISS, EXIT_DAMAGED):
        use = Use(Event.MISS, seconds, waited=waited)
    else:
        return ""
    store = _named(stores, result.store) or (stores[0] if stores else None)
    return record(store, key, use) if store is not None else ""


def note_publish(done: Sequence[Publication], stores: Sequence[WriteStore], key: str) -> str:
    """Note what a publish stored or copied, in each store; as :func:`note_restore`."""
    trouble = ""
    for each in done:
        store = _named(stores, each.store)
        if store is None:
            continue
        if each.outcome == "stored" and each.report is not None:
            took, written = sum((each.report.phases or {}).values()), each.report.stored_new
        elif each.outcome == "copied" and each.copied is not None:
            took, written = sum(each.copied.phases.values()), each.copied.size
        else:
            continue
        said = record(store, key, Use(Event.PUBLISH, took, written))
        trouble = trouble or said
    return trouble


def _named(stores: Sequence[WriteStore], url: str) -> WriteStore | None:
    return next((store for store in stores if store.url == url), None)
