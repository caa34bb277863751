"""
Where the time of a restore and of a publish goes, beside what the machine could do at best.

::

    python -m benchmarks.profile --tree DIR [--store URL] [--rounds N] [--picture FILE]

Each round publishes the tree into a store of its own and restores it from there, onto new ground
and with the page cache dropped. The table by kind is cachepod's own account of its threads, what
``--json`` prints as ``profile``; that it agrees with a profiler from outside was checked. The
floors are :mod:`benchmarks.floor`'s, measured after the last round; the distance is wall time,
measured from outside, by floor.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure, pictures, results
from benchmarks.floor import CORES, Floor, floors, measure_machine, speed_table
from benchmarks.ground import drop_caches, open_ground
from benchmarks.measure import Cost
from benchmarks.pictures import Bar
from benchmarks.results import Results, Table
from cachepod.model.names import FORMAT_OBJECT, MANIFESTS, PACKS, PINS, PROBES, USES
from cachepod.stores.base import PruneStore
from cachepod.stores.founding import TAG_NAME
from cachepod.stores.url import is_s3, open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY = "profile"
OPERATIONS = ("restore", "publish")
BESIDES = "besides"
_WAITING = ("wait", "idle")
#: What a picture shows as one, for eight colours are told apart and thirteen are not.
_SHOWN = {
    "read": "read",
    "hash": "hash",
    "decode": "zstd",
    "compress": "zstd",
    "write": "write",
    "commit": "write",
    "create": "create",
    "swap": "create",
    "scan": "scan",
    "compare": "scan",
    "python": "Python",
    BESIDES: "Python",
    "wait": "waiting",
    "idle": "waiting",
}


def sample_of(cost: Cost) -> dict[str, Any]:
    """One run, as it is kept: wall and CPU seconds from outside, and the profile from inside."""
    report = cost.report
    if "profile" not in report:
        raise SystemExit(f"cachepod did nothing that could be profiled: {cost.output}")
    return {
        "seconds": cost.seconds,
        "cpu": cost.cpu,
        "peak": cost.peak,
        "phases": cost.phases,
        "profile": report["profile"],
    }


@contextmanager
def _a_store(url: str, number: int, scratch: Path) -> Iterator[str]:
    """An empty store below *url*, or in a new directory; it is removed at the end."""
    if is_s3(url):
        base, mark, options = url.partition("?")
        own = f"{base.rstrip('/')}/{KEY}-{os.urandom(4).hex()}-{number}{mark}{options}"
        try:
            yield own
        finally:
            _empty(open_store(own))
        return
    parent = Path(url.removeprefix("file://")) if url else scratch
    folder = tempfile.mkdtemp(prefix=f"{KEY}-store-", dir=parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _empty(store: PruneStore) -> None:
    for prefix in (MANIFESTS, PACKS, PINS, PROBES, USES):
        for info in list(store.list(prefix)):
            store.delete(info.name)
    for name in (FORMAT_OBJECT, TAG_NAME):
        store.delete(name)


def by_kind(samples: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """
    Medians over the rounds: ``seconds``, ``cpu``, ``bytes`` and ``calls`` of each kind.

    What the command took ``besides`` is to start Python and to end, and the CPU time of threads
    that send parts to S3.
    """
    runs = [{**each["profile"]["kinds"], BESIDES: _besides(each)} for each in samples]
    names = dict.fromkeys(name for run in runs for name in run)
    return {
        name: {
            value: measure.median([run.get(name, {}).get(value, 0) for run in runs])
            for value in ("seconds", "cpu", "bytes", "calls")
        }
        for name in names
    }


def _besides(sample: Mapping[str, Any]) -> dict[str, float]:
    profile = sample["profile"]
    cpu = sample["cpu"] - sum(kind["cpu"] for kind in profile["kinds"].values())
    return {"seconds": max(0.0, sample["seconds"] - profile["wall"]), "cpu": max(0.0, cpu)}


def kinds_table(operation: str, samples: Sequence[Mapping[str, Any]]) -> Table:
    """Each kind: thread seconds, their share, CPU seconds, bytes, and what a core does a second."""
    kinds = by_kind(samples)
    busy = sum(kind["seconds"] for name, kind in kinds.items() if name not in _WAITING)
    total = sum(kind["cpu"] for kind in kinds.values())
    rows = []
    for name, kind in sorted(kinds.items(), key=lambda each: -each[1]["cpu"]):
        waits = name in _WAITING
        rows.append(
            [
                name,
                f"{kind['seconds']:.2f}",
                "" if waits else f"{kind['seconds'] / busy:.0%}",
                f"{kind['cpu']:.2f}",
                "" if waits else f"{kind['cpu'] / total:.0%}" if total else "",
                f"{kind['bytes'] / 1e9:.2f}" if kind["bytes"] else "",
                f"{kind['calls']:,.0f}" if kind["calls"] else "",
                "" if waits else _rate(kind),
            ]
        )
    profile = samples[-1]["profile"]
    notes = [
        f"{profile['threads']} threads and {profile['readers']} that read ahead, at work together "
        f"for {measure.median([each['profile']['parallel'] for each in samples]):.2f} of "
        f"{measure.median([each['profile']['wall'] for each in samples]):.2f} s"
    ]
    headings = [operation, "thread s", "share", "CPU s", "share", "GB", "calls", "a core does"]
    return Table(operation, headings, rows, notes)


def _rate(kind: Mapping[str, float]) -> str:
    if kind["cpu"] < 0.001:
        return ""
    if kind["bytes"]:
        return f"{kind['bytes'] / kind['cpu'] / 1e9:.2f} GB/s"
    return f"{kind['calls'] / kind['cpu']:,.0f}/s" if kind["calls"] > 1 else ""


def distance_table(samples: Mapping[str, Sequence[Mapping[str, Any]]], floor: list[Floor]) -> Table:
    """Wall and CPU time of the whole command beside the floor, and beside the least CPU time."""
    rows = []
    for each in floor:
        runs = [run["seconds"] for run in samples[each.operation]]
        seconds = measure.median(runs)
        cpu = measure.median([run["cpu"] for run in samples[each.operation]])
        least = sum(each.work.values())
        rows.append(
            [
                f"cachepod {each.operation}",
                f"{seconds:.2f}",
                measure.spread(runs),
                f"{each.seconds:.2f}",
                each.longest.name,
                f"{seconds / each.seconds:.2f}" if each.seconds else "",
                f"{cpu:.2f}",
                f"{least:.2f}",
                f"{cpu / least:.2f}" if least else "",
            ]
        )
    headings = ["command", "median s", "range", "floor s", "set by", "distance"]
    headings += ["CPU s", "least CPU s", "ratio"]
    notes = ["Other work on the machine lengthens wall time, and hardly CPU time."]
    return Table("distance", headings, rows, notes)


def draw(found: Results) -> Figure:
    """Wall time by kind, the cores' time by kind, and the floor, of both operations."""
    groups: dict[str, list[Bar]] = {}
    count = int(found.machine.get("cores", "1"))
    for operation in OPERATIONS:
        runs = found.samples.get(operation, [])
        if not runs:
            continue
        kinds = by_kind(runs)
        seconds = [run["seconds"] for run in runs]
        threads = sum(kind["seconds"] for kind in kinds.values())
        wall = measure.median(seconds)
        bars = [
            Bar(
                "time of all threads, as wall time",
                _shown({name: kind["seconds"] / threads * wall for name, kind in kinds.items()}),
                (min(seconds), max(seconds)),
                ours=True,
            ),
            Bar(
                f"what {count} cores computed" if count > 1 else "what the core computed",
                _shown({name: kind["cpu"] / count for name, kind in kinds.items()}),
                ours=True,
            ),
        ]
        floor = found.samples.get("floors", {}).get(operation)
        if floor is not None:
            bars += _floor_bars(floor, count)
        groups[operation] = bars
    return pictures.draw_bars("Where the time goes, and what this machine could do", groups)


def _floor_bars(floor: Mapping[str, Any], count: int) -> Iterator[Bar]:
    for term in sorted(floor["terms"], key=lambda term: -term["seconds"]):
        if term["name"] == CORES:
            parts = _shown({name: cpu / count for name, cpu in floor["work"].items()})
            yield Bar("at least: the cores", parts)
        else:
            yield Bar(f"at least: {term['name']}", {term["name"]: term["seconds"]})


def _shown(parts: Mapping[str, float]) -> dict[str, float]:
    """*parts* as a picture has them, always the same ones in the same order."""
    together = dict.fromkeys(_SHOWN.values(), 0.0)
    for name, seconds in parts.items():
        together[_SHOWN[name]] += seconds
    return together


def tables_of(samples: Mapping[str, Any], floor: list[Floor]) -> list[Table]:
    """Everything that is printed but what the machine can do."""
    tables = [kinds_table(each, samples[each]) for each in OPERATIONS if samples[each]]
    if floor:
        tables += [each.table() for each in floor]
        tables.append(distance_table(samples, floor))
    return tables


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("--tree", type=Path, required=True, metavar="DIR", help="what to publish")
    parser.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="a directory or s3://bucket/prefix to make stores below (default: below --scratch)",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path("/var/tmp"),
        metavar="DIR",
        help="a directory on the disk to measure",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="as cachepod's own")
    parser.add_argument("--plain", action="store_true", help="directories, no loop devices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it there")
    return parser.parse_args()


def _command(operation: str, store: str, tree: Path, threads: int) -> list[str | Path]:
    return [
        *(measure.cachepod(), operation, "--json", "--config", os.devnull, "--timeout", "0"),
        *("--store", store, "--key", KEY, "--tree", f"{KEY}={tree}", "--threads", str(threads)),
    ]


def main() -> None:
    """Measure, print, draw."""
    options = _options()
    facts = measure.machine()
    measure.print_machine(facts)
    files, size = measure.tree_size(options.tree)
    samples: dict[str, Any] = {operation: [] for operation in OPERATIONS}
    floor: list[Floor] = []
    with open_ground(options.scratch, int(size * 1.2), inodes=files * 2, plain=options.plain) as on:
        cold = "dropped before each run" if drop_caches() else "as it was"
        subject = {
            "tree": f"{size / 1e9:.2f} GB in {files:,} files",
            "rounds": options.rounds,
            "ground": on.kind,
            "page cache": cold,
        }
        found = results.begin("benchmarks.profile", facts, subject)
        for number in range(options.rounds):
            with _a_store(options.store, number, options.scratch) as store:
                drop_caches()
                publish = _command("publish", store, options.tree, options.threads)
                samples["publish"].append(sample_of(measure.run(publish)))
                with on.fresh() as place:
                    drop_caches()
                    restore = _command("restore", store, place / "tree", options.threads)
                    samples["restore"].append(sample_of(measure.run(restore)))
                told = [f"{name} {samples[name][-1]['seconds']:.2f} s" for name in OPERATIONS]
                print(f"{number + 1}/{options.rounds}: {', '.join(told)}", file=sys.stderr)
                found = replace(found, tables=tables_of(samples, floor), samples=samples)
                found.write(options.json)
                if number == options.rounds - 1:
                    speeds, amounts = measure_machine(
                        store, KEY, options.scratch, tree=options.tree, plain=options.plain
                    )
                    floor = floors(speeds, amounts)
    samples["floors"] = {each.operation: asdict(each) for each in floor}
    tables = [*tables_of(samples, floor), speed_table(speeds)]
    found = replace(found, tables=tables, samples=samples)
    found.write(options.json)
    for table in tables:
        print(table, end="\n\n")
    if options.picture:
        pictures.save(draw(found), options.picture)


if __name__ == "__main__":
    measure.script(main)
