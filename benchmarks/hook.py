"""The start-up hook, run as a shell would and measured; what cold_warm and the demo share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import measure
from benchmarks.measure import CommandFailed, Cost

T = TypeVar("T")

HOOK = "cachepod restore || cachepod install && cachepod publish"

# Whatever a restore ends with, the hook goes on; these are no surprise.
_RESTORE_CODES = (0, 3, 4, 5, 6, 7)

#: What is kept of a command's report: no path and no name of the machine is in it.
_FACTS = (
    *("outcome", "files", "size", "read", "written", "stored_new", "reused", "packages"),
    *("phases", "waited"),
)


@dataclass(frozen=True)
class Step:
    """
    One command of the hook, or one that was run after it.

    Args:
        name: ``restore``, or that of the row.

        cost: What it took.

        problem: Why it failed, in a sentence; empty if it did not.
    """

    name: str
    cost: Cost
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a file of results."""
        report = self.cost.report
        return {
            "step": self.name,
            "seconds": self.cost.seconds,
            "cpu": self.cost.cpu,
            "peak": self.cost.peak,
            "resident": self.cost.resident,
            "code": self.cost.code,
            "problem": self.problem,
            "report": {name: report[name] for name in _FACTS if name in report},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Step:
        """
        What :meth:`as_json` made.

        Raises:
            KeyError, TypeError: It made no such document.
        """
        cost = Cost(
            seconds=document["seconds"],
            cpu=document["cpu"],
            peak=document["peak"],
            code=document["code"],
            output=json.dumps(document["report"]),
            resident=document["resident"],
        )
        return cls(document["step"], cost, document["problem"])


@dataclass(frozen=True)
class HookRun:
    """One start of a container: what the hook ran, and what was run in the environment after."""

    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """From the first command to the end of the last."""
        return sum(step.cost.seconds for step in self.steps)

    @property
    def hook(self) -> float:
        """Seconds of the hook alone."""
        return sum(step.cost.seconds for step in self.commands)

    @property
    def commands(self) -> tuple[Step, ...]:
        """The steps of the hook alone."""
        return tuple(step for step in self.steps if step.name in _COMMANDS)

    @property
    def code(self) -> int:
        """What the restore ended with: 0 is a hit, 3 a miss, 4 a relative."""
        return self.steps[0].cost.code

    @property
    def restored(self) -> bool:
        """Whether the environment came from the store."""
        return self.code == 0

    @property
    def problems(self) -> list[str]:
        """Of every step that failed: its name, exit code, and why."""
        return [
            f"{step.name} ended with exit code {step.cost.code}: {step.problem}"
            for step in self.steps
            if step.problem
        ]

    def report(self, name: str) -> Mapping[str, Any]:
        """What the command *name* said about itself; empty if it was not run."""
        return next((step.cost.report for step in self.steps if step.name == name), {})

    @property
    def names(self) -> list[tuple[str, str]]:
        """Each step, as (name, ""), and its phases, as (name, phase); failed ones, too."""
        return [
            (step.name, phase)
            for step in self.steps
            for phase in ("", *({} if step.problem else step.cost.phases))
        ]

    def lines(self) -> Iterator[tuple[tuple[str, str], float]]:
        """Seconds of all that went well, by the same names."""
        for step in self.steps:
            if step.problem:
                continue
            yield (step.name, ""), step.cost.seconds
            for phase, seconds in step.cost.phases.items():
                yield (step.name, phase), seconds


_COMMANDS = ("restore", "install", "publish")


def run_hook(
    config: Path,
    *,
    environ: Mapping[str, str] | None = None,
    arguments: Sequence[str | Path] = (),
    then: Mapping[str, Sequence[str]] | None = None,
    quiet: bool = True,
    watch: bool = False,
) -> HookRun:
    """
    Run :data:`HOOK` for the configuration file *config*, in its folder.

    A command that fails is no error here: its step says so, and the hook ends where a shell would
    end it. What is to run after it runs if there is an environment.

    Args:
        config: The configuration file; ``/dev/null`` for none, in the working directory.

        environ: Added to the environment.

        arguments: More options of each command of the hook.

        then: Commands to run in the environment afterwards, by the name of their row.

        quiet: Keep back what the commands say on standard error.

        watch: Look at the memory of all processes of a command together.
    """

    def step(name: str, command: Sequence[str | Path], codes: Sequence[int] = (0,)) -> Step:
        try:
            cost = measure.run(
                [measure.cachepod(), *command],
                environ=environ,
                cwd=config.parent if config.is_file() else None,
                codes=codes,
                quiet=quiet,
                watch=watch,
            )
        except CommandFailed as error:
            return Step(name, error.cost, _sentence(error))
        return Step(name, cost)

    def part(name: str, codes: Sequence[int] = (0,)) -> Step:
        return step(name, [name, "--json", "--config", config, *arguments], codes)

    steps = [part("restore", _RESTORE_CODES)]
    if steps[0].cost.code != 0:
        steps.append(part("install"))
    if not steps[-1].problem:
        steps.append(part("publish"))
        for name, program in (then or {}).items():
            steps.append(step(name, ["run", "--config", config, "--", *program]))
    return HookRun(tuple(steps))


def _sentence(error: CommandFailed) -> str:
    """Why a command failed, as it said itself."""
    said = error.cost.report.get("error")
    last = [line.strip() for line in error.said.splitlines() if line.strip()][-1:]
    return str(said or (last[0] if last else "it did not say why"))


def comparison(columns: Mapping[str, Sequence[HookRun]]) -> str:
    """A table of medians: a row for each step and phase, a column for each kind of start."""
    medians: dict[str, dict[tuple[str, str], float]] = {}
    for column, runs in columns.items():
        medians[column] = {name: measure.median(values) for name, values in by_line(runs).items()}
    rows = [
        [
            f"  {phase}" if phase else step,
            *(seconds(medians[column].get((step, phase))) for column in columns),
        ]
        for step, phase in order(columns.values())
    ]
    totals = [seconds(measure.median([run.seconds for run in runs])) for runs in columns.values()]
    return measure.table(["seconds", *columns], [*rows, ["total", *totals]])


def by_line(runs: Sequence[HookRun]) -> dict[tuple[str, str], list[float]]:
    """Seconds of each step and phase in all *runs*."""
    samples: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for name, value in run.lines():
            samples.setdefault(name, []).append(value)
    return samples


def order(columns: Iterable[Sequence[HookRun]]) -> list[tuple[str, str]]:
    """Every step and phase of any run, one order for all of them."""
    found: list[tuple[str, str]] = []
    for runs in columns:
        for run in runs:
            found = _merged(found, run.names)
    return found


def seconds(value: float | None) -> str:
    """As a cell of a table."""
    return "-" if value is None else f"{value:.2f}"


def _merged(first: Sequence[T], second: Sequence[T]) -> list[T]:
    """Both orders in one: what only the second has comes after what precedes it there."""
    merged = list(first)
    for position, name in enumerate(second):
        if name not in merged:
            after = merged.index(second[position - 1]) + 1 if position else 0
            merged.insert(after, name)
    return merged
