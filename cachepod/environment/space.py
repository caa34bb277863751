"""
How much room an installation takes, known before the first package is downloaded.

A lock in the form of PEP 751 (``pylock.toml``) lists the wheels and their sizes. What they
unpack to was measured on a stack of a hundred packages (torch 2.7 with CUDA 12.6, transformers,
librosa and what they need, 3.3 GB of wheels, 6.4 GB on ext4 with bytecode): 1.4 to 2.0 times for
wheels over 100 MB (3.6 for one of them; 1.75 together), 1.6 to 4.5 for smaller ones with
compiled modules, 4 to 8 with bytecode for pure Python. The factors below make it 7.1 GB.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cachepod.environment.distributions import normal_name
from cachepod.errors import NotEnoughSpace, human_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HUGE = 100_000_000
_FACTOR_HUGE = 2.0
_FACTOR_COMPILED = 3.5
_FACTOR_PURE = 7.0
_FACTOR_SOURCE = 12.0  # and the build's own files
_ASK_TIMEOUT = 5.0  # seconds for the size of one wheel whose index does not tell it


@dataclass(frozen=True)
class Artifact:
    """
    The file that one package is installed from.

    Args:
        name: The package, normalised.

        version: Its version, empty where the lock has none.

        url: Where the file is, empty for a local project.

        size: Its size in bytes, 0 where unknown.

        kind: ``wheel``, ``source`` (a release without a fitting wheel) or ``project`` (a
            directory or a repository).
    """

    name: str
    version: str
    url: str
    size: int
    kind: str

    @property
    def unpacked(self) -> int:
        """Bytes on disk when installed, bytecode included: an estimate."""
        if self.kind != "wheel":
            factor = _FACTOR_SOURCE
        elif self.size >= _HUGE:
            factor = _FACTOR_HUGE
        elif "-none-any" in self.url:
            factor = _FACTOR_PURE
        else:
            factor = _FACTOR_COMPILED
        return int(self.size * factor)


def read_artifacts(lock: Path) -> list[Artifact]:
    """
    What the packages of *lock*, a ``pylock.toml``, are installed from.

    Of several wheels of a package the biggest counts.

    Raises:
        ValueError: It is not such a file.
    """
    with open(lock, "rb") as file:
        document = tomllib.load(file)
    packages = document.get("packages", [])
    if not isinstance(packages, list):
        raise ValueError("packages is not a list")
    return [_artifact(package) for package in packages if isinstance(package, dict)]


def _artifact(package: Mapping[str, Any]) -> Artifact:
    name = normal_name(str(package.get("name", "")))
    version = str(package.get("version", ""))
    archive = package.get("archive")
    candidates = [(wheel, "wheel") for wheel in package.get("wheels") or ()]
    if isinstance(archive, dict):
        kind = "wheel" if _url(archive).endswith(".whl") else "source"
        candidates = [(archive, kind)]
    if not candidates and isinstance(package.get("sdist"), dict):
        candidates = [(package["sdist"], "source")]
    found = [Artifact(name, version, _url(file), _size(file), kind) for file, kind in candidates]
    if not found:
        return Artifact(name, version, "", 0, "project")
    return max(found, key=lambda artifact: artifact.size)


def _url(file: Mapping[str, Any]) -> str:
    return str(file.get("url") or file.get("path") or "").partition("#")[0]


def _size(file: Mapping[str, Any]) -> int:
    size = file.get("size")
    return size if isinstance(size, int) else 0


def with_sizes(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """*artifacts*, the disk or the servers asked for the sizes that the index did not tell."""
    unknown = [artifact for artifact in artifacts if artifact.url and not artifact.size]
    if not unknown:
        return list(artifacts)
    with ThreadPoolExecutor(8) as pool:
        sizes = dict(zip([a.url for a in unknown], pool.map(_ask, unknown), strict=True))
    return [
        Artifact(a.name, a.version, a.url, a.size or sizes.get(a.url, 0), a.kind) for a in artifacts
    ]


def _ask(artifact: Artifact) -> int:
    """The size of one file; 0 if it cannot be had, for this is no more than a courtesy."""
    url = urlsplit(artifact.url)
    try:
        if url.scheme in ("", "file"):
            return os.stat(unquote(url.path)).st_size
        request = urllib.request.Request(artifact.url, method="HEAD")
        with urllib.request.urlopen(request, timeout=_ASK_TIMEOUT) as answer:
            return int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError):
        return 0


def missing(artifacts: Collection[Artifact], installed: Mapping[str, str]) -> Iterator[Artifact]:
    """Those of *artifacts* that *installed* (name to version) does not hold already."""
    for artifact in artifacts:
        if not artifact.version or installed.get(artifact.name) != artifact.version:
            yield artifact


def check_space(path: Path, needed: int, min_free: float) -> None:
    """
    Refuse to begin what would leave too little room.

    Args:
        path: An existing directory on the file system.

        needed: Bytes that will be written.

        min_free: The part of the file system that must stay free.

    Raises:
        NotEnoughSpace: It would.
    """
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    reserve = int(status.f_blocks * status.f_frsize * min_free)
    if needed + reserve > free:
        raise NotEnoughSpace(
            str(path),
            needed,
            max(0, free - reserve),
            hint=f"beside {human_bytes(reserve)} that are kept free (min_free = {min_free:g})",
        )
