"""
What a restore has just had from a store across a network, for the publish that follows it.

In the hook a publish comes right after every hit. To ask a service again for what it has handed
out a moment ago would cost that start more than all the rest of the publish. A directory is asked
all the same: there it costs nothing.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from cachepod.environment.private import private_file, write_private

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.restoration import Restoration

_LIMIT = 64 * 1024
#: Seconds after which a hit is no news any more.
_RECENT = 60.0


def remember_hit(settings: Settings, result: Restoration) -> None:
    """Leave a note of the store that *result* came from; a note that cannot be left is none."""
    if result.outcome not in ("restored", "updated") or "://" not in result.store:
        return
    document = {"key": result.key, "store": result.store, "time": _now()}
    try:
        file = private_file("hit", settings.places, ".json")
        write_private(file, json.dumps(document))
    except OSError:
        pass


def recent_hit(settings: Settings, key: str) -> str:
    """
    URL of the store that *key* has just come from; empty if that is not known.

    It is told once: whoever asks later finds out by asking the store.
    """
    try:
        file = private_file("hit", settings.places, ".json", create=False)
        with open(file, "rb") as opened:
            found = json.loads(opened.read(_LIMIT))
        file.unlink()
        recent = found["key"] == key and 0 <= _now() - float(found["time"]) <= _RECENT
        return str(found["store"]) if recent else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _now() -> float:
    """Seconds since this machine was started, in which no clock is set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
