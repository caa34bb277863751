"""
Peers taking turns at one source: publishes, restores, publishes after a change.

Every run has new ground below its target, the volume mounted anew and the page cache dropped. What
a publish stores is a place of its own, and the last one is kept for the restores where the source
allows it, so that nothing is made twice.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from benchmarks import measure
from benchmarks.ground import Ground, drop_caches, forget
from benchmarks.measure import Cost
from benchmarks.peers.change import Change, NothingToChange
from benchmarks.peers.peer import Peer, Settings, Where, site_packages
from benchmarks.peers.places import Place
from benchmarks.peers.rows import OURS, Found, Row
from cachepod.snapshot.stamp import STATE_DIRECTORY

TARGET = "tree"
_STORED = "stored"
_LONGEST = 60  # characters of a reason in a row


@dataclass
class Source:
    """
    One source at work.

    Args:
        place: The source itself.

        ground: Where trees are restored to.

        peers: Those that can use the source.

        settings: Theirs.

        tree: What is published.

        save: Called after each round, with everything that was found so far.

        on_ground: Publish to new ground, too, since the source is the same disk; what a restore
            needs is then made beside.

        keep_cache: Leave the page cache as it is.
    """

    place: Place
    ground: Ground
    peers: Sequence[Peer]
    settings: Settings
    tree: Path
    save: Callable[[], None]
    found: Found = field(default_factory=Found)
    on_ground: bool = False
    keep_cache: bool = False

    def __post_init__(self) -> None:
        self._kept: dict[str, Where] = {}
        self._missing = {peer.name: peer.missing() for peer in self.peers}
        self.found.kind = self.place.kind
        self.found.synced = self.place.durable() is not None
        self._files, self._size = _size_of(self.tree)

    def moved(self, only: Sequence[str] | None, save: Callable[[], None]) -> Source:
        """The same source, which has come to lie elsewhere, for peers whose name holds a text."""
        other = Source(
            self.place,
            self.ground,
            [peer for peer in self.peers if not only or any(text in peer.name for text in only)],
            self.settings,
            self.tree,
            save,
            on_ground=self.on_ground,
            keep_cache=self.keep_cache,
        )
        other._kept = self._kept
        return other

    @property
    def present(self) -> list[Peer]:
        """The peers that can run here."""
        return [peer for peer in self.peers if not self._missing[peer.name]]

    # Publish

    def publishes(self, rounds: int, *, keep: bool, enough: float = inf) -> None:
        """
        Every peer stores the tree, once a round.

        Args:
            keep: The last one is needed for restores or a second publish.

            enough: A peer whose rounds have taken so many seconds takes part in no more.
        """
        rows = self._rows()
        self.found.publish = list(rows.values())
        for number in range(rounds):
            for peer in measure.rotated(self.present, number):
                row = rows[peer.name]
                if row.blank or self._rests(row, number, rounds, enough):
                    continue

                def kept(row: Row = row, last: bool = number == rounds - 1) -> bool:
                    return keep and (last or sum(row.totals) >= enough)

                self._publish(peer, row, f"{number + 1}/{rounds}", kept)
            self.save()

    def _rests(self, row: Row, number: int, rounds: int, enough: float) -> bool:
        """Whether the peer has taken so long that it is left out of round *number* of *rounds*."""
        if sum(row.totals) < enough:
            return False
        if len(row.seconds) == number:  # the first that it misses
            rested = f"{row.name}: {number} of {rounds} rounds, since it is slow."
            row.note = f"{row.note} {rested}".strip()
        return True

    def _publish(self, peer: Peer, row: Row, said: str, keep: Callable[[], bool]) -> None:
        with self.ground.fresh() as place:
            where = self._new(peer, place)
            command = peer.publish(self.tree, where)
            if command is None:
                row.blank = "not compared"
                self._delete(where)
                return
            self._forget(self.tree)
            cost = self._run(row, f"{said} publish", self._durably(command), peer.environ(where))
            if cost is not None:
                row.add(cost)
                row.stored.append(self.place.stored(where))
            slot = peer.shares or peer.name
            if cost is not None and keep() and not self.on_ground and slot not in self._kept:
                self._kept[slot] = where
            else:
                self._delete(where)

    def _new(self, peer: Peer, ground: Path) -> Where:
        if self.on_ground:
            path = ground / _STORED
            path.mkdir()
            return Where(str(path), path)
        return self.place.new(_slug(peer.name))

    def _delete(self, where: Where) -> None:
        if where.path is not None:
            shutil.rmtree(where.path)
        else:
            self.place.delete(where)

    def _durably(self, command: Sequence[str]) -> list[str]:
        """*command*, and then whatever makes it durable: cachepod does so itself, others do not."""
        durable = self.place.durable()
        if durable is None:
            return list(command)
        script = '"${@:2:$1}" && "${@:2+$1}"'
        return measure.pipeline(script, str(len(command)), *command, *durable)

    # Restore

    def restores(self, rounds: int, module: str, enough: float = inf) -> None:
        """
        Every peer brings the tree back, once a round.

        Args:
            module: Imported afterwards from what was restored; empty for none.

            enough: A peer whose rounds have taken so many seconds takes part in no more.
        """
        rows = self._rows()
        self.found.restore = list(rows.values())
        for peer in self.present:
            self._prepare(peer, rows[peer.name])
        for number in range(rounds):
            for peer in measure.rotated(self.present, number):
                row = rows[peer.name]
                if not row.blank and not self._rests(row, number, rounds, enough):
                    self._restore(peer, row, f"{number + 1}/{rounds}", module)
            self.save()

    def _prepare(self, peer: Peer, row: Row) -> None:
        slot = peer.shares or peer.name
        if slot in self._kept or row.blank:
            return
        print(f"prepare  {peer.name} ...", file=sys.stderr)
        with self.ground.fresh():
            where = self.place.new(_slug(slot))
            try:
                peer.prepare(self.tree, where)
            except measure.CommandFailed as error:
                self._failed(row, error)
                self._delete(where)
            else:
                self._kept[slot] = where

    def _restore(self, peer: Peer, row: Row, said: str, module: str) -> None:
        where = self._kept[peer.shares or peer.name]
        with self.ground.fresh() as place:
            target = place / TARGET
            command = peer.restore(where, target)
            self._forget(where.path)
            cost = imported = None
            if command is not None:
                cost = self._run(row, f"{said} restore", command, peer.environ(where))
                if cost is None:
                    return
            if module:
                python = peer.python(where, target)
                words = import_command(python, module, self.settings.python or self._lent())
                imported = self._run(row, f"{said} import {module} after", words, {}, place)
                if imported is None:
                    return
                if command is None:  # what the machine now remembers of it helps the next one
                    warm = self._run(row, f"{said} import {module} once more", words, {}, place)
                    row.warm += [warm.seconds] if warm else []
            row.add(cost, imported)
            row.note = peer.leaves_out
            if command is not None and not peer.leaves_out:
                row.note = self._compare(peer.name, target)

    def _lent(self) -> Path:
        own = self.tree / "bin" / "python"
        return own.resolve() if own.exists() else Path(sys.executable)

    def _compare(self, name: str, target: Path) -> str:
        """What is missing of the tree at *target*, in words; an import may have added to it."""
        files, size = _size_of(target)
        files, size = max(self._files - files, 0), max(self._size - size, 0)
        return f"{name}: {files} files and {size} bytes are missing." if files or size else ""

    # Publish again

    def again(self, rounds: int, change: str) -> None:
        """
        Every peer that can stores the tree once more, after one distribution in it has changed.

        Args:
            change: Its name; empty for the largest one below 2% of the whole.
        """
        able = [each for each in self.present if type(each).publish_again != Peer.publish_again]
        rows = {peer.name: Row(peer.name) for peer in able}
        self.found.again = list(rows.values())
        for peer in able:
            self._prepare(peer, rows[peer.name])
        able = [peer for peer in able if not rows[peer.name].blank]
        try:
            with self._own_tree(able) as tree:
                self._change_and_store(able, rows, tree, rounds, change)
        except measure.CommandFailed as error:  # there is no tree to change
            for row in rows.values():
                if not row.blank:
                    self._failed(row, error)

    def _change_and_store(
        self, able: Sequence[Peer], rows: dict[str, Row], tree: Path, rounds: int, change: str
    ) -> None:
        try:
            changed = Change(tree, change)
        except NothingToChange as error:
            for row in rows.values():
                row.blank = str(error)
            return
        self.found.changed = changed.title
        for peer in able:  # so that each knows the files by this path
            self._again(peer, rows[peer.name], "0", tree, counted=False)
        for number in range(rounds):
            changed.apply(number)
            for peer in measure.rotated(able, number):
                if not rows[peer.name].blank:
                    self._again(peer, rows[peer.name], f"{number + 1}/{rounds}", tree)
            self.save()

    @contextmanager
    def _own_tree(self, able: Sequence[Peer]) -> Iterator[Path]:
        """
        A tree that may be changed.

        cachepod makes it where it takes part, so that it knows it as it knows what it has
        restored; what it keeps there is out of the way while the others look.
        """
        folder = self.settings.scratch / "again"
        folder.mkdir()
        tree = folder / TARGET
        ours = next((peer for peer in able if peer.name == OURS), None)
        command = ["cp", "-a", str(self.tree), str(tree)]
        environ: dict[str, str] = {}
        if ours is not None:
            where = self._kept[OURS]
            command = ours.restore(where, tree) or command
            # The scratch disk may be nearly full of what the peers store, and keeps no service up.
            environ = {**ours.environ(where), "CACHEPOD_MIN_FREE": "0"}
        try:
            measure.run(command, environ=environ)
            if (tree / STATE_DIRECTORY).is_dir():
                (tree / STATE_DIRECTORY).rename(folder / STATE_DIRECTORY)
            yield tree
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _again(self, peer: Peer, row: Row, said: str, tree: Path, *, counted: bool = True) -> None:
        where = self._kept[peer.shares or peer.name]
        state, away = tree / STATE_DIRECTORY, tree.parent / STATE_DIRECTORY
        with self.ground.fresh():
            if peer.name == OURS and away.is_dir():
                away.rename(state)
            try:
                before = self.place.stored(where)
                command = peer.publish_again(tree, where)
                assert command is not None
                self._forget(tree)
                words = self._durably(command)
                cost = self._run(row, f"{said} publish again", words, peer.environ(where))
            finally:
                if state.is_dir():
                    state.rename(away)
        if cost is not None and counted:
            row.add(cost)
            row.stored.append(self.place.stored(where) - before)

    # All of them

    def _rows(self) -> dict[str, Row]:
        return {peer.name: Row(peer.name, self._missing[peer.name]) for peer in self.peers}

    def _forget(self, folder: Path | None) -> None:
        """Make sure that what is read next, below *folder*, comes from where it lies."""
        self.place.renew()
        if self.keep_cache:
            self.found.cache = "as it was"
        elif drop_caches():
            self.found.cache = "dropped"
        else:
            if folder is not None:
                forget(folder)
            self.found.cache = "forgotten file by file"

    def _run(
        self,
        row: Row,
        said: str,
        command: Sequence[str],
        environ: dict[str, str],
        cwd: Path | None = None,
    ) -> Cost | None:
        try:
            cost = measure.run(command, environ=environ, cwd=cwd, watch=True)
        except measure.CommandFailed as error:
            self._failed(row, error)
            return None
        print(f"{said}  {row.name}: {cost.seconds:.2f} s", file=sys.stderr)
        return cost

    def _failed(self, row: Row, error: measure.CommandFailed) -> None:
        print(f"{row.name}: {error}", file=sys.stderr)
        last = str(error).strip().splitlines()[-1].strip()
        row.blank = f"failed: {last if len(last) <= _LONGEST else last[: _LONGEST - 3] + '...'}"


def _size_of(tree: Path) -> tuple[int, int]:
    """Files and bytes of a tree, without what cachepod notes about it."""
    whole, own = measure.tree_size(tree), measure.tree_size(tree / STATE_DIRECTORY)
    return whole[0] - own[0], whole[1] - own[1]


def import_command(python: Path, module: str, lent: Path) -> list[str]:
    """Import *module* by *python*, or by the interpreter *lent* where a tree has none."""
    if python.exists():
        return [str(python), "-c", f"import {module}"]
    site = str(site_packages(python.parents[1]))
    return [str(lent), "-c", f"import sys; sys.path.insert(0, {site!r}); import {module}"]


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())
