"""
How cost grows with the tree: with the number of its files, and with its bytes.

::

    python -m benchmarks.scale.trees [--files N ...] [--bytes GB ...] [--mixed GB ...]
                                     [--rounds N] [--patience S] [--scratch DIR] [--plain]
                                     [--json FILE] [--picture FILE]

Each point of a curve is a tree made for it: small files of up to 4 kB, a hundred to a directory;
files of 10 and 256 MB, half of which compresses; or a mix as an environment of torch has it. Every
round publishes it to a new store and restores it onto new ground with the page cache dropped, and
then does to the restored tree what a hook meets, with the cache as it is: restore it again, publish
it under another key with nothing changed, and with a hundredth replaced. At last the store is
verified, the cache dropped. A point has more rounds for as long as it stays below the patience.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import measure, results
from benchmarks.ground import Ground, drop_caches, open_ground
from benchmarks.results import Results
from benchmarks.scale import curves, making
from benchmarks.scale.curves import Shape, before, sample
from benchmarks.scale.subject import add_places

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEY, _TREE = "scale", "scale"
_TITLE = "How cost grows with the tree"
STEPS = {
    "publish": "publish",
    "restore": "restore",
    "confirm": "restore again",
    "unchanged": "publish unchanged",
    "changed": "publish 1 % changed",
    "verify": "verify",
}


def _shape(title: str, x: str, of: str, each: float, axis: tuple[str, float]) -> Shape:
    return Shape(
        title,
        x,
        {
            "files": lambda point: f"{point['files']:,}",
            "GB": lambda point: f"{point['size'] / 1e9:.2f}",
        },
        of,
        each,
        STEPS,
        {
            "plan of restore s": ("restore", before),
            "scan of publish 1 % changed s": ("changed", before),
        },
        {
            "manifest MB": ("", lambda point: point["manifest"] / 1e6),
            "stored MB": ("", lambda point: point["stored"] / 1e6),
            "1 % changed, stored MB": ("changed", lambda done: done["written"] / 1e6),
        },
        axis,
    )


SHAPES = {
    "files": _shape("small files", "files", "100,000 files", 1e5, ("files", 1)),
    "bytes": _shape("big files", "size", "GB", 1e9, ("GB", 1e9)),
    "mixed": _shape("both", "size", "GB", 1e9, ("GB", 1e9)),
}


def measure_tree(
    kind: str, number: int, scratch: Path, rounds: int, patience: float, plain: bool
) -> Iterator[dict[str, Any]]:
    """
    The point of *number* files or bytes, after each of its rounds.

    Whatever is written is deleted only when the last round is over.
    """
    with tempfile.TemporaryDirectory(prefix="scale-", dir=scratch) as folder:
        tree = Path(folder, "tree")
        making.run("make", kind, number, tree)
        files, size = measure.tree_size(tree)
        point: dict[str, Any] = {"files": files, "size": size, "rounds": []}
        space, inodes = int(size * 1.3) + files * 4096, files * 2 + 10_000
        with open_ground(Path(folder), space, inodes=inodes, plain=plain) as ground:
            begun = perf_counter()
            for turn in range(rounds):
                store = Path(folder, f"store-{turn}")
                done, about = _measure_round(kind, number, tree, store, ground)
                point = {**point, **about, "rounds": [*point["rounds"], done]}
                yield point
                if perf_counter() - begun > patience:
                    break


def _measure_round(
    kind: str, number: int, tree: Path, store: Path, ground: Ground
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each step took, and what the store has then of one snapshot of the tree."""

    def run(command: str, *arguments: str | Path, cold: bool = False) -> dict[str, Any]:
        if cold:
            drop_caches()
        words = [measure.cachepod(), command, "--json", "--store", store, *arguments]
        return sample(measure.run(words))

    def at(place: Path, key: str = _KEY) -> list[str]:
        return ["--key", key, "--tree", f"{_TREE}={place}"]

    done = {"publish": run("publish", *at(tree), cold=True)}
    about = {"manifest": _size(store / "manifests"), "stored": _size(store / "packs")}
    with ground.fresh() as place:
        restored = place / "tree"
        done["restore"] = run("restore", *at(restored), cold=True)
        done["confirm"] = run("restore", *at(restored))
        done["unchanged"] = run("publish", *at(restored, "unchanged"))
        making.run("change", kind, number, restored)
        done["changed"] = run("publish", *at(restored, "changed"))
    done["verify"] = run("verify", _KEY, cold=True)
    return done, about


def _size(folder: Path) -> int:
    return measure.tree_size(folder)[1]


def draw(found: Results) -> Figure:
    """Seconds and memory of each curve."""
    return curves.draw(_TITLE, found, SHAPES)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.trees", description=(__doc__ or "").splitlines()[1]
    )
    add = parser.add_argument
    add("--files", type=int, nargs="*", default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    add("--bytes", type=float, nargs="*", default=[1, 2, 4, 8, 16], metavar="GB")
    add("--mixed", type=float, nargs="*", default=[1, 2, 4, 8], metavar="GB")
    add("--rounds", type=int, default=3, metavar="N", help="of a point, at most")
    add("--patience", type=float, default=60, metavar="S", help="no new round of a point after it")
    add("--plain", action="store_true", help="directories, no loop devices")
    add_places(parser)
    return parser.parse_args()


def main() -> None:
    """Make each tree, measure it, delete it; what is known is written after every round."""
    options = _options()
    facts = measure.machine()
    measure.print_machine(facts)
    found = results.begin(
        "benchmarks.scale.trees", facts, {"rounds": options.rounds, "page cache": "dropped"}
    )
    jobs = [("files", number) for number in options.files]
    jobs += [
        (kind, int(size * 1e9)) for kind in ("bytes", "mixed") for size in getattr(options, kind)
    ]
    with curves.kept(found, SHAPES, options.json, options.picture, _TITLE) as keeper:
        for kind, number in jobs:
            rest = (number, options.scratch, options.rounds, options.patience, options.plain)
            keeper.keep(kind, measure_tree(kind, *rest))


if __name__ == "__main__":
    measure.script(main)
