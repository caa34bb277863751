"""No restore at all: the environment lies on the volume, and is used from there."""

from __future__ import annotations

from pathlib import Path

from benchmarks import measure
from benchmarks.peers.copies import PLAIN, plain_copy
from benchmarks.peers.peer import MOOSEFS, Peer, Where, said


class InPlace(Peer):
    """A virtual environment on the volume itself."""

    name = "a venv on the volume, used in place"
    sources = frozenset({MOOSEFS})
    set_up = "The environment was copied to the volume once; nothing is copied when it is used."
    leaves_out = (
        "A venv on the volume, used in place: nothing is copied; every container, and every import "
        "of something else, reads from the volume again."
    )
    why_ahead = (
        "A venv used in place reads only the pages that an import touches, a part of the tree; "
        "whatever is imported or loaded later comes over the network then, in every container."
    )
    shares = PLAIN

    def versions(self) -> dict[str, str]:
        """Of what copied it."""
        return {"cp": said(["cp", "--version"]).rpartition(" ")[2]}

    def publish(self, tree: Path, where: Where) -> None:
        """That of the copy, which has a row of its own."""
        return

    def prepare(self, tree: Path, where: Where) -> None:
        """The copy."""
        measure.run(["cp", "-a", tree, plain_copy(where)])

    def restore(self, where: Where, target: Path) -> None:
        """Nothing."""
        return

    def python(self, where: Where, target: Path) -> Path:
        """That of the copy."""
        return plain_copy(where) / "bin" / "python"
