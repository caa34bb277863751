"""How a restore ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachepod.errors import EXIT_DONE, CachepodError

if TYPE_CHECKING:
    from cachepod.snapshot.catalog import Relative
    from cachepod.snapshot.restore import RestoreReport


@dataclass(frozen=True)
class Restoration:
    """
    How a restore ended.

    Args:
        outcome: ``confirmed``, ``restored`` or ``updated``: the trees hold the snapshot;
            ``partial``: a relative's environment was brought, an install must top it up;
            ``miss``, ``unreachable`` or ``damaged``: an install must do it all.

        key: What was looked for.

        exit_code: What the command ends with.

        source: The key of the snapshot that was brought, empty if none was.

        store: Where it came from.

        report: The engine's.

        nearest: The snapshot that comes closest, when the key was not found.

        problem: Why it is not a hit.

        checked: Seconds that trying the interpreter and the imports took.

        waited: Seconds spent waiting for another container to publish the key.

        lease: Who builds after a miss: ``taken`` or ``taken over``: this container; ``awaited``:
            another did; ``none``: this one, without the others knowing. Empty after a plain hit.

        built_by: The other container, as a person calls it.

        remark: What a reader of a miss should know of it, as a clause.

        filling: URLs of nearer stores that get the snapshot in the background.

        lacks: What was asked for and could not be had when the environment was installed.
    """

    outcome: str
    key: str
    exit_code: int = EXIT_DONE
    source: str = ""
    store: str = ""
    report: RestoreReport | None = None
    nearest: Relative | None = None
    problem: CachepodError | None = None
    checked: float = 0.0
    waited: float = 0.0
    lease: str = ""
    built_by: str = ""
    remark: str = ""
    filling: tuple[str, ...] = ()
    lacks: str = ""
