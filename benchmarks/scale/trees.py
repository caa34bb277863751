"""
How cost grows with the tree: with the number of its files, and with its bytes.

::

    python -m benchmarks.scale.trees [--files N ...] [--bytes GB ...] [--mixed GB ...]
                                     [--rounds N] [--patience S] [--scratch DIR] [--plain]
                                     [--json FILE] [--picture FILE]

Each point of a curve is a tree made for it: small files of up to 4 kB, a hundred to a directory;
files of 10 and 256 MB, half of which compresses; or a mix as an environment of torch has it. Every
round publishes it to a new store and restores it onto new ground with the page cache dropped, and
then does to the restored tree what a hook meets, with the cache as it is: restore it again, publish
it under another key with nothing changed, and with a hundredth replaced. At last the store is
verified, the cache dropped. A point has more rounds for as long as it stays below the patience.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import measure, pictures, results
from benchmarks.ground import Ground, drop_caches, open_ground
from benchmarks.measure import Cost
from benchmarks.pictures import Curve, Panel
from benchmarks.results import Results, Table
from benchmarks.scale import making
from benchmarks.scale.fit import amount, growth_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What is measured at each point, in order, and what it is called.
STEPS = {
    "publish": "publish",
    "restore": "restore",
    "confirm": "restore again",
    "unchanged": "publish unchanged",
    "changed": "publish 1 % changed",
    "verify": "verify",
}
_KEY, _TREE = "scale", "scale"


@dataclass(frozen=True)
class Kind:
    """
    One curve.

    Args:
        x: What is counted along the curve: ``files`` or ``size`` of a sample.

        of, each: The unit of costs: so many of *x* have that name.
    """

    title: str
    x: str
    of: str
    each: float


KINDS = {
    "files": Kind("small files", "files", "100,000 files", 1e5),
    "bytes": Kind("big files", "size", "GB", 1e9),
    "mixed": Kind("both", "size", "GB", 1e9),
}


def measure_tree(
    kind: str, number: int, scratch: Path, rounds: int, patience: float, plain: bool
) -> Iterator[dict[str, Any]]:
    """
    The point of *number* files or bytes, after each of its rounds; see :func:`tables`.

    Whatever is written is deleted only when the last round is over.
    """
    with tempfile.TemporaryDirectory(prefix="scale-", dir=scratch) as folder:
        tree = Path(folder, "tree")
        making.run("make", kind, number, tree)
        files, size = measure.tree_size(tree)
        point: dict[str, Any] = {"files": files, "size": size, "rounds": []}
        space, inodes = int(size * 1.3) + files * 4096, files * 2 + 10_000
        with open_ground(Path(folder), space, inodes=inodes, plain=plain) as ground:
            begun = perf_counter()
            for turn in range(rounds):
                store = Path(folder, f"store-{turn}")
                done, about = _measure_round(kind, number, tree, store, ground)
                point = {**point, **about, "rounds": [*point["rounds"], done]}
                yield point
                if perf_counter() - begun > patience:
                    break


def _measure_round(
    kind: str, number: int, tree: Path, store: Path, ground: Ground
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each step took, and what the store has then of one snapshot of the tree."""

    def run(command: str, *arguments: str | Path, cold: bool = False) -> dict[str, Any]:
        if cold:
            drop_caches()
        words = [measure.cachepod(), command, "--json", "--store", store, *arguments]
        return sample(measure.run(words))

    def at(place: Path, key: str = _KEY) -> list[str]:
        return ["--key", key, "--tree", f"{_TREE}={place}"]

    done = {"publish": run("publish", *at(tree), cold=True)}
    about = {"manifest": _size(store / "manifests"), "stored": _size(store / "packs")}
    with ground.fresh() as place:
        restored = place / "tree"
        done["restore"] = run("restore", *at(restored), cold=True)
        done["confirm"] = run("restore", *at(restored))
        done["unchanged"] = run("publish", *at(restored, "unchanged"))
        making.run("change", kind, number, restored)
        done["changed"] = run("publish", *at(restored, "changed"))
    done["verify"] = run("verify", _KEY, cold=True)
    return done, about


def sample(cost: Cost) -> dict[str, Any]:
    """What is kept of one command."""
    report = cost.report
    return {
        "seconds": cost.seconds,
        "cpu": cost.cpu,
        "peak": cost.peak,
        "phases": cost.phases,
        "read": report.get("read", 0),
        "written": report.get("stored_new", report.get("written", 0)),
    }


def _size(folder: Path) -> int:
    return measure.tree_size(folder)[1]


def tables(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Table]:
    """
    For each curve, such as *files*: seconds, *files-cpu*, *files-memory*, *files-store* and
    *files-growth*.

    Args:
        curves: By kind, the points: each with *files*, *size*, *manifest*, *stored*, and *rounds*
            of samples by step.
    """
    made = []
    for name, points in curves.items():
        if points:
            made += [
                _table(name, points, _TIMES),
                _table(f"{name}-cpu", points, {f"{STEPS[s]} s": (s, _cpu) for s in STEPS}),
                _table(f"{name}-memory", points, {f"{STEPS[s]} MB": (s, _peak) for s in STEPS}),
                _table(f"{name}-store", points, _STORED),
                _growth(name, points),
            ]
    return made


def _table(
    name: str, points: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, Value]]
) -> Table:
    """Medians."""
    rows = [
        [
            f"{point['files']:,}",
            f"{point['size'] / 1e9:.2f}",
            *(amount(measure.median(_values(point, *column))) for column in columns.values()),
            f"{len(point['rounds'])}",
        ]
        for point in points
    ]
    return Table(name, ["files", "GB", *columns, "rounds"], rows)


def _growth(name: str, points: Sequence[Mapping[str, Any]]) -> Table:
    kind = KINDS[name]

    def curve(step: str, value: Value) -> list[tuple[float, float]]:
        return [(point[kind.x], each) for point in points for each in _values(point, step, value)]

    curves = {
        label: {
            "seconds": curve(step, _seconds),
            "CPU": curve(step, _cpu),
            "memory": curve(step, _peak),
        }
        for step, label in STEPS.items()
    }
    curves |= {
        name.removesuffix(" s"): {"seconds": curve(*column)}
        for name, column in _TIMES.items()
        if column[1] is not _seconds
    }
    curves |= {name: {"seconds": curve(*column)} for name, column in _STORED.items()}
    return growth_table(f"{name}-growth", curves, kind.each, kind.of)


Value = Callable[[Mapping[str, Any]], float]


def _values(point: Mapping[str, Any], step: str, value: Value) -> list[float]:
    """*value* of each round, or, without a *step*, of the point."""
    return [value(done[step]) for done in point["rounds"]] if step else [value(point)]


def _seconds(done: Mapping[str, Any]) -> float:
    return float(done["seconds"])


def _cpu(done: Mapping[str, Any]) -> float:
    return float(done["cpu"])


def _peak(done: Mapping[str, Any]) -> float:
    return float(done["peak"] / 1e6)


def _before(done: Mapping[str, Any]) -> float:
    """Seconds before the first byte is moved."""
    phases = ("manifest", "prepare", "scan", "compare")
    return float(sum(done["phases"].get(phase, 0.0) for phase in phases))


_TIMES: dict[str, tuple[str, Value]] = {
    **{f"{label} s": (step, _seconds) for step, label in STEPS.items()},
    "plan of restore s": ("restore", _before),
    "scan of publish 1 % changed s": ("changed", _before),
}
_STORED: dict[str, tuple[str, Value]] = {
    "manifest MB": ("", lambda point: point["manifest"] / 1e6),
    "stored MB": ("", lambda point: point["stored"] / 1e6),
    "1 % changed, stored MB": ("changed", lambda done: done["written"] / 1e6),
}


def draw(found: Results) -> Figure:
    """Seconds and memory of each curve."""
    panels = []
    for name, points in found.samples.items():
        if not points:
            continue
        kind = KINDS[name]
        scale = 1 if kind.x == "files" else 1e9
        x = "files" if kind.x == "files" else "GB"
        axis = [point[kind.x] / scale for point in points]
        for title, unit, value in (("time", "seconds", _seconds), ("memory", "peak MB", _peak)):
            curves = [
                _curve(label, axis, [_values(point, step, value) for point in points])
                for step, label in STEPS.items()
            ]
            panels.append(
                Panel(f"{kind.title}: {title}", x, unit, curves, linear=unit == "seconds")
            )
    return pictures.draw_curves("How cost grows with the tree", panels)


def _curve(label: str, axis: Sequence[float], values: Sequence[Sequence[float]]) -> Curve:
    return Curve(
        label,
        axis,
        [measure.median(each) for each in values],
        [min(each) for each in values],
        [max(each) for each in values],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.trees", description=(__doc__ or "").splitlines()[1]
    )
    add = parser.add_argument
    add("--files", type=int, nargs="*", default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    add("--bytes", type=float, nargs="*", default=[1, 2, 4, 8, 16], metavar="GB")
    add("--mixed", type=float, nargs="*", default=[1, 2, 4, 8], metavar="GB")
    add("--rounds", type=int, default=3, metavar="N", help="of a point, at most")
    add("--patience", type=float, default=60, metavar="S", help="no new round of a point after it")
    add("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    add("--plain", action="store_true", help="directories, no loop devices")
    add("--json", type=Path, metavar="FILE", help="write tables and every sample there")
    add("--picture", type=Path, metavar="FILE", help="draw the curves: .svg or .png")
    return parser.parse_args()


def main() -> None:
    """Make each tree, measure it, delete it; what is known is written after every round."""
    options = _options()
    facts = measure.machine()
    measure.print_machine(facts)
    found = results.begin(
        "benchmarks.scale.trees", facts, {"rounds": options.rounds, "page cache": "dropped"}
    )
    curves: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    jobs = [("files", number) for number in options.files]
    jobs += [
        (kind, int(size * 1e9)) for kind in ("bytes", "mixed") for size in getattr(options, kind)
    ]
    try:
        for name, number in jobs:
            rest = (number, options.scratch, options.rounds, options.patience, options.plain)
            for turn, point in enumerate(measure_tree(name, *rest)):
                del curves[name][len(curves[name]) - bool(turn) :]
                curves[name].append(point)
                found = replace(found, tables=tables(curves), samples=curves)
                found.write(options.json)
                said = {step: f"{_seconds(done):.2f}" for step, done in point["rounds"][-1].items()}
                print(f"{name} {number:,}, round {turn + 1}: {said}", file=sys.stderr)
    finally:
        for table in found.tables:
            print(f"{table}\n")
        if options.picture and found.samples:
            pictures.save(draw(found), options.picture)


if __name__ == "__main__":
    measure.script(main)
