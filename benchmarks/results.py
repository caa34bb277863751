"""
What a benchmark found, as a file that the documentation is made of.

A result says with what it was measured, when, by which command, and on which tree or store; it
holds every sample, and the tables as they were printed. :mod:`benchmarks.report` puts the tables
into the documentation and draws the pictures, so that no figure in there was typed by hand.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import measure


@dataclass(frozen=True)
class Table:
    """
    One table of a result.

    Args:
        name: By which the documentation asks for it; unique in its result.

        headings: Of the columns; the first column is text, the others are numbers.

        rows: Cells as they are shown.

        notes: Sentences that a reader of the table needs, such as why a row is empty.
    """

    name: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [measure.table(self.headings, self.rows)]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class Results:
    """
    Everything that one run of a benchmark found.

    Args:
        benchmark: The module that made it, such as ``benchmarks.peers``.

        date: Of its beginning, UTC, ISO 8601.

        command: What was typed, without paths of this machine.

        machine: Hardware, kernel and versions, by :func:`benchmarks.measure.machine`.

        subject: What was measured: files and bytes of the tree, rounds, ground, cache.

        tables: As printed.

        samples: Every single value, for pictures and comparisons; JSON.
    """

    benchmark: str
    date: str
    command: str
    machine: Mapping[str, str]
    subject: Mapping[str, Any]
    tables: Sequence[Table] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """
        The table called *name*.

        Raises:
            KeyError: There is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"{self.benchmark} has no table {name!r}: {[t.name for t in self.tables]}")

    def write(self, path: Path | None) -> None:
        """Write it, if a *path* was given; whole or not at all."""
        if path is None:
            return
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text + "\n", encoding="utf-8")
        part.rename(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        """
        What :meth:`write` wrote.

        Raises:
            SystemExit: It is no such file; in words.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            document["tables"] = tuple(Table(**table) for table in document["tables"])
            return cls(**document)
        except OSError as error:
            raise SystemExit(f"{path} cannot be read: {error.strerror}") from None
        except KeyError as error:
            raise SystemExit(f"{path} is no result of a benchmark: it has no {error}") from None
        except (ValueError, TypeError) as error:
            raise SystemExit(f"{path} is no result of a benchmark: {error}") from None


def begin(benchmark: str, machine: Mapping[str, str], subject: Mapping[str, Any]) -> Results:
    """
    A result without tables yet; :func:`dataclasses.replace` adds them.

    Args:
        benchmark: The module, such as ``benchmarks.peers``.

        machine: With what is measured.

        subject: What is measured.
    """
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Results(benchmark, date, _command(benchmark, sys.argv[1:]), machine, subject)


#: Options that say where something is kept, not what is measured.
_HOUSEKEEPING = {"--json", "--picture", "--scratch", "--programs", "--compare"}


def _command(benchmark: str, arguments: Sequence[str]) -> str:
    """As a reader would type it, without the paths of this machine."""
    words: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            if option not in _HOUSEKEEPING:
                words.append(option + equals + _generic(option, value))
        elif option not in _HOUSEKEEPING:
            words.append(_generic(option, argument))
    return shlex.join(["python", "-m", benchmark, *words])


def _generic(option: str, value: str) -> str:
    if option == "--config":
        return Path(value).name
    return "DIR" if value.startswith(("/", "./", "../", "~")) else value
