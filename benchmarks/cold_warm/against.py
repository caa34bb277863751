"""What changed between two results: every step and phase of every kind of start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import hook, measure
from benchmarks.cold_warm import starts as kinds
from benchmarks.results import Results, Table

#: Fewer samples say nothing of a spread.
_ENOUGH = 3
#: Seconds. What differs by less is never marked: a process's start alone varies that much.
_LEAST = 0.01

#: Of the subject, what must be the same for a fair comparison.
_SUBJECT = ("change", "store", "ground", "page cache")


def read(path: Path) -> Results:
    """
    A result of this benchmark.

    Raises:
        SystemExit: It is none.
    """
    found = Results.read(path)
    if found.benchmark != "benchmarks.cold_warm":
        raise SystemExit(f"{path} is a result of {found.benchmark}, not of benchmarks.cold_warm")
    try:
        if not kinds.from_json(found.samples["starts"]):
            raise ValueError("it holds no starts")
    except (KeyError, ValueError, AttributeError) as error:
        raise SystemExit(f"{path} is no result of this benchmark: {error}") from None
    return found


def compare(old: Results, new: Results) -> Table:
    """
    Old and new medians, their difference and ratio; marked where the ranges lie apart.

    With three samples of each, two sets of the same thing lie apart by chance once in ten times.
    """
    before = kinds.from_json(old.samples["starts"])
    after = kinds.from_json(new.samples["starts"])
    rows = []
    few = []
    for kind in kinds.KINDS:
        if kind not in before and kind not in after:
            continue
        ours = [kinds.counted(each.get(kind, ())) for each in (before, after)]
        samples = [hook.by_line(runs) for runs in ours]
        for name in hook.order(ours):
            values = [each.get(name, ()) for each in samples]
            if (
                name[1]
                and max((measure.median(each) for each in values if each), default=0) < _LEAST
            ):
                continue
            title = f"{kind}: " + (f"  {name[0]}: {name[1]}" if name[1] else name[0])
            rows.append(_row(title, *values))
        rows.append(_row(f"{kind}: total", *([run.seconds for run in runs] for runs in ours)))
        if min(map(len, ours)) < _ENOUGH:
            few.append(f"{kind}: {len(ours[0])} and {len(ours[1])}")
    marked = [row[-1] for row in rows]
    notes = [f"different: {each}" for each in differences(old, new)]
    notes.append(
        f"{marked.count('faster')} faster and {marked.count('slower')} slower, where no new sample "
        "is within the range of the old ones; the others may be noise"
    )
    if few:
        notes.append(
            f"no spread is known of fewer than {_ENOUGH} samples, so nothing is marked of "
            + ", ".join(few)
        )
    return Table(
        "compared", ["start and step", "old s", "new s", "difference", "ratio", ""], rows, notes
    )


def _row(title: str, old: Sequence[float], new: Sequence[float]) -> list[str]:
    if not old or not new:
        found = "new" if new else "gone" if old else ""
        cells = [hook.seconds(measure.median(each)) if each else "-" for each in (old, new)]
        return [title, *cells, "", "", found]
    first, second = measure.median(old), measure.median(new)
    ratio = f"{second / first:.2f}" if first >= _LEAST else ""
    return [
        title,
        hook.seconds(first),
        hook.seconds(second),
        f"{second - first:+.2f}",
        ratio,
        mark(old, new),
    ]


def mark(old: Sequence[float], new: Sequence[float]) -> str:
    """``faster`` or ``slower`` where the two ranges lie apart; empty where it may be noise."""
    if min(len(old), len(new)) < _ENOUGH:
        return ""
    if abs(measure.median(new) - measure.median(old)) < _LEAST:
        return ""
    if max(new) < min(old):
        return "faster"
    return "slower" if min(new) > max(old) else ""


def differences(old: Results, new: Results) -> list[str]:
    """Why the two may not be comparable, a sentence each."""
    pairs: list[tuple[str, object, object]] = [
        *_of("", old.machine, new.machine),
        *_of("", _some(old.subject, _SUBJECT), _some(new.subject, _SUBJECT)),
        *_of("", old.samples.get("configuration", {}), new.samples.get("configuration", {})),
    ]
    pairs += [(name, old.samples.get(name), new.samples.get(name)) for name in ("module", "tree")]
    return [
        f"{name}: {one or 'none'}, now {two or 'none'}" for name, one, two in pairs if one != two
    ]


def _some(values: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    return {name: values[name] for name in names if name in values}


def _of(
    title: str, old: Mapping[str, object], new: Mapping[str, object]
) -> list[tuple[str, object, object]]:
    return [(title + name, old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]
