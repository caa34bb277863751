"""
How cost grows with the number of snapshots in a store.

::

    python -m benchmarks.scale.snapshots [--snapshots N ...] [--files N] [--needs N] [--new N]
                                         [--only real|made-up] [--rounds N] [--scratch DIR]
                                         [--json FILE] [--picture FILE]

Real snapshots are of one environment that evolves: each has a hundredth of the files of the one
before replaced. At every number of them are measured, each as a command and with the page cache
dropped: a hit, by the newest snapshot and by the first; a miss, which looks for a relative and
finds one that it cannot use; a partial hit, which brings a relative; one more publish, of an
environment of which a hundredth changed; and ls, stats, prune --dry-run, and verify of one.

Made-up snapshots are as large as those of a real stack, in a store that only reads as one: for
ls, stats and prune --dry-run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure, results
from benchmarks.ground import drop_caches
from benchmarks.results import Results
from benchmarks.scale import curves, evolving
from benchmarks.scale.curves import Shape, sample
from benchmarks.scale.evolving import Evolving, configuration
from benchmarks.scale.subject import add_places

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLE = "How cost grows with the snapshots in a store"
_USES = 10  # records of each made-up key
_LOOKING = {"ls": "ls", "stats": "stats", "prune": "prune --dry-run"}
STEPS = {
    "hit": "hit, newest",
    "first": "hit, first",
    "miss": "miss",
    "partial": "partial hit",
    "publish": "publish one more",
    **_LOOKING,
    "verify": "verify one",
}
_HEADS = {"snapshots": lambda point: f"{point['snapshots']:,}"}


def _megabytes(name: str) -> tuple[str, curves.Value]:
    return "", lambda point: point[name] / 1e6


def _number(name: str) -> tuple[str, curves.Value]:
    return "", lambda point: point[name]


SHAPES = {
    "real": Shape(
        *("real snapshots", "snapshots", _HEADS, "100 snapshots", 100, STEPS),
        stored={
            "plain MB of all": _megabytes("plain"),
            "stored MB": _megabytes("stored"),
            "manifests MB": _megabytes("manifests"),
            "packs": _number("packs"),
            "packs that the newest needs": _number("needs"),
            "stored by one more MB": ("publish", lambda done: done["written"] / 1e6),
        },
        axis=("snapshots", 1),
        groups={
            "a start": ("hit", "first", "partial", "miss", "publish"),
            "a look at the store": (*_LOOKING, "verify"),
        },
        amounts={
            "what they take": ("MB", ("plain MB of all", "stored MB", "manifests MB")),
            "packs": ("packs", ("packs", "packs that the newest needs")),
        },
    ),
    "made-up": Shape(
        *("made-up snapshots", "snapshots", _HEADS, "100 snapshots", 100, _LOOKING),
        stored={"manifests MB": _megabytes("manifests")},
        axis=("snapshots", 1),
        groups={"made-up snapshots of a real size": tuple(_LOOKING)},
    ),
}


class Evolution:
    """
    Real snapshots in a store that grows.

    The environment lies at the one place that its key names. For a hit it is moved aside, and
    what is restored there is moved away and deleted when the point is over.
    """

    def __init__(self, folder: Path, files: int) -> None:
        self._folder = folder
        self._place = folder / "place"
        self._store = folder / "store"
        self._versions = 0  # that there are
        self._spent = 0
        prefix = self._place / "venv"
        self._place.mkdir()
        config = self._config("base", 0)
        self._evolving = Evolving(str(prefix), str(self._store), files, evolving.base_of(config))
        evolving.run("make", self._evolving, 0)

    def _config(self, name: str, version: int | str, prefix: str = "venv") -> Path:
        file = self._folder / f"{name}.toml"
        return configuration(file, self._place / prefix, self._store, version)

    def point(self, number: int, rounds: int, room: int) -> Iterator[dict[str, Any]]:
        """
        The point of *number* snapshots, after each of its rounds.

        Args:
            room: Snapshots that a round may add, at most: one each.
        """
        evolving.run("fill", self._evolving, self._versions, number)
        self._versions = number
        point = {"snapshots": number, "rounds": [], **self._stored()}
        for turn in range(rounds):
            done = self._round(number, turn)
            point = {**point, "rounds": [*point["rounds"], done]}
            yield point
        for turn in range(min(rounds, room)):
            version = self._versions
            evolving.run("change", self._evolving, version)
            more = self._run("publish", "--config", self._config("more", version))
            self._versions += 1
            rounds_ = list(point["rounds"])
            rounds_[turn] = {**rounds_[turn], "publish": more}
            point = {**point, "rounds": rounds_}
        for used in self._folder.glob("used-*"):
            shutil.rmtree(used)
        yield point

    def _round(self, number: int, turn: int) -> dict[str, Any]:
        newest, oldest = self._config("newest", number - 1), self._config("first", 0)
        wanted = f"9{number}.{turn}"  # by nobody else: the lease of a miss stays
        other, near = self._config("miss", wanted, "elsewhere"), self._config("near", wanted)
        key = self._evolving.fingerprint(number - 1).key
        done = {}
        for step, config, code in (
            *(("hit", newest, 0), ("first", oldest, 0)),
            *(("miss", other, 3), ("partial", near, 4)),
        ):
            aside = self._folder / "aside"
            self._place.rename(aside)
            self._place.mkdir()
            try:
                done[step] = self._run("restore", "--wait", "0", "--config", config, code=code)
            finally:
                self._spent += 1
                self._place.rename(self._folder / f"used-{self._spent}")
                aside.rename(self._place)
        at = ("--store", str(self._store))
        done["ls"] = self._run("ls", *at)
        done["stats"] = self._run("stats", *at)
        done["prune"] = self._run("prune", "--dry-run", "--keep-last", str(-(-number // 2)), *at)
        done["verify"] = self._run("verify", *at, key)
        return done

    def _run(self, command: str, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        drop_caches()
        words = [measure.cachepod(), command, "--json", *arguments]
        return sample(measure.run(words, cwd=self._folder, codes=(code,)))

    def _stored(self) -> dict[str, int]:
        """Sizes in bytes, and numbers of packs."""
        packs, stored = measure.tree_size(self._store / "packs")
        newest = self._evolving.fingerprint(self._versions - 1).key
        show = measure.run([measure.cachepod(), "show", "--json", "--store", self._store, newest])
        listed = measure.run([measure.cachepod(), "ls", "--json", "--store", self._store]).report
        return {
            "plain": sum(each["size"] for each in listed["snapshots"]),
            "packs": packs,
            "stored": stored,
            "manifests": measure.tree_size(self._store / "manifests")[1],
            "needs": show.report["packs"],
        }


def made_up(
    folder: Path, number: int, needs: int, new: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """The point of *number* made-up snapshots of *needs* chunks, *new* of them new in each."""
    root = folder / f"made-up-{number}"
    size = [str(each) for each in (number, needs, new, _USES)]
    measure.run(
        [sys.executable, "-m", "benchmarks.scale.madeup", root, *size],
        cwd=Path(__file__).resolve().parents[2],
    )
    manifests = sum(path.stat().st_size for path in (root / "manifests").rglob("*-*[0-9a-f]"))
    point: dict[str, Any] = {"snapshots": number, "manifests": manifests, "rounds": []}
    keep = ["--dry-run", "--keep-last", str(-(-number // 2))]
    for _ in range(rounds):
        done = {}
        for step, words in (("ls", ["ls"]), ("stats", ["stats"]), ("prune", ["prune", *keep])):
            drop_caches()
            command = [measure.cachepod(), *words, "--json", "--store", str(root)]
            done[step] = sample(measure.run(command, cwd=folder))
        point = {**point, "rounds": [*point["rounds"], done]}
        yield point


def draw(found: Results) -> Figure:
    """Seconds and memory of each curve."""
    return curves.draw(_TITLE, found, SHAPES)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.snapshots", description=(__doc__ or "").splitlines()[1]
    )
    add = parser.add_argument
    add("--snapshots", type=int, nargs="*", default=[1, 3, 10, 30, 100, 300, 1000], metavar="N")
    add("--files", type=int, default=200, metavar="N", help="of the real environment, 1.1 MB each")
    add("--needs", type=int, default=1000, metavar="N", help="chunks of a made-up snapshot")
    add("--new", type=int, default=100, metavar="N", help="those that the one before has not")
    add("--only", choices=("real", "made-up"), help="no others")
    add("--rounds", type=int, default=3, metavar="N")
    add_places(parser)
    return parser.parse_args()


def main() -> None:
    """Grow the store from number to number and measure; what is known is written at once."""
    options = _options()
    facts = measure.machine()
    measure.print_machine(facts)
    subject = {
        "real snapshots": f"of {options.files} files of 1.1 MB, a hundredth new in each",
        "made-up snapshots": f"of {options.needs:,} chunks, {options.new} new in each",
        "rounds": options.rounds,
        "page cache": "dropped",
    }
    found = results.begin("benchmarks.scale.snapshots", facts, subject)
    numbers: Sequence[int] = sorted(set(options.snapshots))
    with (
        tempfile.TemporaryDirectory(prefix="snapshots-", dir=options.scratch) as folder,
        curves.kept(found, SHAPES, options.json, options.picture, _TITLE) as keeper,
    ):
        if options.only != "made-up":
            evolution = Evolution(Path(folder), options.files)
            for number, after in zip(numbers, [*numbers[1:], sys.maxsize], strict=True):
                keeper.keep("real", evolution.point(number, options.rounds, after - number))
        if options.only != "real":
            for number in numbers:
                rest = (number, options.needs, options.new, options.rounds)
                keeper.keep("made-up", made_up(Path(folder), *rest))


if __name__ == "__main__":
    measure.script(main)
