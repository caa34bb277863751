"""Tables and the picture of :mod:`benchmarks.scale.containers`, out of its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import measure
from benchmarks.pictures import Curve, Panel, draw_curves
from benchmarks.results import Results, Table
from benchmarks.scale.fit import fit
from benchmarks.scale.subject import Samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"cachepod": "cachepod restore", "tar": "zstd -dc | tar -x"}
_WIRE_BOUND = 1.1  # times what the wire allows
_CORES_BOUND = 0.85  # share of the cores' time
_MODEL = (
    "The bandwidth is a model of a volume: all containers' bytes go over one wire of that rate."
)


def last(point: Mapping[str, Any]) -> float:
    """Seconds until the last container had its tree; the median of the rounds."""
    return measure.median([seconds[-1] for seconds in point["seconds"]])


def allowed(point: Mapping[str, Any]) -> float:
    """Seconds that the wire takes for the bytes of all containers."""
    return measure.median(point["moved"]) / float(point["rate"])


def bound(point: Mapping[str, Any]) -> str:
    """What held the containers up, as far as can be told."""
    if last(point) <= _WIRE_BOUND * allowed(point):
        return "wire"
    return "cores" if measure.median(point["busy"]) > _CORES_BOUND else "neither"


def tables(samples: Samples) -> list[Table]:
    """``containers``, ``growth`` of it, and ``fleet``, as far as they were measured."""
    found = []
    points = samples.get("together", [])
    if points:
        found += [_containers(points), _growth(points)]
    if samples.get("fleet") or samples.get("no fleet"):
        found.append(_fleet(samples))
    return found


def _containers(points: Sequence[Mapping[str, Any]]) -> Table:
    headings = ["restore at once", "containers", "MB/s", "first s", "median s", "last s", "range"]
    headings += ["allowed s", "ratio", "MB/s in all", "first / last", "peak MB each"]
    headings += ["requests each", "CPU s each", "cores busy %", "bound by"]
    rows = []
    for point in points:
        runs, count = point["seconds"], point["containers"]
        end = last(point)
        rows.append(
            [
                NAMES[point["way"]],
                f"{count}",
                f"{point['rate'] / 1e6:g}",
                f"{measure.median([run[0] for run in runs]):.2f}",
                f"{measure.median([measure.median(run) for run in runs]):.2f}",
                f"{end:.2f}",
                measure.spread([run[-1] for run in runs]),
                f"{allowed(point):.2f}",
                f"{end / allowed(point):.2f}",
                f"{measure.median(point['moved']) / 1e6 / end:.0f}",
                f"{measure.median([run[0] / run[-1] for run in runs]):.2f}",
                f"{max(point['peak']) / 1e6:.0f}",
                f"{measure.median(point['requests']) / count:.0f}",
                f"{measure.median([sum(run) / count for run in point['cpu']]):.2f}",
                f"{100 * measure.median(point['busy']):.0f}",
                bound(point),
            ]
        )
    notes = [
        _MODEL,
        "*allowed* is the wire's time for the bytes of all; *range* is that of the last container.",
        "*bound by*: the wire, up to 1.1 times what it allows; the cores of this machine, which "
        "real containers do not share, above 85%.",
    ]
    return Table("containers", headings, rows, notes)


def _curves(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The points of each curve, by its name."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        name = f"{NAMES[point['way']]}, {point['rate'] / 1e6:g} MB/s"
        curves.setdefault(name, []).append(point)
    return curves


def _growth(points: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for name, own in _curves(points).items():
        for what, values in (
            ("seconds of the last", [(each["containers"], last(each)) for each in own]),
            ("memory of each", [(each["containers"], max(each["peak"])) for each in own]),
            (
                "requests of each",
                [
                    (each["containers"], measure.median(each["requests"]) / each["containers"])
                    for each in own
                ],
            ),
        ):
            growth = fit(values)
            rows.append([name, what, f"{growth or ''}"])
    return Table("growth", ["over the containers", "of", "grows as"], rows)


def _fleet(samples: Samples) -> Table:
    headings = ["hook, new requirements", "containers", "installs", "waited", "published s"]
    headings += ["last s", "after it s", "requests", "each waiter", "of them lists"]
    headings += ["cores busy %"]
    if samples.get("no fleet"):
        why = samples["no fleet"]
        return Table("fleet", headings, [[f"not here: {why}", *[""] * (len(headings) - 1)]])
    points = samples["fleet"]
    alone = next((point for point in points if point["containers"] == 1), None)
    rows = []
    for point in points:
        runs, count = point["runs"], point["containers"]

        def of_each(
            kinds: Callable[[Mapping[str, int]], int],
            runs: Sequence[Any] = runs,
            count: int = count,
        ) -> str:
            """What one more container asked for, beyond what the builder alone asks for."""
            if alone is None or count == 1:
                return ""
            own = measure.median([kinds(run["requests"]) for run in alone["runs"]])
            total = measure.median([kinds(run["requests"]) for run in runs])
            return f"{(total - own) / (count - 1):.1f}"

        end = measure.median([run["seconds"][-1] for run in runs])
        published = measure.median([run["builder"] for run in runs])
        rows.append(
            [
                "cachepod restore || install && publish",
                f"{count}",
                f"{max(run['installs'] for run in runs)}",
                f"{measure.median([run['waited'] for run in runs]):.0f}",
                f"{published:.2f}",
                f"{end:.2f}",
                f"{end - published:.2f}",
                f"{measure.median([sum(run['requests'].values()) for run in runs]):.0f}",
                of_each(lambda asked: sum(asked.values())),
                of_each(lambda asked: asked.get("list", 0)),
                f"{100 * measure.median([run['busy'] for run in runs]):.0f}",
            ]
        )
    notes = [
        _MODEL,
        f"A small configuration whose install takes some {samples['install']:g} s; "
        "all containers start at once, on the cores of this machine.",
    ]
    return Table("fleet", headings, rows, notes)


def draw(results: Results) -> Figure:
    """Time of the last container and bytes a second over containers; the fleet's time."""
    points = results.samples.get("together", [])
    panels = []
    counts = sorted({point["containers"] for point in points})
    curves = _curves(points)
    if curves:
        times = [
            Curve(
                name,
                [point["containers"] for point in own],
                [last(point) for point in own],
                [min(run[-1] for run in point["seconds"]) for point in own],
                [max(run[-1] for run in point["seconds"]) for point in own],
                [allowed(point) for point in own],
            )
            for name, own in curves.items()
        ]
        shares = [
            Curve(
                name,
                [point["containers"] for point in own],
                [allowed(point) / last(point) * 100 for point in own],
            )
            for name, own in curves.items()
        ]
        title = "Until the last container has its tree (dashed: the wire alone)"
        panels.append(Panel(title, "containers", "seconds", times, ticks=counts))
        panels.append(
            Panel(
                "Use of the shared wire", "containers", "%", shares, ticks=counts, by_factors=True
            )
        )
    started = results.samples.get("fleet", [])
    if started:
        counts = [point["containers"] for point in started]
        lines = [
            Curve(
                label,
                counts,
                [measure.median([of(run) for run in point["runs"]]) for point in started],
            )
            for label, of in (
                ("last container ready", lambda run: run["seconds"][-1]),
                ("builder has published", lambda run: run["builder"]),
            )
        ]
        title = "Fleet with new requirements: one installs, all others wait"
        panels.append(Panel(title, "containers", "seconds", lines, ticks=counts, by_factors=True))
    return draw_curves("Containers that start at once; the bandwidth is a model", panels)
