"""
What a peer is: one way to store a tree and to bring it back, as its own users would do it.

A peer gives commands, and :mod:`benchmarks.peers.rounds` runs and measures them, so that nothing
of a peer runs in the benchmark's own process while it is measured.
"""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import measure

LOCAL, MOOSEFS, S3 = "local", "moosefs", "s3"
#: Sources that are directories.
VOLUMES = frozenset({LOCAL, MOOSEFS})


@dataclass(frozen=True)
class Where:
    """
    Where a peer keeps what it stores; nobody else writes there.

    Args:
        url: ``s3://BUCKET/PREFIX``, without a slash at its end, or the path as text.

        path: The directory, on a disk or on the mounted volume, empty at first; None on S3.

        endpoint: URL of the S3 service; empty elsewhere.

        environ: What a command needs to get there: credentials and the region of S3.
    """

    url: str
    path: Path | None = None
    endpoint: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The directory, for a peer that has no other source."""
        assert self.path is not None, f"{self.url} is no directory"
        return self.path


class Programs:
    """
    Programs from PyPI, in a virtual environment of their own, so that they cost cachepod's nothing.

    Args:
        folder: Where it is, or is made when the first is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, *requirements: str) -> str:
        """Install what is not there yet; why that failed, empty if it did not."""
        uv = measure.find_tool("uv")
        if uv is None:
            return "no uv here to install it"
        steps: list[list[str | Path]] = [[uv, "pip", "install", "-q", "-p", self["python"]]]
        steps[0] += requirements
        if not Path(self["python"]).exists():
            steps.insert(0, [uv, "venv", "-q", "--clear", "-p", sys.executable, self.folder])
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                return f"could not be installed: {last.strip()}"
        return ""

    def __getitem__(self, name: str) -> str:
        """The path of a program, such as ``python``, that an installed distribution has."""
        return str(self.folder / "bin" / name)

    def version(self, distribution: str) -> str:
        """Of an installed distribution."""
        script = "from importlib.metadata import version; import sys; print(version(sys.argv[1]))"
        return said([self["python"], "-c", script, distribution])


@dataclass(frozen=True)
class Settings:
    """
    What all peers share in one run.

    Args:
        target: Where every restore makes the tree: the same path each time, absent before. Its
            folder exists while a publish, a prepare or a restore runs.

        scratch: A folder on the local disk for what a peer needs beside; deleted at the end.

        programs: Those from PyPI.

        python: The interpreter of trees that have none of their own, such as a layer.

        level: Of zstd, for whoever lets one choose.
    """

    target: Path
    scratch: Path
    programs: Programs
    python: Path | None = None
    level: int = 3


class Peer(ABC):
    """
    One way to store a tree and to bring it back, set up as its own documentation recommends.

    The order of one source: :meth:`missing`; then :meth:`publish`, once a round, each into a new
    *where*, or :meth:`prepare` where nobody asked for publishes; then :meth:`restore` once a round,
    with the volume mounted anew and the page cache dropped.
    """

    #: What the row is called, such as ``zstd -dc | tar -x``; unique.
    name: str
    #: Where a user could use it.
    sources: frozenset[str] = VOLUMES
    #: One sentence or two: how it is set up, for speed, by its own documentation.
    set_up: str
    #: Whether all of the tree is to be there after a restore, file by file and byte by byte;
    #: a sentence that says what is not, if not.
    leaves_out: str = ""
    #: A sentence that says why it may be quicker than cachepod; shown where it is.
    why_ahead: str = ""
    #: Peers with the same text here keep the same form of the tree, and restore from one copy of
    #: it, which the first of them that is asked to makes. Empty: it has its own.
    shares: str = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def missing(self) -> str:
        """Why it cannot run here, in words; empty if it can. It may install what it needs."""
        return ""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Of its programs, by their names; asked only if nothing is missing."""

    @abstractmethod
    def publish(self, tree: Path, where: Where) -> list[str] | None:
        """The command that stores *tree* there; None: not compared, :meth:`prepare` does it."""

    def publish_again(self, tree: Path, where: Where) -> list[str] | None:
        """
        The command that stores *tree* beside what :meth:`publish` of the same path stored.

        Some files have changed since. A peer that stores all of it again, as the first time, does
        not override this, and is not asked.
        """
        return None

    def prepare(self, tree: Path, where: Where) -> None:
        """
        Make what a restore needs, untimed.

        Raises:
            CommandFailed: It does not work.
        """
        command = self.publish(tree, where)
        assert command is not None, f"{self.name} must say how it is prepared"
        measure.run(command, environ=self.environ(where))

    @abstractmethod
    def restore(self, where: Where, target: Path) -> list[str] | None:
        """The command that makes the tree at *target*; None: it is used where it is."""

    def python(self, where: Where, target: Path) -> Path:
        """The interpreter of what was restored, which need not exist (see Settings.python)."""
        return target / "bin" / "python"

    def environ(self, where: Where) -> dict[str, str]:
        """What its commands need."""
        return dict(where.environ)


def said(command: Sequence[str | Path]) -> str:
    """The first line that *command* prints, such as a version; empty if there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return lines[0].strip(" *") if lines else ""


def site_packages(tree: Path) -> Path:
    """The directory of installed distributions in the environment at *tree*."""
    found = sorted(tree.glob("lib/python3*/site-packages"))
    return found[0] if found else tree
