"""
Containers that restore at once from one store, whose bandwidth they share.

::

    python -m benchmarks.scale.containers [--tree DIR] [--containers N ...] [--rate MB/S ...]
        [--way cachepod tar fleet]

The shared bandwidth is a model, :mod:`benchmarks.wire`: 200 to 400 MB/s are what RunPod says of its
volumes. Every container is a process of its own that looks up the key, reads the manifest and
writes a tree of its own; all are let go in the same moment, with their modules imported, and are
counted until their processes end. ``tar`` is ``zstd -dc | tar -x`` over the same wire. ``fleet``:
containers with new requirements run the real start-up hook, of which one installs and the others
wait, see :mod:`benchmarks.scale.fleet`.

Real containers have cores and disks of their own; these share those of this machine. So the tree
that is made for it takes little CPU time, a row says whether the wire or the cores were the bound,
and all write to memory where it is large enough (``--ground disk`` has them write to a disk).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import measure, stores
from benchmarks.ground import (
    DirectoryGround,
    Ground,
    drop_caches,
    free_memory,
    open_ground,
    open_memory_ground,
)
from benchmarks.scale import fleet
from benchmarks.scale.crowd import NAMES, draw, tables
from benchmarks.scale.subject import Subject, add_options, keeping, open_subject, tell
from benchmarks.scale.together import Together, by_cachepod, by_tar, run_together
from benchmarks.wire import Wire


def run_containers(way: str, count: int, rate: float, subject: Subject, ground: Ground) -> Together:
    """*count* containers at once by *way*, over a wire of *rate* bytes a second."""
    wire = Wire.make(subject.folder / "wire", rate)
    if way == "tar":
        command = by_tar(wire.path, subject.folder / "tree.tar.zst")
    else:
        command = by_cachepod(wire.path, subject.folder / "store")
    try:
        with ground.fresh() as base:
            places = [base / str(number) for number in range(count)]
            for place in places:
                place.mkdir()
            drop_caches()
            _warm(subject.folder)
            done = run_together([command(place) for place in places], wire)
            if isinstance(ground, DirectoryGround):
                for place in places:  # else the disk would have to hold those of all runs
                    shutil.rmtree(place)
    finally:
        wire.close()
    return done


def _warm(folder: Path) -> None:
    """Read what the wire stands before: the disk of this machine is no part of the model."""
    for path in (folder / "store", folder / "tree.tar.zst"):
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                with open(file, "rb", buffering=0) as open_file:
                    while open_file.read(1 << 22):
                        pass


def add(samples: dict[str, Any], way: str, count: int, rate: float, done: Together) -> None:
    """Put a run to the samples of its point."""
    points = samples.setdefault("together", [])
    for point in points:
        if (point["way"], point["containers"], point["rate"]) == (way, count, rate):
            break
    else:
        point = {"way": way, "containers": count, "rate": rate, "seconds": [], "cpu": []}
        point |= {"peak": [], "moved": [], "requests": [], "busy": []}
        points.append(point)
        points.sort(key=lambda each: (each["way"], each["rate"], each["containers"]))
    point["seconds"].append(list(done.seconds))
    point["cpu"].append([cost.cpu for cost in done.costs])
    point["peak"].append(max(cost.peak for cost in done.costs))
    for name in ("moved", "requests", "busy"):
        point[name].append(getattr(done, name))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.containers", description=(__doc__ or "").splitlines()[1]
    )
    add_options(parser, size=0.1, rounds=3)
    more = parser.add_argument
    more("--containers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="N")
    more("--rate", type=float, nargs="+", default=[200, 400], metavar="MB/S")
    more("--way", choices=[*NAMES, "fleet"], nargs="+", default=[*NAMES, "fleet"])
    more("--install", type=float, default=10, metavar="S", help="seconds of the fleet's install")
    more(
        "--ground",
        choices=["memory", "disk", "directory"],
        default="memory",
        help="where containers write: memory, where it is large enough; a new file system on the "
        "disk for each run; or plain directories",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, measure, print."""
    options = _options(arguments)
    ways = [way for way in options.way if way in NAMES]
    samples: dict[str, Any] = {"together": [], "fleet": [], "install": options.install}
    with ExitStack() as stack:
        subject = stack.enter_context(open_subject(options))
        if "cachepod" in ways:
            stores.publish_tree(subject.tree, subject.folder / "store")
        if "tar" in ways:
            measure.run(stores.tar_words(subject.tree, subject.folder / "tree.tar.zst"))
        fitting = _fitting(options.containers, subject) if ways else []
        ground = _ground(stack, options, subject, max(fitting, default=0))
        about = {"tree": subject.text, "rounds": options.rounds, "ground": ground.kind}
        if left := sorted(set(options.containers) - set(fitting)) if ways else []:
            about["not enough disk for"] = f"{', '.join(map(str, left))} containers"
        keeper = stack.enter_context(
            keeping("benchmarks.scale.containers", about, tables, draw, options)
        )
        grid = [(way, count, mb) for mb in options.rate for count in fitting for way in ways]
        for number in range(options.rounds):
            for way, count, mb in measure.rotated(grid, number):
                done = run_containers(way, count, mb * 1e6, subject, ground)
                add(samples, way, count, mb * 1e6, done)
                keeper.keep(samples)
                told = f"{number + 1}/{options.rounds}  {NAMES[way]}, {count} at {mb:g} MB/s: "
                tell(told + f"last {done.seconds[-1]:.2f} s")
        if "fleet" in options.way:
            samples["no fleet"] = fleet.missing()
            keeper.keep(samples)
            if not samples["no fleet"]:
                for number in range(options.rounds):
                    for count in options.containers:
                        _add_fleet(samples, count, number, options, subject.folder)
                        keeper.keep(samples)


def _ground(stack: ExitStack, options: argparse.Namespace, subject: Subject, most: int) -> Ground:
    """In memory where *most* trees take half of it at most, else on a disk."""
    need = int(most * subject.size * 1.1)
    if options.ground == "memory" and os.geteuid() == 0 and need <= free_memory() // 2:
        try:
            return stack.enter_context(open_memory_ground(options.scratch))
        except (OSError, subprocess.CalledProcessError) as error:
            tell(f"no ground in memory here ({error}): using a disk")
    inodes = most * (2 * subject.files + 2_000) + 10_000
    plain = options.ground == "directory" or not most
    return stack.enter_context(open_ground(options.scratch, need, inodes=inodes, plain=plain))


def _fitting(counts: Sequence[int], subject: Subject) -> list[int]:
    free = shutil.disk_usage(subject.folder).free
    return [count for count in counts if 1.3 * count * subject.size < 0.9 * free]


def _add_fleet(
    samples: dict[str, Any], count: int, number: int, options: argparse.Namespace, folder: Path
) -> None:
    place = folder / f"fleet-{number}-{count}"
    place.mkdir()
    wire = Wire.make(folder / "fleet-wire", options.rate[0] * 1e6)
    try:
        run = fleet.run_fleet(place, count, wire, 10_000_000, options.install)
    finally:
        wire.close()
        shutil.rmtree(place, ignore_errors=True)
    for point in samples["fleet"]:
        if point["containers"] == count:
            break
    else:
        point = {"containers": count, "runs": []}
        samples["fleet"].append(point)
    point["runs"].append(asdict(run))
    tell(f"{number + 1}/{options.rounds}  fleet of {count}: last {run.seconds[-1]:.2f} s")


if __name__ == "__main__":
    measure.script(main)
