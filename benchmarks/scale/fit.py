"""
How a curve grows, out of its points; pure.

Two models, each good for one question. The exponent of a power law, by least squares on logarithms
over the upper part of the curve, where a fixed cost matters least: does it grow faster than
linearly? And a fixed cost and a slope, by least squares on relative errors over all of it: what
does one more cost?

A bare n * log(n), as of sorting, has an exponent of some 1.1 in the sizes that are measured. It is
shown and not called faster than linear; what doubles its cost per item with every tenfold is 1.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results import Table

#: Above 1 by more than this, and by more than the noise, is faster than linear.
TOLERANCE = 0.15
#: Below this, it does not grow.
_FLAT = 0.1
_LEAST = 3  # sizes that the exponent is fitted to, where there are so many
#: Student's t, one-sided 95 %, by degrees of freedom; from there on 1.7.
_STUDENT = (math.inf, 6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83)
#: Scatter of one measurement, as a share of it, that few points are taken to have at most: what
#: lies further off the power law is a bend, and no noise.
_SCATTER = 0.1


@dataclass(frozen=True)
class Growth:
    """
    How one measure grows.

    Args:
        exponent: Of the power law; 1 is linear.

        noise: How much less the exponent may well be, as far as the points scatter.

        fixed: Cost of none, in the unit of the values.

        each: Cost of one more, likewise.

        over: Smallest and largest size that the exponent was fitted to.
    """

    exponent: float
    noise: float
    fixed: float
    each: float
    over: tuple[float, float] = (0.0, 0.0)

    @property
    def faster(self) -> bool:
        """Whether it grows faster than linearly beyond noise."""
        return self.exponent - self.noise > 1 + TOLERANCE

    def __str__(self) -> str:
        law = f"n^{max(self.exponent, 0.0):.2f}"
        if self.faster:
            return f"{law}, faster than linearly"
        return f"{law}, not at all" if self.exponent < _FLAT else law


def fit(points: Iterable[tuple[float, float]]) -> Growth | None:
    """
    How the values of *points* grow; None where less than two sizes have one.

    Args:
        points: Size and value; several of one size are rounds. Of values that are not positive
            there is no logarithm: they are passed over.
    """
    known = [(n, value) for n, value in points if n > 0 and value > 0]
    sizes = sorted({n for n, _ in known})
    if len(sizes) < 2:
        return None
    middle = math.sqrt(sizes[0] * sizes[-1])
    least = min(middle, sizes[-min(_LEAST, len(sizes))])
    upper = [(math.log(n), math.log(value)) for n, value in known if n >= least * (1 - 1e-9)]
    exponent, noise = _slope(upper)
    fixed, each = _line(known)
    used = [size for size in sizes if size >= least * (1 - 1e-9)]
    return Growth(exponent, noise, fixed, each, (used[0], used[-1]))


def _slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope by least squares, and how much of it may be noise."""
    count = len(points)
    x_mean = sum(x for x, _ in points) / count
    y_mean = sum(y for _, y in points) / count
    width = sum((x - x_mean) ** 2 for x, _ in points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / width
    most = 1.7 * _SCATTER / math.sqrt(width)
    free = count - 2
    if not free:
        return slope, most
    rest = sum((y - y_mean - slope * (x - x_mean)) ** 2 for x, y in points)
    student = _STUDENT[free] if free < len(_STUDENT) else 1.7
    return slope, min(most, student * math.sqrt(rest / free / width))


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Fixed cost and slope with the least relative errors; neither is less than nothing."""
    s = [sum(n**power / value**2 for n, value in points) for power in range(3)]
    t = [sum(n**power / value for n, value in points) for power in range(2)]
    whole = s[0] * s[2] - s[1] ** 2
    fixed = (t[0] * s[2] - t[1] * s[1]) / whole if whole > 0 else 0.0
    each = (s[0] * t[1] - s[1] * t[0]) / whole if whole > 0 else 0.0
    if each < 0:
        return t[0] / s[0], 0.0
    if fixed < 0:
        return 0.0, t[1] / s[2]
    return fixed, each


Points = Sequence[tuple[float, float]]


def growth_table(
    name: str, curves: Mapping[str, Mapping[str, Points]], each: float, of: str
) -> Table:
    """
    A row for each of *curves*: how each of its measures grows, and of the first its fixed cost and
    what *each* more cost.

    Args:
        name: Of the table.

        curves: Size and value, by what was done and by the measure with its unit. The first curve
            has all measures there are.

        each: As many as a reader can imagine, such as 100,000.

        of: What they are, such as ``100,000 files``.
    """
    units = list(next(iter(curves.values()), {"": ()}))
    rows, faster = [], []
    for label, measures in curves.items():
        grown = {unit: fit(points) for unit, points in measures.items()}
        first = grown.get(units[0])
        row = [label, *(["", ""] if first is None else _amounts(first, each))]
        for place, unit in enumerate(units):
            found = grown.get(unit)
            row.insert(1 if not place else len(row), "" if found is None else str(found))
            if found is not None and found.faster:
                faster.append(f"{label}, {unit}")
        rows.append(row)
    notes = [f"Faster than linearly: {'; '.join(faster)}."] if faster else []
    return Table(
        name,
        ["", f"{units[0]} as", "fixed", f"for {of}", *(f"{unit} as" for unit in units[1:])],
        rows,
        notes,
    )


def _amounts(found: Growth, each: float) -> list[str]:
    return [amount(found.fixed), amount(found.each * each)]


def amount(value: float) -> str:
    """Three digits that count, such as ``0.0123`` and ``1,230``."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(digits, 0)}f}" if digits < 7 else "0"
