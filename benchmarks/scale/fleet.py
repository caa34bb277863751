"""
A fleet with new requirements: containers that start at once run the real start-up hook, one of
them installs, and the others wait for it and restore.

Each is a process with mounts and a disk of its own, and all have one store, a directory behind the
modelled wire. So what one more waiting container asks of the store can be counted.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.scale.together import PARALLEL
from benchmarks.wire import Wire


@dataclass(frozen=True)
class FleetRun:
    """
    How a fleet started.

    Args:
        seconds: Of each container, from the start of all to the end of its hook; ascending.

        builder: Seconds until the one that installs had published.

        installs: How many installed; 1 is as it should be.

        waited: Restores that waited for the builder.

        requests: All that the store was asked, by kind.

        busy: Share of the cores' time that was worked.
    """

    seconds: list[float]
    builder: float
    installs: int
    waited: int
    requests: dict[str, int]
    busy: float


def missing() -> str:
    """Why no fleet can be started here; empty if it can."""
    if os.geteuid() != 0:
        return "a container's own mounts need root"
    if shutil.which("unshare") is None:
        return "no unshare here"
    try:
        import pytest  # noqa: F401
    except ImportError:
        return "the containers come with cachepod[dev]"
    return ""


def run_fleet(folder: Path, containers: int, wire: Wire, size: int, install: float) -> FleetRun:
    """
    Start a fleet and wait for its last container.

    Args:
        folder: A new directory.

        size: Bytes of the largest package, which does not compress.

        install: Seconds that one package takes to build, beside what an install takes anyway.

    Raises:
        CommandFailed: A container did not get its environment.
    """
    from tests.support.fleet import Fleet
    from tests.support.project import make_wheel

    store = folder / "store"
    fleet = Fleet(folder, lambda number: str(store))
    content = random.Random(size).randbytes(size)
    make_wheel(folder / "wheels", "large", "1.0", {"large/data.bin": content})
    fleet.packages += ["large==1.0", str(_slow_package(folder, install))]
    script = folder / "bin" / "cachepod"
    far = f"-m benchmarks.far {wire.path} --parallel {PARALLEL} cachepod"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {far} "$@"\n')
    ends = [0.0] * containers
    look, begun = measure.cpu_times(), time.monotonic()
    running = [fleet.start() for _ in range(containers)]

    def watch(number: int) -> None:
        running[number].wait()
        ends[number] = time.monotonic() - begun

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(containers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    busy = measure.busy_since(look)
    works = fleet.works()
    if not all(works):
        raise measure.CommandFailed(f"{works.count(False)} containers failed\n{fleet.errors()}")
    builders = [
        number for number, disk in enumerate(fleet.disks) if (disk / "install.json").exists()
    ]
    return FleetRun(
        sorted(ends),
        min(ends[number] for number in builders),
        len(builders),
        sum(each.get("lease") == "awaited" for each in fleet.said("restore")),
        wire.traffic().requests,
        busy,
    )


def _slow_package(folder: Path, seconds: float) -> Path:
    """A package from source whose build takes its time."""
    from tests.support.project import make_slow_package, make_wheel

    wheel = make_wheel(folder / "built", "slow", "1")
    return make_slow_package(
        folder / "slow",
        "import os, shutil, time",
        "def build_wheel(folder, *words, **more):",
        f"    time.sleep({seconds})",
        f"    return os.path.basename(shutil.copy({str(wheel)!r}, folder))",
    )
