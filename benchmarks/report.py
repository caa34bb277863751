"""
Puts results into the documentation: tables, what they were measured with, and pictures.

::

    python -m benchmarks.report [--check] [FILE.md ...]

The results lie in ``docs/results``, one file for each run, by the name that the documentation
calls it. A page asks for a part of one with a comment, and everything up to the end is replaced::

    <!-- table: peers-moosefs restore -->        the table ``restore`` of ``peers-moosefs.json``
    <!-- end -->

    <!-- table: peers-moosefs restore: both s, ratio -->     only these columns, and no notes
    <!-- end -->

    <!-- measured: peers-moosefs -->             command, date, machine and versions
    <!-- end -->

Pictures are drawn by the benchmark that made the result, to ``docs/pictures/NAME.svg``, if a page
shows them. ``--check`` changes nothing and fails if a page is not what its results say.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measure, pictures
from benchmarks.results import Results, Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PICTURES = ROOT / "docs" / "pictures"
PAGES = (ROOT / "README.md", ROOT / "docs" / "BENCHMARKS.md")

_PART = re.compile(
    r"(?P<begin><!-- (?P<what>table|measured): (?P<name>[\w-]+)(?: (?P<of>[^>]+?))? -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.DOTALL,
)
_OURS = re.compile(r"\A(\*\*)?cachepod")


def render(page: str, results: Path = RESULTS) -> str:
    """
    The text of *page* with every part as the files in *results* have it.

    Raises:
        SystemExit: A result or a table is missing; in words.
    """

    def part(match: re.Match[str]) -> str:
        found = Results.read(results / f"{match['name']}.json")
        if match["what"] == "measured":
            body = measured(found)
        else:
            name, _, columns = (match["of"] or "").partition(": ")
            try:
                table = found.table(name)
                body = markdown(narrow(table, columns.split(", ")) if columns else table)
            except KeyError as error:
                raise SystemExit(str(error.args[0])) from None
        return f"{match['begin']}\n{body}\n\n{match['end']}"

    return _PART.sub(part, page)


def narrow(table: Table, columns: Sequence[str]) -> Table:
    """
    The first column of *table* and those called *columns*, without its notes.

    Of several columns with one name it is the last, which is that of the sum.

    Raises:
        KeyError: There is no such column.
    """
    places = [0]
    for name in columns:
        found = [place for place, heading in enumerate(table.headings) if heading == name]
        if not found:
            raise KeyError(f"{table.name} has no column {name!r}: {list(table.headings)}")
        places.append(found[-1])
    rows = [[row[place] for place in places] for row in table.rows]
    return Table(table.name, [table.headings[place] for place in places], rows)


def markdown(table: Table) -> str:
    """A table for a page: rows of cachepod stand out, notes follow."""
    rows = [
        [f"**{row[0]}**" if _OURS.match(row[0]) else row[0], *row[1:]] if row else row
        for row in table.rows
    ]
    text = measure.table(table.headings, rows)
    if table.notes:
        text += "\n\n" + "\n".join(f"- {note}" for note in table.notes)
    return text


def measured(found: Results) -> str:
    """By which command, when, and with what."""
    subject = "; ".join(f"{name}: {value}" for name, value in found.subject.items())
    machine = dict(found.machine)
    hardware = [machine.pop(name) for name in ("cpu", "memory") if name in machine]
    cores = machine.pop("cores", "")
    versions = ", ".join(
        value if value.lower().startswith(name.lower()) else f"{name} {value}"
        for name, value in machine.items()
    )
    return (
        f"```bash\n{found.command}\n```\n\n"
        f"{found.date[:10]}; {cores} cores ({', '.join(hardware)}); {subject}. "
        f"Versions: {versions}."
    )


def draw(name: str, results: Path = RESULTS, pictures_: Path = PICTURES) -> Path:
    """Draw the picture of the result *name*, by the benchmark that made it; where it lies."""
    found = Results.read(results / f"{name}.json")
    figure = importlib.import_module(found.benchmark).draw(found)
    path = pictures_ / f"{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(figure, path)
    return path


def shown(page: str) -> Sequence[str]:
    """Names of the pictures that the text of a page shows."""
    return re.findall(r"pictures/([\w-]+)\.svg", page)


def main() -> None:
    """Rewrite the pages, or compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("pages", nargs="*", type=Path, default=PAGES, metavar="FILE.md")
    parser.add_argument("--check", action="store_true", help="change nothing, fail if it differs")
    options = parser.parse_args()
    stale = []
    for path in options.pages:
        text = path.read_text(encoding="utf-8")
        new = render(text)
        if options.check:
            stale += [str(path)] if new != text else []
            continue
        path.write_text(new, encoding="utf-8")
        for name in shown(new):
            print(f"{path.name}: {draw(name).relative_to(ROOT)}", file=sys.stderr)
    if stale:
        raise SystemExit(f"not what the results say: {', '.join(stale)}; run benchmarks.report")


if __name__ == "__main__":
    measure.script(main)
