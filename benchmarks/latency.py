"""
Restores from a store that is far away: latency on every request, and a limited rate.

::

    python -m benchmarks.latency --tree DIR [--store DIR] [--latency MS ...] [--rate MB/S ...]
    python -m benchmarks.latency --tree DIR --through s3 ...

Through ``directory`` (the default) the store is a directory, and a wrapper in the restoring process
lets each request take its time: that costs no CPU. Through ``s3`` it is ``rclone serve s3`` behind
a proxy that does the same, all on the cores of this machine. What the rate alone allows is the
bytes that the restore reads, at that rate; a rate of 0 is no limit, and there the restore without
latency of the same table is what a line is compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks import measure
from benchmarks.candidates import KEY, Archives
from benchmarks.ground import drop_caches, open_ground
from cachepod.snapshot.restore import restore
from cachepod.snapshot.targets import Target
from cachepod.stores.base import ObjectInfo, Store
from cachepod.stores.local import LocalStore
from tests.support import s3

Result = TypeVar("Result")


class Distant(Store):
    """
    Another store, seen from far away.

    Args:
        latency: Seconds that each request takes at least.

        rate: Bytes a second of all requests together; 0 is no limit.

        parallel_reads: As the protocol has it.
    """

    def __init__(self, store: Store, latency: float, rate: float, parallel_reads: int) -> None:
        self._store = store
        self._latency = latency
        self._rate = rate
        self._parallel_reads = parallel_reads
        self._lock = threading.Lock()
        self._free = 0.0
        self.requests = 0
        self.bytes = 0

    @property
    def url(self) -> str:
        """That of the store."""
        return self._store.url

    @property
    def parallel_reads(self) -> int:
        """As given."""
        return self._parallel_reads

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says."""
        return self._far(lambda: self._store.read(name, limit=limit), len)

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says."""
        self._far(lambda: self._store.read_range(name, offset, into), lambda _: into.nbytes)

    def size(self, name: str) -> int:
        """As the protocol says."""
        return self._far(lambda: self._store.size(name), lambda _: 0)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says."""
        yield from self._far(lambda: list(self._store.list(prefix)), lambda _: 0)

    def _far(self, ask: Callable[[], Result], size: Callable[[Result], int]) -> Result:
        arrives = time.monotonic() + self._latency
        try:
            result = ask()
        except BaseException:
            time.sleep(max(0.0, arrives - time.monotonic()))
            raise
        count = size(result)
        with self._lock:
            self.requests += 1
            self.bytes += count
            if self._rate:
                # One wire for all: the body begins when the request is through and the wire free.
                self._free = arrives = max(arrives, self._free) + count / self._rate
        time.sleep(max(0.0, arrives - time.monotonic()))
        return result


@dataclass
class Line:
    """The runs with one latency (seconds) and one rate (bytes a second)."""

    latency: float
    rate: float
    runs: list[measure.Cost] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median wall time."""
        return measure.median([cost.seconds for cost in self.runs])

    @property
    def read(self) -> int:
        """Bytes that a restore reads."""
        return int(self.runs[-1].report["read"])


Command = Callable[[Line, Path], list[str]]


@contextmanager
def through_directory(
    archives: Archives, options: argparse.Namespace
) -> Iterator[tuple[Command, Mapping[str, str]]]:
    """The command that restores from a directory far away."""
    yield (
        lambda line, place: [
            *(sys.executable, "-m", "benchmarks.latency", "--restore", str(place / "tree")),
            *("--store", str(archives.store), "--parallel", str(options.parallel)),
            *("--latency", str(line.latency * 1e3), "--rate", str(line.rate / 1e6)),
        ],
        {},
    )


@contextmanager
def through_s3(
    archives: Archives, options: argparse.Namespace
) -> Iterator[tuple[Command, Mapping[str, str]]]:
    """The command that restores from an S3 service far away."""
    with ExitStack() as stack:
        server = stack.enter_context(s3.rclone_server(hashing=False))
        shutil.copytree(
            archives.store, server.directory / s3.BUCKET / "store", copy_function=os.link
        )

        def command(line: Line, place: Path) -> list[str]:
            proxy = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.support.s3proxy", server.endpoint),
                    *("--latency", str(line.latency), "--rate", str(line.rate)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(proxy.wait)
            stack.callback(proxy.kill)
            assert proxy.stdout is not None
            endpoint = proxy.stdout.readline().strip()
            store = f"s3://{s3.BUCKET}/store?endpoint={endpoint}&parallel={options.parallel}"
            return [
                *(measure.cachepod(), "restore", "--json", "--config", os.devnull),
                *("--timeout", "0", "--store", store, "--key", KEY),
                *("--tree", f"bench={place / 'tree'}"),
            ]

        yield command, {**s3.environment(), "AWS_DEFAULT_REGION": "us-east-1"}


WAYS = {"directory": through_directory, "s3": through_s3}


def _table(lines: list[Line], through: str) -> str:
    headings = [f"through {through}: latency ms", "MB/s", "median s", "range"]
    headings += ["allowed s", "ratio", "CPU s", "resident MB"]
    rows = []
    for line in lines:
        if line.rate:
            allowed = line.read / line.rate
        else:
            near = [each for each in lines if not each.rate and not each.latency]
            allowed = near[0].seconds if near else float("nan")
        rows.append(
            [
                f"{line.latency * 1e3:.0f}",
                f"{line.rate / 1e6:.0f}" if line.rate else "-",
                f"{line.seconds:.2f}",
                measure.spread([cost.seconds for cost in line.runs]),
                f"{allowed:.2f}",
                f"{line.seconds / allowed:.2f}",
                f"{measure.median([cost.cpu for cost in line.runs]):.2f}",
                f"{max(cost.resident for cost in line.runs) / 1e6:.0f}",
            ]
        )
    return measure.table(headings, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=(__doc__ or "").splitlines()[1]
    )
    add = parser.add_argument
    add("--tree", type=Path, help="what is published and restored")
    add("--store", type=Path, help="a store in a directory (default: a temporary one)")
    add("--through", choices=sorted(WAYS), default="directory")
    add("--latency", type=float, nargs="+", default=[0, 20, 50], help="ms (default: 0 20 50)")
    add("--rate", type=float, nargs="+", default=[0, 200], help="MB/s (default: 0 200)")
    add("--parallel", type=int, default=16, help="reads in flight beyond the cores (default: 16)")
    add("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    add("--rounds", type=int, default=3, help="counted runs of each (default: 3)")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--restore", type=Path, help=argparse.SUPPRESS)  # the measured process
    options = parser.parse_args()
    if options.tree is None and options.restore is None:
        parser.error("the following arguments are required: --tree")
    return options


def restore_from_afar(options: argparse.Namespace) -> None:
    """What is measured; prints the bytes that were read."""
    latency, rate = options.latency[0] / 1e3, options.rate[0] * 1e6
    store = Distant(LocalStore(options.store), latency, rate, options.parallel)
    restore(store, KEY, [Target("bench", options.restore)])
    print(json.dumps({"read": store.bytes, "requests": store.requests}))


def main() -> None:
    """Prepare, measure, print."""
    options = _options()
    if options.restore is not None:
        restore_from_afar(options)
        return
    tree = options.tree.resolve()
    files, size = measure.tree_size(tree)
    facts = measure.machine()
    measure.print_machine(facts)
    lines = [Line(ms / 1e3, mb * 1e6) for mb in options.rate for ms in options.latency]
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="latency-", dir=options.scratch)
        folder = Path(stack.enter_context(temporary))
        archives = Archives(tree, folder, (options.store or folder / "store").resolve(), 3)
        archives.make_store()
        ground = stack.enter_context(
            open_ground(options.scratch, int(size * 1.2), inodes=2 * files + 10_000)
        )
        command, environ = stack.enter_context(WAYS[options.through](archives, options))
        print(f"tree: {files} files, {size / 1e9:.2f} GB; ground: {ground.kind}")
        print(f"{options.rounds} rounds, interleaved\n")
        for number in range(options.rounds):
            for line in measure.rotated(lines, number):
                with ground.fresh() as place:
                    words = command(line, place)
                    drop_caches()
                    cost = measure.run(words, environ=environ, watch=True)
                line.runs.append(cost)
                said = f"{line.latency * 1e3:.0f} ms, {line.rate / 1e6:.0f} MB/s"
                print(
                    f"{number + 1}/{options.rounds}  {said}: {cost.seconds:.2f} s", file=sys.stderr
                )
    print(_table(lines, options.through))
    rows = [
        {
            "latency": line.latency,
            "rate": line.rate,
            "read": line.read,
            "seconds": [cost.seconds for cost in line.runs],
            "resident": [cost.resident for cost in line.runs],
        }
        for line in lines
    ]
    document = {"machine": facts, "files": files, "size": size, options.through: rows}
    measure.write_json(options.json, document)


if __name__ == "__main__":
    measure.script(main)
