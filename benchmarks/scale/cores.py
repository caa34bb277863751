"""
Restores and publishes with one core, two, and so on up to all; and with more and fewer threads.

::

    python -m benchmarks.scale.cores [--tree DIR] [--cores N ...] [--threads N ...] [--cold]

The cores are those that the process may run on (its affinity), as a container's quota would have
it; cachepod, unsquashfs and zstd take their number of threads from it or are told. Of cores that
share one physical core the second come last. What is read lies in the page cache, unless ``--cold``
is given: a disk does not get faster with more cores.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure, stores
from benchmarks.ground import Ground, drop_caches
from benchmarks.pictures import Curve, Panel, draw_curves
from benchmarks.results import Results, Table
from benchmarks.scale import making
from benchmarks.scale.subject import (
    Samples,
    Subject,
    add_options,
    keeping,
    open_ground_for,
    open_subject,
    tell,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDES = ("restore", "publish")


@dataclass(frozen=True)
class Way:
    """
    One way to restore or to publish.

    Args:
        name: What its rows are called.

        tools: Programs that it needs.

        command: From a place to write at and a number of cores to what is measured.
    """

    name: str
    tools: Sequence[str]
    command: Callable[[Path, int], list[str]]

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        return measure.needs(*self.tools)


def ways(subject: Subject, threads: int = 0) -> dict[str, list[Way]]:
    """Those of each side; cachepod, the first, with so many *threads*, or as it chooses."""
    store, tar, squash = _archives(subject)
    more = ["--threads", str(threads)] if threads else []
    return {
        "restore": [
            Way(
                "cachepod restore",
                (),
                lambda place, _: [
                    measure.cachepod(),
                    *stores.restore_words(store, place / "tree", *more),
                ],
            ),
            Way(
                "unsquashfs -p",
                ("unsquashfs", "mksquashfs"),
                lambda place, count: stores.unsquash_words(squash, place / "tree", count),
            ),
            Way(
                "zstd -dc | tar -x",
                ("zstd", "tar"),
                lambda place, _: stores.untar_words(tar, place / "tree"),
            ),
        ],
        "publish": [
            Way(
                "cachepod publish",
                (),
                lambda place, _: [
                    measure.cachepod(),
                    *stores.publish_words(place / "store", subject.tree, *more),
                ],
            ),
            Way(
                "mksquashfs -processors",
                ("mksquashfs",),
                lambda place, count: stores.squash_words(
                    subject.tree, place / "tree.squashfs", "-processors", str(count)
                ),
            ),
            Way(
                "tar | zstd -3 -T",
                ("zstd", "tar"),
                lambda place, count: stores.tar_words(
                    subject.tree, place / "tree.tar.zst", threads=count
                ),
            ),
        ],
    }


def _archives(subject: Subject) -> tuple[Path, Path, Path]:
    folder = subject.folder
    return folder / "store", folder / "tree.tar.zst", folder / "tree.squashfs"


def make_archives(subject: Subject) -> None:
    """The tree as each way to restore needs it, by the ways to publish."""
    for way in ways(subject)["publish"]:
        if not way.missing:
            measure.run(way.command(subject.folder, measure.cores()))


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """What is started meanwhile runs on *count* of the cores that this process may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, in_order(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def in_order(cores: set[int], root: Path = Path("/sys/devices/system/cpu")) -> list[int]:
    """*cores*, but of those that share a physical core the first of each, then the second."""
    seen: dict[str, int] = {}
    ranks = {}
    for core in sorted(cores):
        try:
            shared = (root / f"cpu{core}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            shared = str(core)
        ranks[core] = seen[shared] = seen.get(shared, -1) + 1
    return sorted(cores, key=lambda core: (ranks[core], core))


def run_once(way: Way, count: int, subject: Subject, ground: Ground, *, cold: bool) -> measure.Cost:
    """One run on *count* cores, onto new ground."""
    with ground.fresh() as place:
        if cold:
            drop_caches()
        with on_cores(count):
            return measure.run(way.command(place, count), cwd=subject.folder)


def add(
    samples: dict[str, Any], side: str, way: str, count: int, threads: int, cost: measure.Cost
) -> None:
    """Put a run to the samples of its point."""
    points = samples.setdefault("points", [])
    which = {"side": side, "way": way, "cores": count, "threads": threads}
    for point in points:
        if {name: point[name] for name in which} == which:
            break
    else:
        point = {**which, "seconds": [], "cpu": [], "peak": []}
        points.append(point)
    for name in ("seconds", "cpu", "peak"):
        point[name].append(getattr(cost, name))


def of_cores(samples: Samples, side: str) -> dict[str, list[Mapping[str, Any]]]:
    """By way, the points of *side* with the threads that the way chooses, fewest cores first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for point in samples["points"]:
        if point["side"] == side and not point["threads"]:
            found.setdefault(point["way"], []).append(point)
    return {way: sorted(own, key=lambda each: each["cores"]) for way, own in found.items()}


def of_threads(samples: Samples, side: str) -> list[Mapping[str, Any]]:
    """The points of *side* with a number of threads that was given, fewest first."""
    found = [each for each in samples["points"] if each["side"] == side and each["threads"]]
    return sorted(found, key=lambda each: each["threads"])


def tables(samples: Samples) -> list[Table]:
    """``restore`` and ``publish`` by cores, ``restore-threads`` and ``publish-threads``."""
    found = []
    for side in SIDES:
        by_way = of_cores(samples, side)
        skipped = samples["missing"].get(side, {})
        if by_way or skipped:
            found.append(_cores_table(side, by_way, skipped, samples["not here"]))
        if threads := of_threads(samples, side):
            found.append(_threads_table(side, threads, by_way))
    return found


def _cores_table(
    side: str,
    by_way: Mapping[str, Sequence[Mapping[str, Any]]],
    skipped: Mapping[str, str],
    not_here: Sequence[int],
) -> Table:
    headings = [side, "cores", "median s", "range", "speed-up", "efficiency", "CPU s", "peak MB"]
    rows = []
    for way, points in by_way.items():
        one = points[0] if points[0]["cores"] == 1 else None
        for point in points:
            seconds = measure.median(point["seconds"])
            gain = measure.median(one["seconds"]) / seconds if one else float("nan")
            rows.append(
                [
                    way,
                    f"{point['cores']}",
                    f"{seconds:.2f}",
                    measure.spread(point["seconds"]),
                    f"{gain:.2f}",
                    f"{gain / point['cores']:.2f}",
                    f"{measure.median(point['cpu']):.2f}",
                    f"{max(point['peak']) / 1e6:.0f}",
                ]
            )
    empty = [""] * (len(headings) - 2)
    rows += [[way, "-", why, *empty[1:]] for way, why in skipped.items()]
    rows += [[f"not measured: {count} cores", "", *empty] for count in not_here]
    notes = ["*speed-up* is over one core, *efficiency* that over the number of cores."]
    if not_here:
        notes.append(f"This machine has {measure.cores()} cores; more are not there to measure.")
    return Table(side, headings, rows, notes)


def _threads_table(
    side: str,
    points: Sequence[Mapping[str, Any]],
    by_way: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Table:
    chosen = [
        each
        for each in by_way.get(points[0]["way"], ())
        if each["cores"] == points[0]["cores"]  # with the threads that it chooses by itself
    ]
    rows = []
    for point in [*points, *chosen]:
        seconds = measure.median(point["seconds"])
        usual = measure.median(chosen[0]["seconds"]) if chosen else float("nan")
        rows.append(
            [
                point["way"],
                f"{point['threads']}" if point["threads"] else "as it chooses",
                f"{seconds:.2f}",
                measure.spread(point["seconds"]),
                f"{seconds / usual:.2f}",
                f"{measure.median(point['cpu']):.2f}",
                f"{max(point['peak']) / 1e6:.0f}",
            ]
        )
    headings = [side, "--threads", "median s", "range", "ratio", "CPU s", "peak MB"]
    notes = [f"On {points[0]['cores']} cores; the ratio is to the threads that cachepod chooses."]
    return Table(f"{side}-threads", headings, rows, notes)


def draw(results: Results) -> Figure:
    """Time over cores, dashed what one core's would be shared out; time over threads."""
    panels = []
    for side in SIDES:
        by_way = of_cores(results.samples, side)
        if by_way:
            curves = [_curve(way, "cores", points) for way, points in by_way.items()]
            title = f"{side.capitalize()} by cores (dashed: one core's time shared out)"
            panels.append(_panel(title, "cores", curves))
        if threads := of_threads(results.samples, side):
            curves = [_curve(threads[0]["way"], "threads", threads)]
            title = f"{side.capitalize()} by --threads, {threads[0]['cores']} cores"
            panels.append(_panel(title, "threads", curves))
    return draw_curves("More cores, more threads", panels)


def _curve(label: str, over: str, points: Sequence[Mapping[str, Any]]) -> Curve:
    first = measure.median(points[0]["seconds"]) * points[0][over]
    return Curve(
        label,
        [point[over] for point in points],
        [measure.median(point["seconds"]) for point in points],
        [min(point["seconds"]) for point in points],
        [max(point["seconds"]) for point in points],
        [first / point[over] for point in points] if over == "cores" else (),
    )


def _panel(title: str, x: str, curves: Sequence[Curve]) -> Panel:
    ticks = sorted({place for curve in curves for place in curve.x})
    return Panel(title, x, "seconds", curves, ticks=ticks, by_factors=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.cores", description=(__doc__ or "").splitlines()[1]
    )
    add_options(parser, size=1.0, rounds=3)
    more = parser.add_argument
    more("--cores", type=int, nargs="+", default=[1, 2, 4, 8, 16], metavar="N")
    more("--threads", type=int, nargs="*", default=[1, 2, 4, 8, 16], metavar="N")
    more("--side", choices=SIDES, nargs="+", default=list(SIDES))
    more("--cold", action="store_true", help="drop the page cache before each run")
    more("--plain", action="store_true", help="directories, no loop devices")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, measure, print."""
    options = _options(arguments)
    here = measure.cores()
    counts = sorted({count for count in options.cores if count <= here} | {here})
    samples: dict[str, Any] = {"points": [], "missing": {}}
    samples["not here"] = sorted(count for count in options.cores if count > here)
    with ExitStack() as stack:
        subject = stack.enter_context(
            open_subject(
                options,
                lambda tree, size: making.run("make", "mixed", size, tree),
                "of which half compresses",
            )
        )
        make_archives(subject)
        ground = stack.enter_context(open_ground_for(subject, options))
        about = {"tree": subject.text, "rounds": options.rounds, "ground": ground.kind}
        about["page cache"] = "dropped before each run" if options.cold else "left alone"
        keeper = stack.enter_context(
            keeping("benchmarks.scale.cores", about, tables, draw, options)
        )
        grid: list[tuple[str, Way, int, int]] = []
        for side in options.side:
            found = ways(subject)[side]
            samples["missing"][side] = {way.name: way.missing for way in found if way.missing}
            grid += [(side, way, count, 0) for count in counts for way in found if not way.missing]
            grid += [(side, ways(subject, n)[side][0], here, n) for n in options.threads]
        for number in range(options.rounds):
            for side, way, count, threads in measure.rotated(grid, number):
                cost = run_once(way, count, subject, ground, cold=options.cold)
                add(samples, side, way.name, count, threads, cost)
                keeper.keep(samples)
                told = f"{way.name}, {count} cores" + (f", {threads} threads" if threads else "")
                tell(f"{number + 1}/{options.rounds}  {told}: {cost.seconds:.2f} s")


if __name__ == "__main__":
    measure.script(main)
