"""
Pictures of results: bars by phase and curves, readable at the width of a README.

matplotlib is imported only when something is drawn, so that every benchmark runs without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that people who do not see red or green tell apart (Okabe and Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
OURS = COLOURS[0]
OTHERS = "#B8C0C8"
#: The name of a part that gathers what is too small to be shown; always grey.
OTHER = "other"
_INK = "#24292F"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": "#8C959F",
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "svg.fonttype": "path",  # looks the same everywhere
    "svg.hashsalt": "cachepod",  # and the same each time
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class Bar:
    """
    One horizontal bar.

    Args:
        label: What stands at its left.

        parts: Seconds by the name of the part, in the order in which they are drawn.

        spread: Least and most of the whole, drawn as a thin line; none if they are equal.

        ours: Drawn in full colour beside others that are grey, or pale where bars have parts.

        note: Instead of a bar, where there is no number.
    """

    label: str
    parts: Mapping[str, float]
    spread: tuple[float, float] = (0.0, 0.0)
    ours: bool = False
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """
    One line through points; *low* and *high* shade what the rounds ranged over.

    *bound*, at each point what could be had at best, is a dashed line of the same colour.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    bound: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """
    Axes with some curves; where they are *logarithmic*, a power law is a straight line.

    Args:
        ticks: These and no others are marked on the horizontal axis; without them, where there are
            points.

        by_factors: The horizontal axis is logarithmic and the vertical one begins at nothing.

        linear: Draw a dotted line, too, that the first curve would follow from its last point
            down if it grew linearly.
    """

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    logarithmic: bool = True
    ticks: Sequence[float] = ()
    linear: bool = False
    by_factors: bool = False


def draw_bars(title: str, groups: Mapping[str, Sequence[Bar]], *, unit: str = "seconds") -> Figure:
    """
    Horizontal bars, one panel below the other for each of *groups*.

    The same part has the same colour in every bar. Each bar ends with its sum.
    """
    plt = _pyplot()
    heights = [len(bars) + 0.6 for bars in groups.values()]
    size = (9.0, 0.9 + 0.34 * sum(heights) + 0.35 * len(groups))
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            len(groups), 1, figsize=size, height_ratios=heights, squeeze=False, layout="constrained"
        )
        names = list(
            dict.fromkeys(name for bars in groups.values() for bar in bars for name in bar.parts)
        )
        colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
        colours.update({OTHER: OTHERS} if OTHER in names else {})
        for own, (heading, bars) in zip(axes[:, 0], groups.items(), strict=True):
            _bars(own, heading, bars, colours, single=len(names) == 1)
        axes[-1, 0].set_xlabel(unit)
        if len(names) > 1:
            handles = [plt.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names]
            figure.legend(
                handles, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False
            )
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        return figure


def _bars(
    axes: Axes, heading: str, bars: Sequence[Bar], colours: Mapping[str, str], *, single: bool
) -> None:
    most = max((max(sum(bar.parts.values()), bar.spread[1]) for bar in bars), default=0) or 1
    outstanding = any(bar.ours for bar in bars)
    for place, bar in enumerate(bars):
        if bar.note:
            axes.text(0.005 * most, place, bar.note, va="center", fontsize=9, style="italic")
            continue
        left = 0.0
        alpha = 0.45 if outstanding and not bar.ours and not single else 1.0
        for name, seconds in bar.parts.items():
            colour = (OURS if bar.ours else OTHERS) if single else colours[name]
            pale = outstanding and not bar.ours and not single
            alpha = 0.45 if pale else 1.0
            axes.barh(
                place, seconds, left=left, height=0.72, color=colour, alpha=alpha, linewidth=0
            )
            left += seconds
        low, high = bar.spread
        if high > low:
            axes.plot([low, high], [place, place], color=_INK, linewidth=1.2, solid_capstyle="butt")
        weight = "bold" if bar.ours else "normal"
        text = f"{left:.1f}" if left >= 1 else f"{left:.2f}"
        axes.text(max(left, high) + 0.01 * most, place, text, va="center", fontweight=weight)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if bar.ours else "normal")
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, most * 1.1)
    axes.tick_params(axis="y", length=0)
    axes.set_title(heading, loc="left", fontsize=10)


def draw_curves(title: str, panels: Sequence[Panel], *, columns: int = 2) -> Figure:
    """
    Panels beside and below one another, *columns* in a row.

    The legend stands below all of them where they have the same curves, else in each.
    """
    plt = _pyplot()
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    labels = {tuple(curve.label for curve in panel.curves) for panel in panels}
    shared = len(labels) == 1 and len(panels) > 1
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            lines,
            columns,
            figsize=(4.6 * columns, 0.5 + 3.2 * lines + 0.5 * shared),
            squeeze=False,
            layout="constrained",
        )
        cells = axes.ravel()
        for own, panel in zip(cells, panels, strict=False):
            _curves(own, panel, legend=not shared and len(panel.curves) > 1)
        if shared:
            handles, names = cells[0].get_legend_handles_labels()
            beside = _beside(names, figure.get_figwidth())
            figure.legend(handles, names, loc="outside lower center", ncols=beside, frameon=False)
        for own in cells[len(panels) :]:
            own.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        return figure


def _curves(axes: Axes, panel: Panel, *, legend: bool) -> None:
    for number, curve in enumerate(panel.curves):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(curve.x, curve.y, marker="o", markersize=4, color=colour, label=curve.label)
        if curve.low and curve.high:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        if curve.bound:
            axes.plot(curve.x, curve.bound, linestyle=(0, (3, 2)), linewidth=1, color=colour)
    if panel.logarithmic and not panel.by_factors:
        _logarithmic(axes, panel)
    else:
        axes.set_ylim(bottom=0)
        axes.set_xscale("log" if panel.by_factors else "linear")
    if panel.ticks:
        axes.set_xticks(panel.ticks, [short(tick) for tick in panel.ticks])
        axes.minorticks_off()
    axes.grid(True, color="#EAEEF2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.set_title(panel.title, loc="left", fontsize=10)
    if legend and len(panel.curves) > 3:
        # Below, where it hides nothing.
        beside = _beside([curve.label for curve in panel.curves], 4.6)
        axes.legend(
            frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=beside
        )
    elif legend:
        axes.legend(frameon=False, fontsize=9)


def _beside(names: Sequence[str], width: float) -> int:
    """How many entries of a legend fit beside one another, on so many inches."""
    longest = max(map(len, names)) + 8  # letters, with the piece of line before them
    return max(1, min(len(names), int(13 * width) // longest))


def _logarithmic(axes: Axes, panel: Panel) -> None:
    """Both axes, with ticks where the points are and numbers as people write them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    values = [value for curve in panel.curves for value in (*curve.y, *curve.low, *curve.high)]
    values = [value for value in values if value > 0] or [1.0]
    if max(values) < 2 * min(values):  # what hardly changes shall not look as if it did
        axes.set_ylim(min(values) / 3, max(values) * 3)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 200 * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    places = sorted({x for curve in panel.curves for x in curve.x})
    axes.set_xticks(places, [short(x) for x in places])
    axes.xaxis.set_minor_locator(NullLocator())
    if panel.linear and panel.curves and panel.curves[0].x:
        first = panel.curves[0]
        sides = [min(first.x), max(first.x)]
        top = first.y[-1]
        axes.plot(sides, [top * x / first.x[-1] for x in sides], ":", color="#6E7781", linewidth=1)
        axes.set_ylim(low, high)


def short(value: float) -> str:
    """A number as a tick has it, such as ``0.3``, ``100``, ``30k`` and ``1M``."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.3g}"


def check(path: Path | None) -> None:
    """
    Whether a picture could be saved at *path*, before the work is done; None is none.

    Raises:
        SystemExit: No matplotlib, no such format, no such directory; in words.
    """
    if path is None:
        return
    formats = _pyplot().figure().canvas.get_supported_filetypes()
    _pyplot().close()
    if path.suffix[1:].lower() not in formats:
        raise SystemExit(f"{path}: a picture is .svg, .png or .pdf, by its name")
    if not path.absolute().parent.is_dir():
        raise SystemExit(f"{path}: there is no such directory")


def save(figure: Figure, path: Path) -> None:
    """
    Write *figure*; the format is that of the suffix, such as ``.svg`` or ``.png``.

    Raises:
        SystemExit: No such format.
    """
    try:
        # Without a date and the like, the same result gives the same file.
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        metadata = nothing if path.suffix == ".svg" else None
        with _pyplot().rc_context(_STYLE):
            figure.savefig(path, dpi=150, metadata=metadata)
    except ValueError as error:
        raise SystemExit(f"{path}: {error}") from None
    finally:
        _pyplot().close(figure)


def _pyplot():  # type: ignore[no-untyped-def]
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("matplotlib draws the pictures: pip install 'cachepod[bench]'") from None
    matplotlib.use("agg")
    import matplotlib.pyplot

    return matplotlib.pyplot
