"""The kinds of start, what each must be to be counted, and the tables that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import hook, measure
from benchmarks.hook import HookRun, Step
from benchmarks.results import Table

COLD, WARM, REPEATED = "cold", "warm", "repeated"
PARTIAL, AFTER = "partial", "after partial"

#: What the restore of each must end with, and what the start is.
KINDS: Mapping[str, tuple[int, str]] = {
    COLD: (3, "an empty store: everything is installed and published"),
    WARM: (0, "a new disk: everything comes from the store"),
    REPEATED: (0, "the hook again in the container of the warm start"),
    PARTIAL: (4, "a new disk and one requirement changed: the rest comes from the store"),
    AFTER: (0, "a new disk and the changed requirement: what the partial start published"),
}

Starts = Mapping[str, Sequence["Start"]]


@dataclass(frozen=True)
class Start:
    """
    One start.

    Args:
        kind: One of :data:`KINDS`.

        run: What was run.

        stored: Bytes of packs and manifests in the store afterwards; 0 if nobody looked.
    """

    kind: str
    run: HookRun
    stored: int = 0

    @property
    def problems(self) -> list[str]:
        """Why it does not count; empty if it does."""
        code, found = KINDS[self.kind][0], self.run.code
        problems = self.run.problems
        if found != code and not any(text.startswith("restore ") for text in problems):
            problems = [
                f"restore ended with exit code {found}, not with {code}; it is no such start",
                *problems,
            ]
        return problems

    def as_json(self) -> dict[str, Any]:
        """For a file of results."""
        return {"stored": self.stored, "steps": [step.as_json() for step in self.run.steps]}


def as_json(starts: Starts) -> dict[str, Any]:
    """All of them, for the samples of a result."""
    return {kind: [start.as_json() for start in several] for kind, several in starts.items()}


def from_json(samples: Mapping[str, Any]) -> dict[str, list[Start]]:
    """
    What :func:`as_json` made.

    Raises:
        ValueError: It made no such document.
    """
    try:
        return {
            kind: [
                Start(
                    kind,
                    HookRun(tuple(Step.from_json(step) for step in each["steps"])),
                    each["stored"],
                )
                for each in samples[kind]
            ]
            for kind in KINDS
            if samples.get(kind)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it holds no starts ({error})") from None


def counted(starts: Sequence[Start]) -> list[HookRun]:
    """The runs of those that were what they were meant to be."""
    return [start.run for start in starts if not start.problems]


def by_phase(starts: Starts) -> Table:
    """Medians: a row for each step and phase, a column for each kind of start."""
    shown = {kind: _shown(several) for kind, several in starts.items()}
    lines = hook.order(shown.values())
    medians = {kind: hook.by_line(runs) for kind, runs in shown.items()}
    failures = {kind: _failed_steps(runs) for kind, runs in shown.items()}
    rows = [
        [
            f"  {phase}" if phase else step,
            *(
                hook.seconds(measure.median(medians[kind][step, phase]))
                if (step, phase) in medians[kind]
                else (failures[kind].get(step, "-") if not phase else "-")
                for kind in starts
            ),
        ]
        for step, phase in lines
    ]
    whole = {kind: [run.seconds for run in counted(several)] for kind, several in starts.items()}
    totals = [hook.seconds(measure.median(each)) if each else "failed" for each in whole.values()]
    ranges = [measure.spread(each) if len(each) > 1 else "-" for each in whole.values()]
    numbers = [f"{len(each)}" for each in whole.values()]
    rows += [["total", *totals], ["  range", *ranges], ["  starts", *numbers]]
    return Table("phases", ["seconds", *starts], rows, _notes(starts))


def _shown(starts: Sequence[Start]) -> list[HookRun]:
    """What the medians are made of: whole starts, or what went well of the others."""
    return counted(starts) or [start.run for start in starts]


def _failed_steps(runs: Sequence[HookRun]) -> dict[str, str]:
    return {
        step.name: f"exit {step.cost.code}" for run in runs for step in run.steps if step.problem
    }


def _notes(starts: Starts) -> list[str]:
    notes: dict[str, int] = {}
    for kind, several in starts.items():
        for start in several:
            for problem in start.problems:
                note = f"{kind}: {problem}"
                notes[note] = notes.get(note, 0) + 1
    return [note + (f" ({number} times)" if number > 1 else "") for note, number in notes.items()]


def by_kind(starts: Starts) -> Table:
    """A row for each kind: the whole start, what was moved, and the memory that it took."""
    headings = ["start", "hook s", "MB/s", "read MB", "stored MB", "peak MB", "all MB"]
    rows = []
    for kind, several in starts.items():
        runs = counted(several)
        if not runs:
            rows.append([kind, "failed", *[""] * (len(headings) - 2)])
            continue
        rows.append(
            [
                kind,
                hook.seconds(measure.median([run.hook for run in runs])),
                _rate(runs),
                _megabytes(runs, "restore", "read"),
                _megabytes(runs, "publish", "stored_new"),
                *(f"{max(sizes) / 1e6:.0f}" for sizes in zip(*_sizes(runs), strict=True)),
            ]
        )
    return Table("starts", headings, rows)


def _sizes(runs: Sequence[HookRun]) -> list[tuple[int, int]]:
    """Peak and resident bytes of each command of the hook."""
    return [(step.cost.peak, step.cost.resident) for run in runs for step in run.commands]


def _megabytes(runs: Sequence[HookRun], step: str, name: str) -> str:
    """The median of a number of bytes that *step* reported."""
    found = [report[name] for run in runs if name in (report := run.report(step))]
    if not found:
        return ""
    value = measure.median(found) / 1e6
    return f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def _rate(runs: Sequence[HookRun]) -> str:
    """Plain bytes a second of the whole restore, where it wrote some."""
    rates = [
        report["size"] / run.steps[0].cost.seconds / 1e6
        for run in runs
        if (report := run.report("restore")).get("written")
    ]
    return f"{measure.median(rates):,.0f}" if rates else ""


def tree(starts: Starts) -> tuple[int, int]:
    """Files and bytes of the environment; 0 where no start says."""
    for several in starts.values():
        for run in counted(several):
            for step in ("install", "restore"):
                report = run.report(step)
                if report.get("size"):
                    return int(report.get("files", 0)), int(report["size"])
    return 0, 0


def nothing_to_publish(starts: Starts) -> float | None:
    """Seconds of the publish that every start runs, where the store has everything."""
    steps = [
        step.cost.seconds
        for kind in (WARM, REPEATED, AFTER)
        for run in counted(starts.get(kind, ()))
        for step in run.steps
        if step.name == "publish"
    ]
    return measure.median(steps) if steps else None


def verdict(starts: Starts, module: str) -> str:
    """The sentence that one would quote."""
    totals = {
        kind: measure.median([run.seconds for run in counted(several)])
        for kind, several in starts.items()
        if counted(several)
    }
    done = f"`import {module}` is done" if module else "the hook is done"
    if WARM not in totals:
        return f"{done}: no warm start went well, so there is nothing to compare"
    sentence = f"{done} {totals[WARM]:.1f} s after a warm start begins"
    if COLD in totals:
        times = totals[COLD] / totals[WARM]
        sentence += f", and {totals[COLD]:.1f} s after a cold one: {times:.1f} times faster"
    more = {
        REPEATED: "in a container that runs already",
        PARTIAL: "with one requirement changed",
    }
    rest = [f"{totals[kind]:.1f} s {words}" for kind, words in more.items() if kind in totals]
    return sentence + "".join(f"; {each}" for each in rest)
