"""
What this container may use of the machine.

``nproc`` and ``free`` may show the host's cores and memory; what a container may use is what its
cgroup allows, so the limits are read from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """
    Cores that this process may use at once: its affinity, cut by the CPU quota of its cgroup and
    of every one above; a part of a core counts as one.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        allowed = os.cpu_count() or 1
    for folder, version in _cgroups(root, "cpu"):
        if version == 2:
            quota, _, period = _first(folder / "cpu.max").partition(" ")
        else:
            quota, period = (
                _first(folder / "cpu.cfs_quota_us"),
                _first(folder / "cpu.cfs_period_us"),
            )
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            allowed = min(allowed, -(-int(quota) // int(period)))
    return max(allowed, 1)


def memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, cut by its cgroups' limits."""
    total = 0
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
            break
    limits = [total] if total else []
    for folder, version in _cgroups(root, "memory"):
        text = _first(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if text.isdigit():
            limits.append(int(text))
    return min(limits, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """
    The folders that can limit this process for *controller*, innermost first, with 1 or 2 for the
    version of the hierarchy.

    Source: cgroups(7). A line of ``/proc/self/cgroup`` is ``4:memory:/path``, or ``0::/path`` for
    version 2. The path counts from the hierarchy's root, of which a container may see only a part:
    the mount's own root is taken off it.
    """
    paths: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            paths.update((name, parts[2]) for name in parts[1].split(","))
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        mount, system = left.split(" "), right.split(" ")
        if len(mount) < 5 or len(system) < 3:
            continue
        if system[0] == "cgroup2":
            version, path = 2, paths.get("")
        elif system[0] == "cgroup" and controller in system[2].split(","):
            version, path = 1, paths.get(controller)
        else:
            continue
        if path is None:
            continue
        shown, point = _unescape(mount[3]), _unescape(mount[4])
        if shown != "/":
            path = path[len(shown) :] if f"{path}/".startswith(f"{shown}/") else "/"
        top = folder = root / point.lstrip("/")
        if ".." not in path.split("/"):  # else it leads out of what this namespace can see
            folder = top / path.lstrip("/")
        while True:
            yield folder, version
            if folder == top:
                break
            folder = folder.parent


def _first(path: Path) -> str:
    """The first line of *path*; empty where it cannot be read."""
    return next(iter(_lines(path)), "").strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
