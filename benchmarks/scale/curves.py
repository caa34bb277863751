"""
Points of a curve, as tables and pictures; what the curves over trees and snapshots share.

A point is JSON: what it was measured at, such as ``{"files": 10000, "size": 20000000}``, and
*rounds*, each of which has a sample of some steps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import measure, pictures
from benchmarks.measure import Cost
from benchmarks.pictures import Curve, Panel
from benchmarks.results import Results, Table
from benchmarks.scale.fit import amount, growth_table

Point = Mapping[str, Any]
Value = Callable[[Mapping[str, Any]], float]


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


def seconds(done: Mapping[str, Any]) -> float:
    """Wall time of a sample."""
    return float(done["seconds"])


def cpu(done: Mapping[str, Any]) -> float:
    """CPU seconds of a sample."""
    return float(done["cpu"])


def peak(done: Mapping[str, Any]) -> float:
    """Peak MB of a sample."""
    return float(done["peak"] / 1e6)


def before(done: Mapping[str, Any]) -> float:
    """Seconds before the first byte was moved."""
    phases = ("manifest", "prepare", "scan", "compare")
    return float(sum(done["phases"].get(phase, 0.0) for phase in phases))


@dataclass(frozen=True)
class Shape:
    """
    What a curve is made of.

    Args:
        title: Of its panels.

        x: What is counted along it: a field of a point.

        heads: First columns of its tables: heading, and what stands there.

        of, each: The unit of costs: so many of *x* have that name.

        steps: What is measured at each point, in order, and what it is called.

        more: Other times: by heading, the step and what of it.

        stored: Other values: by heading, the step, or none for the point, and what of it.

        axis: Name of *x* in pictures, and how many make one there.

        groups: Titles of panels, and the steps in each; all of them under *title* without any.

        amounts: Titles of more panels, with the unit and the headings of *stored* in each.
    """

    title: str
    x: str
    heads: Mapping[str, Callable[[Point], str]]
    of: str
    each: float
    steps: Mapping[str, str]
    more: Mapping[str, tuple[str, Value]] = field(default_factory=dict)
    stored: Mapping[str, tuple[str, Value]] = field(default_factory=dict)
    axis: tuple[str, float] = ("files", 1)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    amounts: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)

    def tables(self, name: str, points: Sequence[Point]) -> list[Table]:
        """Seconds as *name*; *name* with ``-cpu``, ``-memory``, ``-store`` and ``-growth``."""
        if not points:
            return []
        times = {f"{label} s": (step, seconds) for step, label in self.steps.items()}
        made = [
            self._medians(name, points, {**times, **self.more}),
            self._medians(
                f"{name}-cpu", points, {f"{label} s": (s, cpu) for s, label in self.steps.items()}
            ),
            self._medians(
                f"{name}-memory",
                points,
                {f"{label} MB": (s, peak) for s, label in self.steps.items()},
            ),
        ]
        if self.stored:
            made.append(self._medians(f"{name}-store", points, self.stored))
        return [*made, self._growth(name, points)]

    def _medians(
        self, name: str, points: Sequence[Point], columns: Mapping[str, tuple[str, Value]]
    ) -> Table:
        rows = [
            [head(point) for head in self.heads.values()]
            + [
                amount(measure.median(found)) if (found := values(point, *column)) else ""
                for column in columns.values()
            ]
            + [f"{len(point['rounds'])}"]
            for point in points
        ]
        return Table(name, [*self.heads, *columns, "rounds"], rows)

    def _growth(self, name: str, points: Sequence[Point]) -> Table:
        def curve(step: str, value: Value) -> list[tuple[float, float]]:
            return [
                (point[self.x], each) for point in points for each in values(point, step, value)
            ]

        curves = {
            label: {"seconds": curve(step, seconds), "CPU": curve(step, cpu)}
            | {"memory": curve(step, peak)}
            for step, label in self.steps.items()
        }
        curves |= {label: {"seconds": curve(*column)} for label, column in self.more.items()}
        curves |= {label: {"seconds": curve(*column)} for label, column in self.stored.items()}
        return growth_table(f"{name}-growth", curves, self.each, self.of)

    def panels(self, points: Sequence[Point]) -> list[Panel]:
        """Time and memory of every group of steps, and the amounts; none of no points."""
        if not points:
            return []
        made = []
        for title, steps in (self.groups or {self.title: list(self.steps)}).items():
            for what, unit, value in (("time", "seconds", seconds), ("memory", "peak MB", peak)):
                curves = [self._curve(self.steps[step], points, step, value) for step in steps]
                linear = unit == "seconds" and not self.groups
                made.append(Panel(f"{title}: {what}", self.axis[0], unit, curves, linear=linear))
        for title, (unit, labels) in self.amounts.items():
            curves = [self._curve(label, points, *self.stored[label]) for label in labels]
            made.append(Panel(title, self.axis[0], unit, curves))
        return made

    def _curve(self, label: str, points: Sequence[Point], step: str, value: Value) -> Curve:
        known = [point for point in points if values(point, step, value)]
        ranges = [values(point, step, value) for point in known]
        return Curve(
            label,
            [point[self.x] / self.axis[1] for point in known],
            [measure.median(each) for each in ranges],
            [min(each) for each in ranges],
            [max(each) for each in ranges],
        )


def values(point: Point, step: str, value: Value) -> list[float]:
    """*value* of each round that has the *step*; without one, of the point."""
    if not step:
        return [value(point)]
    return [value(done[step]) for done in point["rounds"] if step in done]


class Keeper:
    """
    Results that grow.

    Args:
        found: Without any tables yet.

        shapes: Of the curves, by name.

        json: Where they are written after every round, if anywhere.
    """

    def __init__(self, found: Results, shapes: Mapping[str, Shape], json: Path | None) -> None:
        self._shapes = shapes
        self._json = json
        self._curves: dict[str, list[Point]] = {name: [] for name in shapes}
        self.found = found

    def keep(self, name: str, points: Iterator[Point]) -> None:
        """
        Take in one point of the curve *name* as it grows, round by round, and write it.

        What was measured before one of them fails is kept.
        """
        curve = self._curves[name]
        for turn, point in enumerate(points):
            del curve[len(curve) - bool(turn) :]
            curve.append(point)
            tables = [
                table
                for each, shape in self._shapes.items()
                for table in shape.tables(each, self._curves[each])
            ]
            self.found = replace(self.found, tables=tables, samples=self._curves)
            self.found.write(self._json)
            last = {step: f"{seconds(done):.2f}" for step, done in point["rounds"][-1].items()}
            at = f"{point[self._shapes[name].x]:,}"
            print(f"{name} {at}, round {len(point['rounds'])}: {last}", file=sys.stderr)


@contextmanager
def kept(
    found: Results,
    shapes: Mapping[str, Shape],
    json: Path | None,
    picture: Path | None,
    title: str,
) -> Iterator[Keeper]:
    """A :class:`Keeper`; what it has is printed and drawn at the end, however that comes."""
    keeper = Keeper(found, shapes, json)
    try:
        yield keeper
    finally:
        for table in keeper.found.tables:
            print(f"{table}\n")
        if picture and keeper.found.samples:
            pictures.save(draw(title, keeper.found, shapes), picture)


def draw(title: str, found: Results, shapes: Mapping[str, Shape]) -> Any:
    """The panels of every curve that has points, as a figure."""
    panels = [
        panel
        for name, points in found.samples.items()
        if name in shapes
        for panel in shapes[name].panels(points)
    ]
    return pictures.draw_curves(title, panels)
