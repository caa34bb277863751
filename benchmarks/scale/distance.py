"""
Restores from, and publishes to, a store that is far away: latency and a limited rate.

::

    python -m benchmarks.scale.distance [--tree DIR] [--latency MS ...] [--rate MB/S ...]
        [--way directory s3 publish] [--rounds N]

``directory``: a restore whose store is a directory behind :mod:`benchmarks.far`, in the restoring
process; that costs no CPU time. ``s3``: a restore from ``rclone serve s3`` behind a proxy that
lets every request take its time and all bodies together no more than the rate, all on the cores of
this machine. ``publish``: a publish to the same. What the rate alone allows is the bytes that go
over the wire, at that rate; a rate of 0 is no limit, and there the run without latency is what a
row is compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure, stores
from benchmarks.ground import Ground, drop_caches
from benchmarks.pictures import Curve, Panel, draw_curves
from benchmarks.results import Results, Table
from benchmarks.scale.subject import (
    ROOT,
    Samples,
    Subject,
    add_options,
    keeping,
    open_ground_for,
    open_subject,
    tell,
)
from benchmarks.wire import Wire
from tests.support import s3

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "directory": "restore from a directory",
    "s3": "restore from S3",
    "publish": "publish to S3",
}


@dataclass(frozen=True)
class Run:
    """
    One restore or publish.

    Args:
        cost: Of the whole process.

        moved: Bytes that went over the wire.

        requests: How many there were.

        at_once: The most of those with a body that were under way at once; 0 if not known.

        busy: Share of the cores' time that was worked meanwhile.
    """

    cost: measure.Cost
    moved: int
    requests: int
    at_once: int
    busy: float


class Distance:
    """
    Measures single runs.

    Args:
        subject: What is restored and published.

        ground: Where restores go.

        server: A S3 service that has the subject below ``store``; None where no way needs it.

        parallel: Reads in flight beyond the cores.
    """

    def __init__(
        self, subject: Subject, ground: Ground, server: s3.Server | None, parallel: int
    ) -> None:
        self._subject = subject
        self._ground = ground
        self._server = server
        self._parallel = parallel
        self._published = 0
        self._environ = {**s3.environment(), "AWS_DEFAULT_REGION": "us-east-1"}

    def run(self, way: str, latency: float, rate: float) -> Run:
        """One run by *way*; *latency* in seconds, *rate* in bytes a second."""
        return getattr(self, f"_{way}")(latency, rate)  # type: ignore[no-any-return]

    def _directory(self, latency: float, rate: float) -> Run:
        wire = Wire.make(self._subject.folder / "wire", rate, latency)
        far = [sys.executable, "-m", "benchmarks.far", str(wire.path)]
        far += ["--parallel", str(self._parallel), "cachepod"]
        with self._ground.fresh() as place:
            words = stores.restore_words(self._subject.folder / "store", place / "tree")
            cost, busy = _measured([*far, *words], {})
        traffic = wire.traffic()
        wire.close()
        return Run(cost, traffic.down, sum(traffic.requests.values()), 0, busy)

    def _s3(self, latency: float, rate: float) -> Run:
        with self._ground.fresh() as place, self._proxied(latency, rate) as (url, told):
            words = stores.restore_words(url("store"), place / "tree", "--timeout", "0")
            cost, busy = _measured([measure.cachepod(), *words], self._environ)
        return Run(cost, int(cost.report["read"]), *_counts(told, "GetObject"), busy)

    def _publish(self, latency: float, rate: float) -> Run:
        assert self._server is not None
        self._published += 1  # rclone remembers for a while what was below a prefix
        prefix = f"new-{self._published}"
        with self._proxied(latency, rate) as (url, told):
            words = stores.publish_words(url(prefix), self._subject.tree)
            cost, busy = _measured([measure.cachepod(), *words], self._environ)
        shutil.rmtree(self._server.directory / s3.BUCKET / prefix)
        return Run(cost, int(cost.report["stored_new"]), *_counts(told, "UploadPart"), busy)

    @contextmanager
    def _proxied(
        self, latency: float, rate: float
    ) -> Iterator[tuple[Callable[[str], str], dict[str, Any]]]:
        """The URL of a store by its prefix; afterwards, what the service was asked for."""
        assert self._server is not None
        told: dict[str, Any] = {}
        proxy = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.s3proxy", self._server.endpoint),
                *("--latency", str(latency), "--rate", str(rate)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            assert proxy.stdout is not None
            endpoint = proxy.stdout.readline().strip()
            yield (
                lambda prefix: (
                    f"s3://{s3.BUCKET}/{prefix}?endpoint={endpoint}&parallel={self._parallel}"
                ),
                told,
            )
            told.update(json.loads(proxy.communicate()[0]))
        finally:
            proxy.kill()
            proxy.wait()


def _counts(told: Mapping[str, Any], operation: str) -> tuple[int, int]:
    return sum(told["requests"].values()), int(told["busiest"].get(operation, 0))


def _measured(command: Sequence[str], environ: Mapping[str, str]) -> tuple[measure.Cost, float]:
    drop_caches()
    look = measure.cpu_times()
    cost = measure.run(command, environ=environ, cwd=ROOT, watch=True)
    return cost, measure.busy_since(look)


def add(samples: dict[str, Any], way: str, latency: float, rate: float, run: Run) -> None:
    """Put *run* to the samples of its point."""
    points = samples.setdefault(way, [])
    for point in points:
        if (point["latency"], point["rate"]) == (latency, rate):
            break
    else:
        point = {"latency": latency, "rate": rate, "seconds": [], "cpu": [], "resident": []}
        point |= {"moved": [], "requests": [], "at_once": [], "busy": []}
        points.append(point)
        points.sort(key=lambda each: (each["rate"], each["latency"]))
    for name in ("moved", "requests", "at_once", "busy"):
        point[name].append(getattr(run, name))
    for name in ("seconds", "cpu", "resident"):
        point[name].append(getattr(run.cost, name))


def allowed(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that the rate alone takes; without a limit, what it takes without latency."""
    if point["rate"]:
        return float(measure.median(point["moved"])) / float(point["rate"])
    near = [each for each in points if not each["rate"] and not each["latency"]]
    return measure.median(near[0]["seconds"]) if near else float("nan")


def tables(samples: Samples) -> list[Table]:
    """One for each way, by its name."""
    found = []
    for way, points in samples.items():
        headings = ["latency ms", "MB/s", f"{TITLES[way]}, median s", "range", "allowed s", "ratio"]
        headings += ["requests", *(["parts at once"] if way == "publish" else [])]
        headings += ["CPU s", "cores busy %", "resident MB"]
        rows = []
        for point in points:
            seconds, bound = measure.median(point["seconds"]), allowed(point, points)
            rows.append(
                [
                    f"{point['latency'] * 1e3:g}",
                    f"{point['rate'] / 1e6:g}" if point["rate"] else "no limit",
                    f"{seconds:.2f}",
                    measure.spread(point["seconds"]),
                    f"{bound:.2f}",
                    f"{seconds / bound:.2f}",
                    f"{measure.median(point['requests']):.0f}",
                    *([f"{max(point['at_once'])}"] if way == "publish" else []),
                    f"{measure.median(point['cpu']):.2f}",
                    f"{100 * measure.median(point['busy']):.0f}",
                    f"{max(point['resident']) / 1e6:.0f}",
                ]
            )
        notes = [
            "Latency and rate are a model: "
            + (
                "a wrapper around the store lets requests wait."
                if way == "directory"
                else "a proxy lets requests wait; it and the service work on the same cores."
            ),
            "*allowed* is the rate's time for the bytes that went over the wire; without a limit, "
            "the time without latency.",
        ]
        found.append(Table(way, headings, rows, notes))
    return found


def draw(results: Results) -> Figure:
    """Time over latency, a curve for each rate; dashed, what the rate alone allows."""
    panels = []
    for way, points in results.samples.items():
        curves = []
        for rate in sorted({point["rate"] for point in points}, key=lambda rate: rate or 1e99):
            own = [point for point in points if point["rate"] == rate]
            curves.append(
                Curve(
                    f"{rate / 1e6:g} MB/s" if rate else "no limit",
                    [point["latency"] * 1e3 for point in own],
                    [measure.median(point["seconds"]) for point in own],
                    [min(point["seconds"]) for point in own],
                    [max(point["seconds"]) for point in own],
                    [allowed(point, points) for point in own] if rate else (),
                )
            )
        title = TITLES[way].capitalize().replace("s3", "S3")
        latencies = sorted({point["latency"] * 1e3 for point in points})
        panels.append(Panel(title, "latency, ms", "seconds", curves, False, latencies))
    return draw_curves("Distance to the store; dashed: what the rate alone allows", panels)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.distance", description=(__doc__ or "").splitlines()[1]
    )
    add_options(parser, size=0.2, rounds=3)
    parser.add_argument(
        "--latency", type=float, nargs="+", default=[0, 5, 20, 50, 100], metavar="MS"
    )
    parser.add_argument(
        "--rate", type=float, nargs="+", default=[0, 100, 200, 400, 800], metavar="MB/S"
    )
    parser.add_argument("--way", choices=sorted(TITLES), nargs="+", default=list(TITLES))
    parser.add_argument("--parallel", type=int, default=16, help="reads in flight (default: 16)")
    parser.add_argument("--plain", action="store_true", help="directories, no loop devices")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, measure, print."""
    options = _options(arguments)
    grid = [(way, ms, mb) for way in options.way for mb in options.rate for ms in options.latency]
    samples: dict[str, Any] = {}
    with ExitStack() as stack:
        subject = stack.enter_context(open_subject(options))
        store = subject.folder / "store"
        stores.publish_tree(subject.tree, store)
        server = None
        if set(options.way) - {"directory"}:
            server = stack.enter_context(s3.rclone_server(hashing=False))
            _serve(store, server.directory / s3.BUCKET / "store")
        ground = stack.enter_context(open_ground_for(subject, options))
        about = {"tree": subject.text, "rounds": options.rounds, "ground": ground.kind}
        about |= {"reads in flight": options.parallel}
        keeper = stack.enter_context(
            keeping("benchmarks.scale.distance", about, tables, draw, options)
        )
        distance = Distance(subject, ground, server, options.parallel)
        for number in range(options.rounds):
            for way, ms, mb in measure.rotated(grid, number):
                run = distance.run(way, ms / 1e3, mb * 1e6)
                add(samples, way, ms / 1e3, mb * 1e6, run)
                keeper.keep(samples)
                tell(
                    f"{number + 1}/{options.rounds}  {way}, {ms:g} ms, {mb:g} MB/s: "
                    f"{run.cost.seconds:.2f} s"
                )


def _serve(store: Path, place: Path) -> None:
    """Lay the objects of the directory *store* below *place*, without a copy where that goes."""
    try:
        shutil.copytree(store, place, copy_function=os.link)
    except (OSError, shutil.Error):  # another file system
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(store, place)


if __name__ == "__main__":
    measure.script(main)
