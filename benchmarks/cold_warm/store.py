"""
A store of the benchmark's own, below the one that the user names.

So every cold start meets an empty store, no snapshot of anybody else's is read, changed or
deleted, and all of it can be removed afterwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ground import forget
from cachepod.model import names
from cachepod.stores.base import ObjectInfo, PruneStore
from cachepod.stores.founding import TAG_NAME
from cachepod.stores.mounts import mount_of
from cachepod.stores.url import directory_of, is_s3, open_store

_PARTS = (
    *(names.MANIFESTS, names.PACKS, names.INCOMING, names.DAMAGED, names.LEASES, names.PINS),
    *(names.CONDEMNED, names.USES, names.PROBES, names.TRASH),
)


def below(url: str, name: str) -> str:
    """The URL of the store *name* below that at *url*, which may be a directory or in S3."""
    if not is_s3(url):
        return str(directory_of(url) / name)
    place, mark, query = url.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


class OwnStore:
    """One store that nobody else has."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store: PruneStore = open_store(url)

    @property
    def directory(self) -> Path | None:
        """Where it lies, if that is a directory."""
        return None if is_s3(self.url) else directory_of(self.url)

    @property
    def kind(self) -> str:
        """What it is, for the heading of a table."""
        if self.directory is None:
            endpoint = _service(self.url)
            return f"S3 ({endpoint})" if endpoint else "S3"
        mount = mount_of(str(self.directory))
        if mount is None:
            return "a directory"
        if mount.device.startswith("mfs#"):
            return "MooseFS through FUSE"
        return f"a directory on {mount.kind}"

    def objects(self) -> dict[str, ObjectInfo]:
        """
        Everything in it, by name.

        Raises:
            CachepodError: It cannot be read.
        """
        return {info.name: info for part in _PARTS for info in self._store.list(part)}

    @property
    def published(self) -> bool:
        """Whether a snapshot is in it."""
        return next(iter(self._store.list(names.MANIFESTS)), None) is not None

    def stored(self) -> int:
        """Bytes of packs and manifests."""
        kept = (names.PACKS, names.MANIFESTS)
        return sum(info.size for part in kept for info in self._store.list(part))

    def check(self) -> None:
        """
        Write something small, and delete it.

        Raises:
            CachepodError: The store cannot be written to.
        """
        name = f"{names.PROBES}/{'0' * 16}"
        self._store.replace(name, b"a benchmark was here")
        self._store.delete(name)

    def forget(self) -> None:
        """Have the kernel forget what it has read of it, if it is in a directory."""
        if self.directory is not None:
            forget(self.directory)

    def roll_back(self, before: Mapping[str, ObjectInfo]) -> None:
        """Delete what was not there *before*, manifests first."""
        for name in self.objects():
            if name not in before:
                self._store.delete(name)

    def remove(self) -> None:
        """
        Delete all of it.

        Raises:
            CachepodError, OSError: Something could not be deleted.
        """
        if self.directory is not None:
            if self.directory.is_dir():
                shutil.rmtree(self.directory)
            return
        for name in (*self.objects(), TAG_NAME, names.FORMAT_OBJECT):
            self._store.delete(name)
        for leftover in self._store.leftovers():
            self._store.remove(leftover)


def _service(url: str) -> str:
    """Host of the service of the store in S3 at *url*; empty where it is not said."""
    from urllib.parse import urlsplit

    from cachepod.stores.s3url import S3Location

    endpoint = S3Location.parse(url).endpoint or os.environ.get("AWS_ENDPOINT_URL_S3", "")
    host = urlsplit(endpoint).hostname or ""
    return "over loopback" if host in ("127.0.0.1", "localhost", "::1") else host


@contextmanager
def own_stores(url: str, name: str) -> Iterator[str]:
    """
    A place below the store at *url* for stores that are called *name*; its URL.

    In a directory, what was made for it is gone at the end, if it is empty by then.
    """
    root = below(url, name)
    if is_s3(root):
        yield root
        return
    missing = [each for each in (Path(root), *Path(root).parents) if not each.exists()]
    try:
        yield root
    finally:
        for each in missing:
            try:
                each.rmdir()
            except OSError:
                break
