"""What the examinations of a store and of a prefix share."""

from __future__ import annotations

from pathlib import Path

from cachepod.environment.diagnosis import Check, Severity
from cachepod.environment.filesystem import free_space, mtime_granularity, try_probe
from cachepod.errors import human_bytes

_LITTLE_SPACE = 2_000_000_000
_NAMES_OF_TIMES = {1: "1 ns", 100: "100 ns", 1000: "1 µs", 1_000_000: "1 ms", 10_000_000: "10 ms"}

#: File systems that a container's own disk is made of.
OVERLAYS = ("overlay", "fuse.fuse-overlayfs")


def space(about: str, directory: Path, min_free: float, *, remote: bool) -> Check:
    """What is free in *directory*; *remote* says that the answer is not to be trusted."""
    free, total = free_space(directory)
    result = f"{human_bytes(free)} of {human_bytes(total)}"
    if remote:
        return Check(
            about,
            "free space",
            f"{result}, says df",
            "of the whole cluster, perhaps: a quota shows only when it is reached",
            Severity.NOTE,
        )
    little = free < max(_LITTLE_SPACE, total * min_free)
    return Check(
        about,
        "free space",
        result,
        "too little for a torch environment" if little else "enough to begin with",
        Severity.WARNING if little else Severity.OK,
    )


def ability(about: str, name: str, work: Path, works: str, fails: str, severity: Severity) -> Check:
    """Try the probe *name* in *work*; *works* and *fails* say what either outcome means."""
    why = try_probe(name, work)
    if why:
        return Check(about, name, f"no: {why}", fails, severity)
    return Check(about, name, "works", works)


def granularity(work: Path) -> str:
    """How exactly times of files are kept in *work*, in words."""
    kept_to = mtime_granularity(work)
    if kept_to is None:
        return "cannot be set"
    kept = _NAMES_OF_TIMES.get(kept_to, f"{kept_to // 1_000_000_000} s")
    return f"kept to {kept}"
