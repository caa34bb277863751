"""
The whole start of one configuration, cold, warm, repeated, and with one requirement changed.

::

    python -m benchmarks.cold_warm [--config cachepod.toml] [--store URL] [--import torch]
    python -m benchmarks.cold_warm --from NEW.json --compare OLD.json --picture starts.svg

cold            an empty store: the environment is installed from the index, and published
warm            a new disk: the environment comes from the store, and there is nothing to publish
repeated        the hook once more in the container of the warm start
partial         a new disk, one requirement changed: the rest comes from the store, the changed one
                is installed, and what is new is published
after partial   a new disk, the changed requirement: a hit in what the partial start published

Each is the hook, then an import in the environment. The store is one of the benchmark's own below
the one that is named (or that cachepod would take by itself), and is removed at the end; nothing
else there is touched. Neither root nor a loop device is needed; what they would add is said.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import measure, pictures
from benchmarks.cold_warm import against
from benchmarks.cold_warm import starts as kinds
from benchmarks.cold_warm.picture import draw
from benchmarks.results import Results, Table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_warm",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, help="the configuration file (default: as cachepod finds it)")
    add("--store", metavar="URL", help="directory or s3://... (default: the configuration's)")
    add("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    add("--import", dest="module", help="module to import (default: the first that is checked)")
    add("--rounds", type=int, default=1, help="cold starts (default: 1)")
    add("--warm", type=int, default=3, help="warm and repeated starts a round (default: 3)")
    add("--partial", type=int, default=3, help="partial starts a round (default: 3)")
    add("--change", default="", metavar="NAME==VERSION", help="what is changed or added")
    add("--size", type=float, metavar="GB", help="what the environment takes (default: a guess)")
    add("--plain", action="store_true", help="directories, no loop devices")
    add("--keep", action="store_true", help="leave what was published in the store")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--picture", type=Path, metavar="FILE", help="draw the starts: .svg or .png")
    add("--compare", type=Path, metavar="OLD.json", help="show what changed since then")
    add("--from", dest="old", type=Path, metavar="NEW.json", help="measure nothing, show that one")
    return parser.parse_args()


def main() -> None:
    """Measure, or read; print, draw and compare."""
    options = _options()
    old = against.read(options.compare) if options.compare else None
    pictures.check(options.picture)
    if options.json and not options.json.absolute().parent.is_dir():
        raise SystemExit(f"{options.json}: there is no such directory")
    if options.old:
        found, stopped = against.read(options.old), ""
        measure.print_machine(found.machine)
    else:
        found, stopped = _measured(options)
    starts = kinds.from_json(found.samples["starts"])
    if not starts:
        raise SystemExit(stopped or "nothing was measured")
    module = str(found.samples["module"])
    found = replace(found, tables=_tables(found))
    if old is not None:
        found = replace(found, tables=(*found.tables, against.compare(old, found)))
    found.write(options.json)
    print(*found.tables, sep="\n\n", end="\n\n")
    if options.picture and any(kinds.counted(several) for several in starts.values()):
        pictures.save(draw(found), options.picture)
    print(kinds.verdict(starts, module), flush=True)
    if stopped:
        raise SystemExit(stopped)
    if any(start.problems for several in starts.values() for start in several):
        raise SystemExit(
            "not every start was what it should be: the notes under the first table say more"
        )


def _tables(found: Results) -> tuple[Table, ...]:
    starts = kinds.from_json(found.samples["starts"])
    phases, whole = kinds.by_phase(starts), kinds.by_kind(starts)
    notes = [
        "MB/s: plain bytes of the environment over the whole of the restore",
        "read, stored: compressed bytes from and to the store",
        "peak: the hook's largest process, which is often the import of the check; all: the "
        "processes of one command together",
    ]
    stored = [
        f"{measure.median([start.stored for start in several]) / 1e6:,.1f} MB after a {kind} start"
        for kind in (kinds.COLD, kinds.PARTIAL)
        if (
            several := [
                start for start in starts.get(kind, ()) if start.stored and not start.problems
            ]
        )
    ]
    if stored:
        notes.append(f"the store holds {', '.join(stored)}")
    again = kinds.nothing_to_publish(starts)
    version = found.samples.get("version", [])
    if again is not None:
        bare = f", where cachepod --version takes {measure.median(version):.3f} s"
        notes.append(f"a publish with nothing to do takes {again:.3f} s{bare if version else ''}")
    return phases, replace(whole, notes=notes)


def _measured(options: argparse.Namespace) -> tuple[Results, str]:
    """
    The starts, and why they ended early; what was measured until then is not lost.

    Raises:
        SystemExit: Nothing can be measured, in one sentence.
    """
    try:
        from benchmarks.cold_warm.measuring import measured
        from benchmarks.cold_warm.plan import Plan
        from cachepod.errors import CachepodError
    except ImportError as error:
        raise SystemExit(
            f"{error}: run this by the interpreter that cachepod is installed for"
        ) from None
    if not (options.scratch.is_dir() and os.access(options.scratch, os.W_OK | os.X_OK)):
        raise SystemExit(f"--scratch {options.scratch}: there is no directory to write to")
    with tempfile.TemporaryDirectory(prefix="cold-warm-", dir=options.scratch.absolute()) as folder:
        try:
            plan = Plan.of(options, Path(folder), os.environ)
            measure.print_machine(measure.machine())
            return measured(plan, options)
        except CachepodError as error:
            text = f"{error.message}; {error.hint}" if error.hint else error.message
            raise SystemExit(text) from None
