"""
cachepod beside the tools that one would otherwise use, on one tree, with tables of medians.

::

    python -m benchmarks.peers --tree DIR [--store DIR] [--scratch DIR] [--rounds N] [--json FILE]

Restoring: ``cachepod restore``, ``zstd -dc | tar -x``, ``unsquashfs``, ``cp -a`` and uv from its
warm cache, each onto new ground with the page cache dropped, and each followed by an import in what
it restored. Publishing: ``cachepod publish`` first, and again after one distribution changed, and
``tar | zstd``. The candidates take turns, so that a machine that gets slower slows all of them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import measure
from benchmarks.candidates import (
    KEY,
    Archives,
    Candidate,
    change_distribution,
    import_command,
    publishers,
    restorers,
)
from benchmarks.ground import Ground, drop_caches, open_ground
from benchmarks.measure import Cost


@dataclass
class Row:
    """The runs of one candidate, and the imports that followed them."""

    candidate: Candidate
    runs: list[Cost] = field(default_factory=list)
    imports: list[Cost] = field(default_factory=list)
    failed: str = ""

    @property
    def blank(self) -> str:
        """Why there are no numbers; empty if there are."""
        return self.candidate.missing or self.failed

    @property
    def seconds(self) -> list[float]:
        """Wall time of each run."""
        return [cost.seconds for cost in self.runs]

    @property
    def totals(self) -> list[float]:
        """Wall time of each run with its import."""
        return [a.seconds + b.seconds for a, b in zip(self.runs, self.imports, strict=True)]


def compare(
    candidates: Sequence[Candidate],
    ground: Ground,
    rounds: int,
    *,
    importing: Callable[[Path], list[str]] | None = None,
    keep_cache: bool = False,
    watch: bool = False,
) -> list[Row]:
    """
    Run every candidate once a round, each round in another order.

    Args:
        importing: From the restored tree to a command that is measured after each run.

        keep_cache: Leave the page cache as it is.

        watch: Look at the memory of all processes of a candidate together.
    """
    rows = [Row(candidate) for candidate in candidates]
    for number in range(rounds):
        for row in measure.rotated(rows, number):
            if row.blank:
                continue
            with ground.fresh() as place:
                row.candidate.before(place)
                if not keep_cache:
                    drop_caches()
                said = f"{number + 1}/{rounds}  {row.candidate.name}: "
                try:
                    cost = measure.run(
                        row.candidate.command(place), environ=row.candidate.environ, watch=watch
                    )
                    after = [measure.run(importing(place / "tree"))] if importing else []
                except measure.CommandFailed as error:
                    row.failed = "failed"
                    print(f"{said}{error}", file=sys.stderr)
                    continue
                finally:
                    row.candidate.after(place)
                row.runs.append(cost)
                row.imports.extend(after)
                times = [f"{each.seconds:.2f} s" for each in (cost, *after)]
                print(said + ", import ".join(times), file=sys.stderr)
    return rows


def _restore_table(rows: Sequence[Row], module: str) -> str:
    headings = ["restore", "median s", "range", "ratio", "CPU s", "/floor", "peak MB"]
    headings += [f"import {module}", "both s", "ratio"] if module else []
    first = _reference(rows)
    lines = []
    for row in rows:
        if row.blank:
            empty = [""] * (len(headings) - 2)
            lines.append([row.candidate.name, row.blank, *empty])
            continue
        line = _costs(row, first)
        if module:
            line.append(f"{measure.median([cost.seconds for cost in row.imports]):.2f}")
            line.append(f"{measure.median(row.totals):.2f}")
            line.append(f"{measure.median(row.totals) / measure.median(first.totals):.2f}")
        lines.append(line)
    return measure.table(headings, lines)


def _reference(rows: Sequence[Row]) -> Row:
    """The row that the others are compared with: the first that ran."""
    return next((row for row in rows if row.runs), rows[0])


def _costs(row: Row, first: Row) -> list[str]:
    seconds = measure.median(row.seconds)
    cpu = measure.median([cost.cpu for cost in row.runs])
    return [
        row.candidate.name,
        f"{seconds:.2f}",
        measure.spread(row.seconds),
        f"{seconds / measure.median(first.seconds):.2f}",
        f"{cpu:.2f}",
        f"{seconds / (cpu / measure.cores()):.2f}",
        f"{max(cost.peak for cost in row.runs) / 1e6:.0f}",
    ]


def _publish_table(rows: Sequence[Row]) -> str:
    headings = ["publish", "median s", "range", "ratio", "CPU s", "/floor", "peak MB"]
    headings += ["read MB", "stored MB"]
    lines = []
    for row in rows:
        if row.blank:
            empty = [""] * (len(headings) - 2)
            lines.append([row.candidate.name, row.blank, *empty])
            continue
        report = row.runs[-1].report
        moved = [
            f"{report[name] / 1e6:.1f}" if name in report else "" for name in ("read", "stored_new")
        ]
        lines.append([*_costs(row, _reference(rows)), *moved])
    return measure.table(headings, lines)


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [
        {
            "name": row.candidate.name,
            "missing": row.blank,
            "seconds": row.seconds,
            "cpu": [cost.cpu for cost in row.runs],
            "peak": [cost.peak for cost in row.runs],
            "resident": [cost.resident for cost in row.runs],
            "phases": [cost.phases for cost in row.runs],
            "import": [cost.seconds for cost in row.imports],
        }
        for row in rows
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("--tree", type=Path, required=True, help="what is published and restored")
    parser.add_argument("--store", type=Path, help="cachepod's store (default: in the archives)")
    parser.add_argument(
        "--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure"
    )
    parser.add_argument(
        "--archives", type=Path, help="keep the archives there, or take them from there"
    )
    parser.add_argument("--rounds", type=int, default=3, help="counted runs of each (default: 3)")
    parser.add_argument("--level", type=int, default=3, help="zstd level (default: 3)")
    parser.add_argument("--side", choices=["restore", "publish", "both"], default="both")
    parser.add_argument("--only", action="append", help="candidates whose name holds this text")
    parser.add_argument("--import", dest="module", default="", help="module to import afterwards")
    parser.add_argument("--python", type=Path, help="interpreter, if the tree has none of its own")
    parser.add_argument("--uv-cache", type=Path, help="a cache of uv that has the distributions")
    parser.add_argument("--change", default="", help="distribution to change before a publish")
    parser.add_argument("--keep-cache", action="store_true", help="leave the page cache as it is")
    parser.add_argument("--plain", action="store_true", help="directories, no loop devices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def _selected(found: list[Candidate], only: Sequence[str] | None) -> list[Candidate]:
    return [each for each in found if not only or any(text in each.name for text in only)]


def main() -> None:
    """Prepare, measure, print."""
    options = _options()
    options.tree = options.tree.resolve()
    facts = measure.machine()
    measure.print_machine(facts)
    files, size = measure.tree_size(options.tree)
    document: dict[str, object] = {"machine": facts, "files": files, "size": size}
    with tempfile.TemporaryDirectory(prefix="peers-", dir=options.scratch) as temporary:
        folder = options.archives or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        archives = Archives(options.tree, folder, options.store or folder / "store", options.level)
        with open_ground(
            options.scratch, int(size * 1.2), inodes=2 * files + 10_000, plain=options.plain
        ) as ground:
            cache = "as it was" if options.keep_cache or not drop_caches() else "dropped"
            print(f"tree: {files} files, {size / 1e9:.2f} GB; page cache: {cache}")
            print(f"ground: {ground.kind}; {options.rounds} rounds, interleaved\n")
            if options.side != "publish":
                rows = _measure_restores(archives, ground, options)
                document["restore"] = as_json(rows)
                print(_restore_table(rows, options.module), end="\n\n")
            if options.side != "restore":
                rows = _measure_publishes(archives, ground, options, Path(temporary))
                document["publish"] = as_json(rows)
                print(_publish_table(rows))
    measure.write_json(options.json, document)


def _measure_restores(archives: Archives, ground: Ground, options: argparse.Namespace) -> list[Row]:
    chosen = _selected(restorers(archives, options), options.only)
    makers = {
        "cachepod": archives.make_store,
        "zstd": archives.make_tar,
        "unsquashfs": archives.make_squash,
    }
    for each in chosen:
        maker = makers.get(each.name.split()[0])
        if maker and not each.missing:
            maker()
    return compare(
        chosen,
        ground,
        options.rounds,
        importing=(
            (lambda tree: import_command(tree, options.module, options.python))
            if options.module
            else None
        ),
        keep_cache=options.keep_cache,
    )


def _measure_publishes(
    archives: Archives, ground: Ground, options: argparse.Namespace, temporary: Path
) -> list[Row]:
    archives.make_store()
    changed, kept = temporary / "changed", temporary / "state"
    restore = [measure.cachepod(), "restore", "--store", str(archives.store), "--key", KEY]
    measure.run([*restore, "--tree", f"bench={changed}"])
    name, size = change_distribution(changed, options.change)
    if (changed / ".cachepod").is_dir():
        shutil.copytree(changed / ".cachepod", kept, symlinks=True)
    title = f"{name} ({size / 1e6:.0f} MB)"
    chosen = _selected(publishers(archives, changed, kept, title), options.only)
    return compare(chosen, ground, options.rounds, keep_cache=options.keep_cache)


if __name__ == "__main__":
    measure.script(main)
