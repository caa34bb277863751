"""What a command has to say, as text for a person and as one JSON document for a program."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from cachepod.errors import EXIT_FAILURE, CachepodError, human_bytes

Document = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """
    The end of a command.

    Args:
        document: What ``--json`` prints.

        text: What stdout gets otherwise; nothing if empty.

        summary: One line for stderr of what was done, how long it took and at what rate.

        error: One line for stderr when it did not succeed.

        details: Lines for stderr that follow the error: what was looked at, what differs.

        trace: A traceback, for ``-vv``.

        exit_code: See the table in :mod:`cachepod.errors`.
    """

    document: Document = field(default_factory=dict)
    text: str = ""
    summary: str = ""
    error: str = ""
    details: tuple[str, ...] = ()
    trace: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Console:
    """How much a command says, and in which form."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0

    def show(self, outcome: Outcome) -> None:
        """Print *outcome*; a reader who has gone away is no failure of the command."""
        self._explain(outcome)
        if self.json:
            _write(sys.stdout, json.dumps(outcome.document, indent=2) + "\n")
        elif outcome.text:
            _write(sys.stdout, outcome.text.rstrip("\n") + "\n")
        self._sum_up(outcome)

    def show_stage(self, outcome: Outcome) -> None:
        """Print what concerns a person only, for a part of a command that has its own document."""
        self._explain(outcome)
        self._sum_up(outcome)

    def _explain(self, outcome: Outcome) -> None:
        if self.verbose >= 2 and outcome.trace:
            self.complain(outcome.trace.rstrip("\n"))
        if outcome.error:
            self.complain(f"cachepod: {outcome.error}")
            for line in outcome.details:
                self.complain(f"  {line}")

    def _sum_up(self, outcome: Outcome) -> None:
        if outcome.summary and not self.quiet:
            self.complain(f"cachepod: {outcome.summary}")

    def complain(self, text: str) -> None:
        """A line on stderr, which must not end a command when nobody reads it any more."""
        try:
            _write(sys.stderr, text + "\n")
        except OSError:
            pass


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # The interpreter flushes once more when it ends: that must not fail again.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def failure(error: CachepodError, trace: str = "") -> Outcome:
    """How a command ends that met *error*."""
    document: Document = {
        "error": error.message,
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
    }
    sentence = error.message
    if error.hint:
        document["hint"] = error.hint
        sentence = f"{sentence}; {error.hint}"
    output = getattr(error, "output", "")
    return Outcome(
        document=document,
        error=printable(sentence),
        details=tuple(printable(line) for line in output.splitlines()),
        trace=trace,
        exit_code=error.exit_code,
    )


def bug(error: BaseException, trace: str) -> Outcome:
    """How a command ends that met an error nobody foresaw."""
    what = printable(f"{type(error).__name__}: {error}")
    return Outcome(
        document={
            "error": what,
            "kind": "unexpected",
            "exit_code": EXIT_FAILURE,
            "hint": "run again with -vv",
        },
        error=f"unexpected {what}; run again with -vv to see where",
        trace=trace,
        exit_code=EXIT_FAILURE,
    )


def printable(text: str) -> str:
    """*text* without anything that a terminal would obey: names on a volume are not trusted."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> str:
    """
    Aligned columns, two spaces apart.

    Args:
        header: The columns' names.

        rows: One text a cell.

        right: Names of the columns to align to the right, separated by spaces.
    """
    cells = [tuple(header), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    to_right = [name in right.split() for name in header]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if last else cell.ljust(width)
            for cell, width, last in zip(row, widths, to_right, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def count(number: int, noun: str) -> str:
    """``1 file``, ``43,101 files``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """``0.24 s``, ``12.3 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(size: float, seconds: float) -> str:
    """``1.6 GB/s``."""
    return f"{human_bytes(size / max(seconds, 1e-6))}/s"


def phases(seconds: Mapping[str, float]) -> str:
    """``; plan 0.20 s, fetch 3.50 s``, without what took no time worth a word."""
    told = [f"{name} {duration(took)}" for name, took in seconds.items() if took >= 0.005]
    return f"; {', '.join(told)}" if told else ""


def moment(when: float) -> str:
    """Seconds since 1970 as ``2026-11-23 17:16``, in the reader's time zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
    except (ValueError, OverflowError, OSError):
        return "?"  # a number that no calendar has


def age(when: float, now: float | None = None) -> str:
    """How long ago *when* was: ``3 hours ago``."""
    seconds = (time.time() if now is None else now) - when
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{int(seconds // size):,} {unit}s ago"
    return "just now"


def work(files: int, size: int, seconds: float) -> str:
    """``43,101 files, 6.3 GB in 3.90 s (1.6 GB/s)``."""
    return (
        f"{count(files, 'file')}, {human_bytes(size)} in {duration(seconds)} "
        f"({rate(size, seconds)})"
    )
