"""What the curves over containers, cores and distance have in common: a tree, and keeping."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure, pictures, results
from benchmarks.ground import Ground, open_ground
from benchmarks.results import Results, Table
from benchmarks.stores import make_sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Where ``python -m benchmarks...`` works.
ROOT = Path(__file__).resolve().parents[2]

Samples = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """
    What is published and restored.

    Args:
        tree: Where it lies.

        folder: A directory for everything else, removed at the end.

        files: Regular files in the tree.

        size: Their bytes.

        text: The tree in words.
    """

    tree: Path
    folder: Path
    files: int
    size: int
    text: str


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options that say where a curve is measured and kept."""
    add = parser.add_argument
    add("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    add("--json", type=Path, metavar="FILE", help="write tables and samples there, as they come")
    add("--picture", type=Path, metavar="FILE", help="draw the curves there: .svg or .png")


def add_options(parser: argparse.ArgumentParser, *, size: float, rounds: int) -> None:
    """The options that every benchmark of one tree has."""
    add = parser.add_argument
    add("--tree", type=Path, metavar="DIR", help="what is measured (default: one that is made)")
    add(
        "--size",
        type=float,
        default=size,
        metavar="GB",
        help=f"of the tree that is made (default: {size:g})",
    )
    add("--rounds", type=int, default=rounds, help=f"counted runs of each (default: {rounds})")
    add_places(parser)


@contextmanager
def open_subject(
    options: argparse.Namespace,
    make: Callable[[Path, int], None] = make_sample,
    said: str = "that do not compress",
) -> Iterator[Subject]:
    """
    The tree that was asked for, or one that is made.

    Args:
        make: Makes a tree of so many bytes.

        said: What its bytes are.
    """
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.scratch) as name:
        folder = Path(name).resolve()
        if options.tree is not None:
            tree = options.tree.resolve()
            files, size = measure.tree_size(tree)
            text = f"{size / 1e9:.2f} GB in {files:,} files"
        else:
            tree = folder / "tree"
            make(tree, int(options.size * 1e9))
            files, size = measure.tree_size(tree)
            text = f"made up, {size / 1e9:.2f} GB {said} in {files:,} files"
        yield Subject(tree, folder, files, size, text)


def open_ground_for(
    subject: Subject, options: argparse.Namespace
) -> AbstractContextManager[Ground]:
    """Ground that has room for one tree or store of *subject*, and as plain as was asked for."""
    room, inodes = int(subject.size * 1.3), 2 * subject.files + 10_000
    return open_ground(options.scratch, room, inodes=inodes, plain=options.plain)


class Keeper:
    """
    Keeps what was measured, so that an interruption loses one point at most.

    Args:
        tables: From samples to tables.

        path: Of the JSON file; None for none.
    """

    def __init__(
        self,
        begun: Results,
        tables: Callable[[Samples], Sequence[Table]],
        path: Path | None,
    ) -> None:
        self.results = begun
        self._tables = tables
        self._path = path

    def keep(self, samples: Samples) -> None:
        """*samples* are all that there are so far."""
        self.results = replace(self.results, samples=samples, tables=self._tables(samples))
        self.results.write(self._path)


@contextmanager
def keeping(
    benchmark: str,
    subject: Mapping[str, Any],
    tables: Callable[[Samples], Sequence[Table]],
    draw: Callable[[Results], Figure],
    options: argparse.Namespace,
) -> Iterator[Keeper]:
    """
    Print the machine, then, at the end or when it is cut short, what was kept, and draw it.

    Args:
        benchmark: The module.

        subject: What is measured, as :func:`benchmarks.results.begin` takes it.
    """
    facts = measure.machine()
    measure.print_machine(facts)
    for name, value in subject.items():
        print(f"{name}: {value}")
    print()
    keeper = Keeper(results.begin(benchmark, facts, subject), tables, options.json)
    try:
        yield keeper
    finally:
        for table in keeper.results.tables:
            print(f"{table.name}:\n{table}\n")
        if options.picture and keeper.results.samples:
            pictures.save(draw(keeper.results), options.picture)


def tell(text: str) -> None:
    """Say how far it is."""
    print(text, file=sys.stderr, flush=True)
