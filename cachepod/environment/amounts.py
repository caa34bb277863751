"""Spans of time and amounts of bytes, as the configuration and the command line write them."""

from __future__ import annotations

import math
import re

from cachepod.environment.settings import Given, texts
from cachepod.errors import CachepodError
from cachepod.model.names import check_key

_NUMBER = r"(?P<number>\d+(?:\.\d*)?|\.\d+)"
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES = {
    **{unit: 1000**power for power, unit in enumerate(("", "k", "m", "g", "t"))},
    **{f"{unit}ib": 1024**power for power, unit in enumerate(("", "k", "m", "g", "t")) if unit},
}
_BYTES |= {f"{unit}b": size for unit, size in _BYTES.items() if "i" not in unit}
_TIME_HINT = "write 45s, 90m, 12h, 30d, 2w, or a number of seconds"
_SIZE_HINT = "write 500MB, 50GB, 1.5TB, 40GiB, or a number of bytes"
#: More than anybody means, and less than what arithmetic with dates can bear.
_LONGEST = 1000 * 365 * 86_400
_LARGEST = 1 << 62


def duration(name: str, given: Given) -> float:
    """A span of time, in seconds: ``30d``, ``12h``, ``90m``, ``45s``, or a plain number."""
    return _amount(name, given, _SECONDS, "a span of time", _TIME_HINT, _LONGEST)


def size(name: str, given: Given) -> int:
    """An amount of bytes: ``50GB`` in powers of 1000, ``40GiB`` of 1024, or a plain number."""
    return math.floor(_amount(name, given, _BYTES, "an amount of bytes", _SIZE_HINT, _LARGEST))


def keys(name: str, given: Given) -> tuple[str, ...]:
    """A list of keys of snapshots."""
    found = texts(name, given)
    for key in found:
        try:
            check_key(key)
        except CachepodError as error:
            raise given.problem(f"{name}: {error.message}", error.hint) from None
    return tuple(dict.fromkeys(found))


def _amount(
    name: str, given: Given, units: dict[str, int], what: str, hint: str, most: float
) -> float:
    value = given.value
    if isinstance(value, str):
        match = re.fullmatch(rf"{_NUMBER}\s*(?P<unit>[A-Za-z]*)", value.strip(), re.ASCII)
        factor = units.get(match["unit"].lower()) if match else None
        if match is None or factor is None:
            raise given.problem(f"{name} must be {what}, not {value!r}", hint)
        value = float(match["number"]) * factor
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise given.problem(f"{name} must be {what}", hint)
    if not 0 <= value <= most:  # false for NaN too
        raise given.problem(f"{name} must be {what}, not {value:g}", hint)
    return float(value)
