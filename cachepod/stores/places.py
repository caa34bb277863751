"""Whether two URLs name one store, however they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from cachepod.errors import UsageProblem
from cachepod.stores.url import directory_of

_PORTS = {"http": 80, "https": 443}


def check_apart(urls: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
    """
    Refuse *urls* of which two name one store.

    Two of a directory are one also through symbolic links, bind mounts, ``file://`` and slashes at
    the end; two of S3 with one endpoint, bucket and prefix, whatever else they say. That a volume
    is mounted and has an S3 service as well is not noticed.

    Args:
        urls: As a user gives them.

        environ: May name the endpoint of S3, as boto3 reads it.

    Raises:
        UsageProblem: Two are the same place, or one names no store.
    """
    if len(urls) < 2:
        return
    seen: dict[object, str] = {}
    for url in urls:
        for mark in _marks(url, environ):
            if mark in seen:
                one, other = _shown(seen[mark]), _shown(url)
                same = f"the store {one} is given twice"
                raise UsageProblem(
                    same if one == other else f"{one} and {other} are the same store",
                    hint="name each store once",
                )
        for mark in _marks(url, environ):
            seen[mark] = url


def apart_from(urls: Sequence[str], others: Sequence[str]) -> list[int]:
    """Places in *urls* of those that name none of the stores that *others* name."""
    taken = {mark for url in others for mark in _marks(url, os.environ)}
    return [
        place for place, url in enumerate(urls) if not taken.intersection(_marks(url, os.environ))
    ]


def _marks(url: str, environ: Mapping[str, str]) -> list[object]:
    """What another URL of the same store has as well."""
    if url.lower().startswith("s3://"):
        return [_s3_place(url, environ)]
    directory = os.path.realpath(directory_of(url))
    try:
        status = os.stat(directory)
    except OSError:
        return [directory]
    return [directory, (status.st_dev, status.st_ino)]


def _s3_place(url: str, environ: Mapping[str, str]) -> tuple[str, str, str]:
    parts = urlsplit(url)
    endpoint = (
        parse_qs(parts.query).get("endpoint", [""])[-1]
        or environ.get("AWS_ENDPOINT_URL_S3", "")
        or environ.get("AWS_ENDPOINT_URL", "")
    )
    return _service(endpoint), parts.netloc.rpartition("@")[2], unquote(parts.path).strip("/")


def _service(endpoint: str) -> str:
    """*endpoint* in one way of writing it; empty is AWS itself."""
    if not endpoint:
        return ""
    if "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    try:
        parts = urlsplit(endpoint)
        port = parts.port or _PORTS.get(parts.scheme.lower(), 0)
    except ValueError:
        return endpoint
    return f"{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}"


def _shown(url: str) -> str:
    """*url* without what might be a secret."""
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"
