"""Containers that begin at the same moment, each a process of its own, behind one wire."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure, stores
from benchmarks.scale.subject import ROOT
from benchmarks.wire import Wire

#: Requests that a container has in flight, as on a mounted volume.
PARALLEL = 8


@dataclass(frozen=True)
class Together:
    """
    What some containers took that were let go together.

    Args:
        seconds: Of each, from that moment to the end of its process; ascending.

        costs: Of each process, in no order; their wall time is of no use.

        moved: Bytes that went over the wire, of all.

        requests: How many there were, of all.

        busy: Share of the cores' time that was worked until the last one ended.
    """

    seconds: Sequence[float]
    costs: Sequence[measure.Cost]
    moved: int
    requests: int
    busy: float


def run_together(commands: Sequence[Sequence[str]], wire: Wire) -> Together:
    """
    Run *commands*, each of which waits at the gate of *wire*.

    Raises:
        CommandFailed: One of them did; all have ended.
    """
    costs: list[measure.Cost] = []
    ends: list[float] = []
    failed: list[BaseException] = []

    def work(command: Sequence[str]) -> None:
        try:
            cost = measure.run(command, cwd=ROOT)
            ends.append(time.monotonic())
            costs.append(cost)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(command,)) for command in commands]
    for thread in threads:
        thread.start()
    try:
        while wire.arrived() < len(commands) and not failed:
            time.sleep(0.02)
    finally:
        look, begun = measure.cpu_times(), wire.let_go()
        for thread in threads:
            thread.join()
    busy = measure.busy_since(look)
    if failed:
        raise failed[0]
    traffic = wire.traffic()
    seconds = sorted(end - begun for end in ends)
    return Together(seconds, costs, traffic.down, sum(traffic.requests.values()), busy)


def by_cachepod(wire: Path, store: Path) -> Callable[[Path], list[str]]:
    """From a container's place to the real command, with its store behind the *wire*."""
    far = [*_far(wire), "--parallel", str(PARALLEL), "cachepod"]
    return lambda place: [*far, *stores.restore_words(store, place / "tree")]


def by_tar(wire: Path, archive: Path) -> Callable[[Path], list[str]]:
    """The same with ``zstd -dc | tar -x``, whose *archive* comes over the wire."""
    words = '"${@:3}" cat "$1" | zstd -dc | { mkdir "$2" && tar -x -C "$2"; }'
    return lambda place: measure.pipeline(words, archive, place / "tree", *_far(wire))


def _far(wire: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.far", str(wire), "--gate"]
