"""
The floor of a restore and a publish: what this machine cannot do faster, whoever does it.

::

    python -m benchmarks.floor --store URL --key KEY [--tree DIR] [--scratch DIR] [--json FILE]

The machine is measured for a few seconds: how fast a core decodes, compresses, hashes and copies
chunks of that very snapshot, how fast files are created and bytes written on the ground, and how
fast the store and the tree are read with a cold cache. Each of the things that must be done takes
at least its amount divided by that rate, and the cores must do the sum of all computing; the floor
is the longest of these. It supposes that everything else happens at the same time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import measure, results
from benchmarks.ground import drop_caches, open_ground
from benchmarks.results import Table
from benchmarks.speeds import Sample, Speed, cores, disk, reading, reading_tree
from cachepod.model.manifest import Manifest
from cachepod.model.tables import Encoding, Kind
from cachepod.snapshot.catalog import load_manifest
from cachepod.stores.url import open_store

CORES = "cores"


@dataclass(frozen=True)
class Amounts:
    """What a snapshot holds: bytes stored and plain, plain bytes that are compressed, files."""

    stored: int
    plain: int
    compressed: int
    files: int

    @classmethod
    def of(cls, manifest: Manifest) -> Amounts:
        """Of all of its trees; a chunk that is in several files is counted once."""
        chunks = manifest.chunks
        zstd = [encoding == Encoding.ZSTD for encoding in chunks.encoding]
        return cls(
            stored=sum(chunks.stored),
            plain=sum(chunks.raw),
            compressed=sum(raw for raw, is_zstd in zip(chunks.raw, zstd, strict=True) if is_zstd),
            files=sum(kind == Kind.FILE for kind in manifest.entries.kind),
        )


@dataclass(frozen=True)
class Term:
    """One bound: *seconds* at least, for the reason *why*."""

    name: str
    seconds: float
    why: str


@dataclass(frozen=True)
class Floor:
    """Bounds of one operation; *work* are CPU seconds by kind, the sum of which is one of them."""

    operation: str
    terms: Sequence[Term]
    work: Mapping[str, float]

    @property
    def longest(self) -> Term:
        """The bound that counts."""
        return max(self.terms, key=lambda term: term.seconds)

    @property
    def seconds(self) -> float:
        """No restore, or publish, of this snapshot is faster on this machine."""
        return self.longest.seconds

    def table(self) -> Table:
        """Each bound with its share of the longest."""
        rows = [
            [
                term.name,
                f"{term.seconds:.2f}",
                f"{_share(term.seconds, self.seconds):.0%}",
                term.why,
            ]
            for term in sorted(self.terms, key=lambda term: -term.seconds)
        ]
        total = sum(self.work.values())
        rows += [
            [f"- {name}", f"{seconds:.2f}", f"{_share(seconds, total):.0%}", "CPU s; of all cores"]
            for name, seconds in self.work.items()
        ]
        return Table(
            f"{self.operation}-floor", [f"{self.operation}: at least", "s", "share", "from"], rows
        )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def restore_floor(speeds: Mapping[str, Speed], amounts: Amounts) -> Floor:
    """
    The floor of bringing all of a snapshot onto an empty disk.

    Args:
        speeds: By what was measured, as :func:`measure_machine` has it.
    """
    write = _either(speeds, "write, O_DIRECT", "write, buffered")
    work = {
        "decode": _cpu(speeds, "decode (zstd)", amounts.compressed),
        "hash": _cpu(speeds, "XXH3-128", amounts.stored),
        "read": _cpu(speeds, "read the store", amounts.stored),
        "write": min((each.cpu for each in write), default=0.0) * amounts.plain,
        "create": _cpu(speeds, "create a file of 2 kB", amounts.files),
    }
    return Floor(
        "restore",
        (
            _by_cores(work),
            _term("read", speeds["read the store"].best, amounts.stored, "GB stored"),
            _term("write", max(each.best for each in write), amounts.plain, "GB plain"),
            _term("create", speeds["create a file of 2 kB"].best, amounts.files, "files"),
        ),
        work,
    )


def publish_floor(speeds: Mapping[str, Speed], amounts: Amounts) -> Floor:
    """
    The floor of storing all of a tree in an empty store; that the store is no slower to write than
    to read is supposed.
    """
    compress = next(name for name in speeds if name.startswith("compress"))
    work = {
        "read": _cpu(speeds, "read the tree", amounts.plain),
        "hash": _cpu(speeds, "BLAKE3", amounts.plain) + _cpu(speeds, "XXH3-128", amounts.stored),
        "compress": _cpu(speeds, compress, amounts.plain),
        "write": min(each.cpu for each in _either(speeds, "write, O_DIRECT", "write, buffered"))
        * amounts.stored,
    }
    return Floor(
        "publish",
        (
            _by_cores(work),
            _term("read", speeds["read the tree"].best, amounts.plain, "GB plain"),
            _term("write", speeds["read the store"].best, amounts.stored, "GB stored"),
        ),
        work,
    )


def _either(speeds: Mapping[str, Speed], *names: str) -> list[Speed]:
    return [speed for name in names if (speed := speeds.get(name)) is not None and speed.rates]


def _cpu(speeds: Mapping[str, Speed], what: str, units: int) -> float:
    return speeds[what].cpu * units


def _by_cores(work: Mapping[str, float]) -> Term:
    total, count = sum(work.values()), measure.cores()
    return Term(CORES, total / count, f"{total:.1f} CPU s on {count} cores")


def _term(name: str, rate: float, units: int, unit: str) -> Term:
    seconds = units / rate if rate else 0.0
    amount = f"{units:,} {unit}" if unit == "files" else f"{units / 1e9:.2f} {unit}"
    at = f"{rate:,.0f}/s" if unit == "files" else f"{rate / 1e9:.2f} GB/s"
    return Term(name, seconds, f"{amount} at {at}")


def speed_table(speeds: Mapping[str, Speed]) -> Table:
    """What was measured, one row for each way."""
    rows = []
    for speed in speeds.values():
        scale, unit = (1, "files") if speed.unit == "files" else (1e9, "GB")
        for way, rate in speed.rates.items():
            per = f"{1 / (speed.cpu * scale):,.1f}" if speed.cpu else ""
            shown = f"{rate / scale:,.0f}" if scale == 1 else f"{rate / scale:.2f}"
            rows.append([speed.what, way, shown, unit, per])
        if not speed.rates:
            rows.append([speed.what, "", "", "", ""])
    return Table("speeds", ["the machine can", "in", "a second", "unit", "a CPU second"], rows)


def measure_machine(
    url: str, key: str, scratch: Path, *, tree: Path | None = None, plain: bool = False
) -> tuple[dict[str, Speed], Amounts]:
    """
    What this machine does at best, with chunks of the snapshot *key* in the store *url*.

    Args:
        scratch: A directory on the disk that is restored to.

        tree: What was published; without it reading it is not measured.

        plain: Directories even where loop devices could be had.

    Raises:
        CachepodError: As the store has it; Miss if there is no such snapshot.
    """
    store = open_store(url)
    manifest = load_manifest(store, key)
    sample = Sample.of(store, manifest)
    found: list[Speed] = []

    def note(speed: Speed) -> None:
        found.append(speed)
        told = ", ".join(f"{rate:,.0f} {speed.unit}/s" for rate in speed.rates.values())
        print(f"{speed.what}: {told}", file=sys.stderr)

    note(reading(url, manifest))
    if tree is not None:
        note(reading_tree(tree))
    for speed in cores(sample):
        note(speed)
    with open_ground(scratch, 3 << 30, inodes=200_000, plain=plain) as ground:
        for speed in disk(ground, sample):
            note(speed)
    return {speed.what: speed for speed in found}, Amounts.of(manifest)


def floors(speeds: Mapping[str, Speed], amounts: Amounts) -> list[Floor]:
    """Of the restore, and of the publish where the tree was measured."""
    found = [restore_floor(speeds, amounts)]
    if "read the tree" in speeds:
        found.append(publish_floor(speeds, amounts))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.floor", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("--store", required=True, metavar="URL", help="where the snapshot lies")
    parser.add_argument("--key", required=True, help="which one")
    parser.add_argument("--tree", type=Path, metavar="DIR", help="what was published")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), metavar="DIR")
    parser.add_argument("--plain", action="store_true", help="directories, no loop devices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()
    facts = measure.machine()
    measure.print_machine(facts)
    cold = "cold" if drop_caches() else "as it was: not allowed to drop it"
    speeds, amounts = measure_machine(
        options.store, options.key, options.scratch, tree=options.tree, plain=options.plain
    )
    subject = {"page cache": cold, "GB": round(amounts.plain / 1e9, 2), "files": amounts.files}
    found = floors(speeds, amounts)
    tables = [speed_table(speeds), *(each.table() for each in found)]
    for table in tables:
        print(table, end="\n\n")
    for each in found:
        print(f"floor of a {each.operation}: {each.seconds:.2f} s ({each.longest.name})")
    begun = results.begin("benchmarks.floor", facts, subject)
    samples = {each.operation: each.seconds for each in found}
    replace(begun, tables=tables, samples=samples).write(options.json)


if __name__ == "__main__":
    measure.script(main)
