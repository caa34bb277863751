"""The picture of a result: a bar for each kind of start, by phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchmarks import hook, measure, pictures
from benchmarks.cold_warm import starts as kinds
from benchmarks.cold_warm.starts import Start
from benchmarks.pictures import OTHER, Bar
from benchmarks.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A part that is smaller than this in every bar is not told from the others.
_SMALL = 0.025
_MOST = len(pictures.COLOURS) - 1

_LABELS = {
    kinds.COLD: "cold: install and publish",
    kinds.WARM: "warm: restore",
    kinds.REPEATED: "the same container again",
    kinds.PARTIAL: "one requirement changed",
    kinds.AFTER: "warm, with the change",
}
_PARTS = {
    ("restore", "restore"): "restore files",
    ("restore", "confirm"): "confirm what is there",
    ("install", "resolve"): "resolve",
    ("install", "packages"): "download and unpack",
    ("install", "bytecode"): "compile bytecode",
    ("restore", "check"): "check that it imports",
    ("install", "check"): "check that it imports",
    ("publish", "store"): "compress and store",
}


def draw(results: Results) -> Figure:
    """
    Bars of medians; all on one scale, and those of starts that find a snapshot on their own.

    Raises:
        SystemExit: The result has no start that went well.
    """
    try:
        starts = kinds.from_json(results.samples.get("starts", {}))
    except ValueError as error:
        raise SystemExit(f"there is nothing to draw: {error}") from None
    bars = {kind: parts for kind, several in starts.items() if (parts := _parts(several))}
    if not bars:
        raise SystemExit("there is nothing to draw: no start went well")
    module = results.samples.get("module", "")
    title = "From the container's start to " + (f"import {module}" if module else "the program")
    files, size = kinds.tree(starts)
    if size:
        title += f": {_bytes(size)} in {files:,} files"
    found = {kind: parts for kind, parts in bars.items() if kind != kinds.COLD}
    groups = {"": bars}
    if kinds.COLD in bars and found:
        groups = {"every start": bars, "those that find a snapshot": found}
    return pictures.draw_bars(
        title, {name: _bars(own, starts, bars) for name, own in groups.items()}
    )


def _parts(several: list[Start]) -> dict[str, float]:
    """Seconds by part of one kind of start; what no phase accounts for is other."""
    parts: dict[str, float] = {}
    medians = {
        name: measure.median(values)
        for name, values in hook.by_line(kinds.counted(several)).items()
    }
    for (step, phase), seconds in medians.items():
        if phase:
            name = _PARTS.get((step, phase), f"{step}: {phase}")
        elif any(other == step and inner for other, inner in medians):
            within = sum(
                value for (other, inner), value in medians.items() if other == step and inner
            )
            name, seconds = OTHER, max(0.0, seconds - within)
        else:
            name = step if step.startswith("import ") else OTHER
        parts[name] = parts.get(name, 0.0) + seconds
    return parts


def _bars(
    own: Mapping[str, Mapping[str, float]],
    starts: kinds.Starts,
    every: Mapping[str, Mapping[str, float]],
) -> list[Bar]:
    kept = _kept(every)
    bars = []
    for kind, parts in own.items():
        totals = [run.seconds for run in kinds.counted(starts[kind])]
        # Zeros, too: so every bar has its parts in the one order.
        shown = {name: parts.get(name, 0.0) for name in kept}
        # A median of sums is not the sum of medians; the bar is as long as the table says.
        shown[OTHER] = max(0.0, measure.median(totals) - sum(shown.values()))
        bars.append(Bar(_LABELS[kind], shown, (min(totals), max(totals))))
    return bars


def _kept(every: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Names of the parts that are told apart, in the order of the hook, the import last."""
    share: dict[str, float] = {}
    for parts in every.values():
        whole = sum(parts.values()) or 1.0
        for name, seconds in parts.items():
            share[name] = max(share.get(name, 0.0), seconds / whole)
    share.pop(OTHER, None)
    large = sorted((name for name in share if share[name] >= _SMALL), key=lambda it: -share[it])
    first = list(dict.fromkeys(_PARTS.values()))

    def place(name: str) -> int:
        if name in first:
            return first.index(name)
        return len(first) + name.startswith("import ")

    return sorted(large[:_MOST], key=place)


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
