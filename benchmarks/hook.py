"""The start-up hook, run as a shell would and measured; what cold_warm and the demo share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks import measure
from benchmarks.measure import Cost

T = TypeVar("T")

HOOK = "cachepod restore || cachepod install && cachepod publish"

# Whatever a restore ends with, the hook goes on.
_RESTORE_CODES = (0, 1, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Step:
    """One command of the hook."""

    name: str
    cost: Cost


@dataclass(frozen=True)
class HookRun:
    """One start of a container: what the hook ran, and what was run in the environment after."""

    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """From the first command to the end of the last."""
        return sum(step.cost.seconds for step in self.steps)

    @property
    def restored(self) -> bool:
        """Whether the environment came from the store."""
        return self.steps[0].cost.code == 0

    def lines(self) -> Iterator[tuple[tuple[str, str], float]]:
        """Each step, as (name, ""), and its phases, as (name, phase), with their seconds."""
        for step in self.steps:
            yield (step.name, ""), step.cost.seconds
            for phase, seconds in step.cost.phases.items():
                yield (step.name, phase), seconds


def run_hook(
    config: Path,
    *,
    environ: Mapping[str, str] | None = None,
    then: Mapping[str, Sequence[str]] | None = None,
    quiet: bool = True,
) -> HookRun:
    """
    Run :data:`HOOK` for the configuration file *config*, in its folder.

    Args:
        config: The configuration file.

        environ: Added to the environment.

        then: Commands to run in the environment afterwards, by the name of their row.

        quiet: Keep back what the commands say on standard error.
    """

    def step(name: str, codes: Sequence[int] = (0,)) -> Step:
        command = [measure.cachepod(), name, "--json", "--config", str(config)]
        cost = measure.run(command, environ=environ, cwd=config.parent, codes=codes, quiet=quiet)
        return Step(name, cost)

    steps = [step("restore", _RESTORE_CODES)]
    if steps[0].cost.code != 0:
        steps.append(step("install"))
    steps.append(step("publish"))
    for name, program in (then or {}).items():
        command = [measure.cachepod(), "run", "--config", str(config), "--", *program]
        cost = measure.run(command, environ=environ, cwd=config.parent, quiet=quiet)
        steps.append(Step(name, cost))
    return HookRun(tuple(steps))


def comparison(columns: Mapping[str, Sequence[HookRun]]) -> str:
    """A table of medians: a row for each step and phase, a column for each kind of start."""
    medians: dict[str, dict[tuple[str, str], float]] = {}
    order: list[tuple[str, str]] = []
    for column, runs in columns.items():
        samples: dict[tuple[str, str], list[float]] = {}
        for run in runs:
            for name, seconds in run.lines():
                samples.setdefault(name, []).append(seconds)
        medians[column] = {name: measure.median(values) for name, values in samples.items()}
        order = _merged(order, list(samples))
    rows = [
        [
            f"  {phase}" if phase else step,
            *(_seconds(medians[column].get((step, phase))) for column in columns),
        ]
        for step, phase in order
    ]
    totals = [_seconds(measure.median([run.seconds for run in runs])) for runs in columns.values()]
    return measure.table(["seconds", *columns], [*rows, ["total", *totals]])


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _merged(first: Sequence[T], second: Sequence[T]) -> list[T]:
    """Both orders in one: what only the second has comes after what precedes it there."""
    merged = list(first)
    for position, name in enumerate(second):
        if name not in merged:
            after = merged.index(second[position - 1]) + 1 if position else 0
            merged.insert(after, name)
    return merged
