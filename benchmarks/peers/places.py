"""The sources: a local directory, a real MooseFS, a volume that is mounted already, S3."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks import measure
from benchmarks.peers.peer import Where, said
from tests.support import moosefs, s3


class Place(Protocol):
    """One source for as long as it is there."""

    @property
    def kind(self) -> str:
        """What it is, in words."""
        ...

    def versions(self) -> dict[str, str]:
        """Of the programs that serve it."""
        ...

    def new(self, name: str) -> Where:
        """An empty part of it for one peer."""
        ...

    def delete(self, where: Where) -> None:
        """Make room."""
        ...

    def stored(self, where: Where) -> int:
        """Bytes of what lies there."""
        ...

    def durable(self) -> list[str] | None:
        """The command after which what was stored has reached it; None where nothing lags."""
        ...

    def renew(self) -> None:
        """Forget what this machine remembers of it: mount it anew."""
        ...


class Directory:
    """
    A source that is a directory: on a disk, or on a volume that is mounted already.

    Args:
        folder: An empty one; deleted by whoever made it.

        kind: What it is, in words.
    """

    def __init__(self, folder: Path, kind: str = "a directory on the local disk") -> None:
        self.folder = folder
        self._kind = kind

    @property
    def kind(self) -> str:
        """As given."""
        return self._kind

    def versions(self) -> dict[str, str]:
        """None."""
        return {}

    def new(self, name: str) -> Where:
        """A new directory."""
        path = self.folder / name
        path.mkdir()
        return Where(str(path), path)

    def delete(self, where: Where) -> None:
        """Delete it."""
        shutil.rmtree(where.folder)

    def stored(self, where: Where) -> int:
        """Bytes of its files."""
        return measure.tree_size(where.folder)[1]

    def durable(self) -> list[str] | None:
        """Write back its file system."""
        return ["sync", "--file-system", str(self.folder)]

    def renew(self) -> None:
        """Nothing here; the page cache is dropped by whoever measures."""


class MooseFS(Directory):
    """A real MooseFS on this machine."""

    def __init__(self, cluster: moosefs.Cluster, name: str) -> None:
        kind = "MooseFS on this machine, mounted through FUSE"
        super().__init__(cluster.mounts[name].path, kind)
        self._cluster = cluster
        self._name = name

    def move_away(self, latency: float, rate: float) -> None:
        """
        Let the volume lie behind a network from now on; see :mod:`tests.support.wire`.

        Args:
            latency: Of a round trip, in seconds.

            rate: Bytes a second that it moves at most; 0 is no limit.

        Raises:
            Unavailable: It does not work on this machine; in words.
        """
        self._cluster.lay_wire(latency, rate)
        limit = f" at {rate / 1e6:.0f} MB/s" if rate else ""
        pace = f"{latency * 1e3:g} ms a round trip{limit}"
        self._kind = f"the same MooseFS behind a model of a network: {pace}"

    def versions(self) -> dict[str, str]:
        """Of its client, as of its servers."""
        done = subprocess.run(["mfsmount", "-V"], capture_output=True, text=True, check=False)
        found = re.search(r"MFS version:? ([\d.]+)", done.stdout + done.stderr)
        return {"moosefs": found[1]} if found else {}

    def renew(self) -> None:
        """Mount it anew: no cache of the old mount's daemon or kernel is left."""
        self._cluster.remount(self._name)


class Bucket:
    """A bucket of ``rclone serve s3`` over loopback, with or without ETags."""

    def __init__(self, server: s3.Server, *, etags: bool) -> None:
        self._server = server
        self._etags = etags
        # Never one prefix twice: the server remembers directories that are deleted behind it.
        self._numbers = itertools.count(1)

    @property
    def kind(self) -> str:
        """What it is."""
        return f"S3 by rclone serve s3 over loopback, with{'' if self._etags else 'out'} ETags"

    def versions(self) -> dict[str, str]:
        """Of the server."""
        return {"rclone": said([s3.rclone_program(), "version"]).removeprefix("rclone v")}

    def new(self, name: str) -> Where:
        """A new prefix."""
        environ = {**s3.environment(), "AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
        url = f"s3://{s3.BUCKET}/{next(self._numbers)}-{name}"
        return Where(url, None, self._server.endpoint, environ)

    def delete(self, where: Where) -> None:
        """Delete the objects below the prefix."""
        shutil.rmtree(self._behind(where), ignore_errors=True)

    def stored(self, where: Where) -> int:
        """Bytes of the objects below the prefix."""
        return measure.tree_size(self._behind(where))[1]

    def durable(self) -> list[str] | None:
        """None: an object that was put is there."""
        return None

    def renew(self) -> None:
        """Nothing to do."""

    def _behind(self, where: Where) -> Path:
        return self._server.directory / where.url.removeprefix("s3://")


@contextmanager
def local(scratch: Path) -> Iterator[Place]:
    """A directory on the disk of *scratch*."""
    with tempfile.TemporaryDirectory(prefix="peers-local-", dir=scratch) as folder:
        yield Directory(Path(folder).resolve())


@contextmanager
def moosefs_volume(scratch: Path) -> Iterator[MooseFS]:
    """
    A MooseFS whose data lies below *scratch*.

    Raises:
        Unavailable: It does not work on this machine; in words.
    """
    if reason := moosefs.unavailable():
        raise moosefs.Unavailable(reason)
    folder = Path(tempfile.mkdtemp(prefix="cachepod-bench-moosefs-", dir=scratch)).resolve()
    cluster = moosefs.Cluster(folder, bound=True)
    try:
        cluster.start()
        mounted = cluster.mount("volume")
        # What is deleted makes room at once.
        cluster.tool("mfssettrashtime", "-r", "0", mounted.path)
        yield MooseFS(cluster, "volume")
    finally:
        cluster.stop()


@contextmanager
def mounted_volume(volume: Path) -> Iterator[Place]:
    """A folder of its own on *volume*, deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="cachepod-peers-", dir=volume)).resolve()
    try:
        yield Directory(folder, f"the volume that is mounted here as {_file_system(folder)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def bucket(scratch: Path, *, etags: bool = False) -> Iterator[Place]:
    """A bucket whose objects lie below *scratch*; for *etags* the server hashes each of them."""
    with s3.rclone_server(hashing=etags, parent=scratch) as server:
        yield Bucket(server, etags=etags)


def _file_system(path: Path) -> str:
    return said(["stat", "--file-system", "--format=%T", path]) or os.fspath(path)
