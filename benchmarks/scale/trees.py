"""
Time, memory and manifest size against the number of files, and against bytes.

::

    python -m benchmarks.scale.trees [--files N ...] [--bytes GB ...] [--scratch DIR]

Each row is a tree made for it: small files of up to 4 kB, a hundred to a directory, or files of
256 MB. The last columns are what one more file or GB costs; where the curve is a straight line they
stay the same from row to row, and memory does not grow at all.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.ground import drop_caches, open_ground
from benchmarks.measure import Cost

KEY = "scale"
_BIG = 256_000_000
_WORDS = [f"{word}{number} " for number in range(500) for word in ("def", "return", "self.x =")]


@dataclass(frozen=True)
class Point:
    """One tree, published and restored."""

    files: int
    size: int
    publish: Cost
    restore: Cost
    manifest: int
    stored: int


def make_small_files(root: Path, count: int) -> None:
    """*count* files of 0 to 4 kB, text that compresses as source code does."""
    source = random.Random(count)
    pool = "".join(source.choice(_WORDS) for _ in range(200_000)).encode()
    for start in range(0, count, 100):
        folder = root / f"{start // 100_000:03d}" / f"{start // 100:06d}"
        folder.mkdir(parents=True)
        for number in range(start, min(start + 100, count)):
            begin, length = source.randrange(len(pool) - 4000), source.randrange(4000)
            # The name of the file in front makes every content one of its own.
            content = b"%d\n" % number + pool[begin : begin + length]
            with open(os.path.join(folder, f"module_{number}.py"), "wb") as file:
                file.write(content)


def make_big_files(root: Path, size: int) -> None:
    """*size* bytes in files of 256 MB; half random, half text, as a shared library is."""
    root.mkdir(parents=True, exist_ok=True)
    source = random.Random(size)
    text = "".join(source.choice(_WORDS) for _ in range(100_000)).encode()
    written = 0
    while written < size:
        with open(root / f"library_{written // _BIG:03d}.so", "wb") as file:
            goal = min(_BIG, size - written)
            while file.tell() < goal:
                begin = source.randrange(len(text) - 100_000)
                block = source.randbytes(100_000) + text[begin : begin + 100_000]
                file.write(block[: goal - file.tell()])
            written += goal


def measure_tree(tree: Path, scratch: Path, plain: bool) -> Point:
    """Publish *tree* into a new store and restore it onto new ground."""
    files, size = measure.tree_size(tree)
    store = Path(tempfile.mkdtemp(prefix="store-", dir=scratch))
    target = ["--store", str(store), "--key", KEY, "--json", "--tree"]
    try:
        with open_ground(
            scratch, int(size * 1.3) + files * 4096, inodes=files * 2 + 10_000, plain=plain
        ) as ground:
            drop_caches()
            publish = measure.run([measure.cachepod(), "publish", *target, f"scale={tree}"])
            with ground.fresh() as place:
                drop_caches()
                restored = f"scale={place / 'tree'}"
                restore = measure.run([measure.cachepod(), "restore", *target, restored])
        manifest = sum(measure.tree_size(path)[1] for path in store.glob("manifests"))
        return Point(files, size, publish, restore, manifest, measure.tree_size(store)[1])
    finally:
        shutil.rmtree(store, ignore_errors=True)


def _row(point: Point, unit: float) -> list[str]:
    # Reading the manifest and planning: what is done before the first file is written.
    plan = sum(point.restore.phases.get(phase, 0.0) for phase in ("manifest", "prepare"))
    return [
        f"{point.files:,}",
        f"{point.size / 1e9:.2f}",
        f"{point.publish.seconds:.2f}",
        f"{point.publish.peak / 1e6:.0f}",
        f"{point.restore.seconds:.2f}",
        f"{point.restore.peak / 1e6:.0f}",
        f"{plan:.2f}",
        f"{point.manifest / 1e6:.2f}",
        f"{point.stored / 1e9:.2f}",
        f"{point.publish.seconds / unit:.2f}",
        f"{point.restore.seconds / unit:.2f}",
    ]


_HEADINGS = [
    *("files", "GB", "publish s", "peak MB", "restore s", "peak MB", "plan s"),
    *("manifest MB", "stored GB"),
]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.trees", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("--files", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--bytes", type=float, nargs="*", default=[1, 2, 4], metavar="GB")
    parser.add_argument(
        "--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure"
    )
    parser.add_argument("--plain", action="store_true", help="directories, no loop devices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def main() -> None:
    """Make each tree, measure it, delete it."""
    options = _options()
    facts = measure.machine()
    measure.print_machine(facts)
    curves: dict[str, list[Point]] = {"files": [], "bytes": []}
    jobs = [("files", count) for count in options.files]
    jobs += [("bytes", int(size * 1e9)) for size in options.bytes]
    for kind, amount in jobs:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.scratch) as folder:
            tree = Path(folder) / "tree"
            (make_small_files if kind == "files" else make_big_files)(tree, amount)
            point = measure_tree(tree, options.scratch, options.plain)
        curves[kind].append(point)
        print(f"{kind} {amount:,}: {point.restore.seconds:.2f} s", file=sys.stderr)
    for kind, unit, per in (("files", 1e5, "100,000 files"), ("bytes", 1e9, "GB")):
        rows = [
            _row(point, (point.files if kind == "files" else point.size) / unit)
            for point in curves[kind]
        ]
        if rows:
            headings = [*_HEADINGS, f"publish s/{per}", f"restore s/{per}"]
            print(measure.table(headings, rows), end="\n\n")
    measure.write_json(options.json, {"machine": facts, "curves": _as_json(curves)})


def _as_json(curves: dict[str, list[Point]]) -> dict[str, list[dict[str, object]]]:
    return {
        kind: [
            {
                "files": point.files,
                "size": point.size,
                "manifest": point.manifest,
                "stored": point.stored,
                **{
                    name: {"seconds": cost.seconds, "cpu": cost.cpu, "peak": cost.peak}
                    | {"phases": cost.phases}
                    for name, cost in (("publish", point.publish), ("restore", point.restore))
                },
            }
            for point in points
        ]
        for kind, points in curves.items()
    }


if __name__ == "__main__":
    measure.script(main)
