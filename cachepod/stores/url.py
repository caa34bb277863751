"""From what a user writes to a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cachepod.errors import UsageProblem
from cachepod.stores.base import PruneStore
from cachepod.stores.local import LocalStore
from cachepod.stores.mounts import mount_at, mounts
from cachepod.stores.wrappers import Patience, Retrying

_FORMS = "give a directory, file:///directory or s3://bucket/prefix"
VOLUMES = ("/runpod-volume", "/workspace")


def open_store(url: str, *, direct: bool = True) -> PruneStore:
    """
    The store that *url* names; nothing is read or written yet.

    Args:
        url: A directory, absolute or from the working directory on, ``file:///directory``, or
            ``s3://bucket/prefix``.

        direct: Whether packs on a network volume are read past the page cache.

    Raises:
        UsageProblem: It names no store that this version knows.
    """
    if is_s3(url):
        # Here, for a store in a directory needs nothing of it.
        from cachepod.stores.s3 import S3Store
        from cachepod.stores.s3url import S3Location

        location = S3Location.parse(url)
        patience = Patience(attempts=location.retries + 1, delay=0.2, longest=5.0)
        return Retrying(S3Store(location, patience), patience)
    return Retrying(LocalStore(directory_of(url), direct=direct))


def is_s3(url: str) -> bool:
    """Whether *url* names a store in a S3 service."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme.lower() == "s3"


def directory_of(url: str) -> Path:
    """
    The absolute directory that *url* names.

    Raises:
        UsageProblem: It names none.
    """
    if not url or "\0" in url:
        raise UsageProblem(f"{url!r} is not a store", hint=_FORMS)
    scheme, separator, _ = url.partition("://")
    if not separator:
        return Path(os.path.abspath(os.path.expanduser(url)))
    if scheme.lower() != "file":
        raise UsageProblem(
            f"{url}: no kind of store is called {scheme}://",
            hint=_FORMS,
        )
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path:
        raise UsageProblem(
            f"{url} is not of the form file:///directory",
            hint="three slashes; write ? and # in a name as %3F and %23",
        )
    directory = unquote(parts.path)
    if "\0" in directory:
        raise UsageProblem(f"{url!r} is not a store", hint=_FORMS)
    return Path(os.path.abspath(directory))


def default_store_url(environ: Mapping[str, str]) -> str:
    """
    The store where none is configured: on a mounted volume if there is one.

    The table of mounts decides, for the environment variables that announce a volume are not
    always set, and the directory exists in many an image without a volume on it.

    Args:
        environ: The environment's variables.

    Raises:
        UsageProblem: There is no volume and no home directory either.
    """
    table = mounts()
    for volume in VOLUMES:
        if mount_at(volume, table):
            return f"{volume}/cachepod"
    cache = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # as the XDG base directory specification asks for
        home = environ.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):
            raise UsageProblem(
                "there is no volume and no home directory to keep snapshots in",
                hint="name a directory with --store or CACHEPOD_STORE",
            )
        cache = os.path.join(home, ".cache")
    return os.path.join(cache, "cachepod", "store")
