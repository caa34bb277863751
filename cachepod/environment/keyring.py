"""
NVIDIA's apt repository: which of its packages are the toolkit, and the keyring that opens it.

::

    {toolkit_repository}/ubuntu2204/x86_64/cuda-keyring_1.1-1_all.deb

The keyring is a package as well: a key, and a list of sources that names NVIDIA's own host. A
mirror holds the same packages under the same signature, so that for one the list alone is changed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cachepod.environment.download import Unavailable, below, download
from cachepod.environment.settings import TOOLKIT_REPOSITORY
from cachepod.errors import AptFailed, ConfigurationProblem
from cachepod.snapshot.progress import Progress
from cachepod.system.urls import masked, plain

if TYPE_CHECKING:
    from cachepod.environment.config import Settings

PACKAGE = "cuda-keyring"
FILE = f"{PACKAGE}_1.1-1_all.deb"
#: It has some kilobytes; what is larger is something else.
_LARGEST = 1024 * 1024
_AR = b"!<arch>\n"
_TIMEOUT = 60.0  # seconds for dpkg-deb, on a file of a few kilobytes
#: Architectures as dpkg has them, and as NVIDIA does; sbsa are servers with Arm's processors.
_MACHINES = {"amd64": "x86_64", "arm64": "sbsa"}
_RELEASES = {"ubuntu": r"\d\d\.\d\d", "debian": r"\d+"}
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
_LARGEST_INDEX = 128 * 1024 * 1024
_TOOLKIT = re.compile(r"\bno apt package cuda-toolkit-(\d+)-(\d+)\b")
_NAMED = re.compile(r"^Package: cuda-toolkit-(\d+)-(\d+)$", re.MULTILINE)
_SOURCE = re.compile(r"^(deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?)(\S+)", re.MULTILINE)


def folder_of(distribution: str, architecture: str) -> str:
    """
    Where the packages for a system are in the repository: ``ubuntu2204/x86_64``.

    Args:
        distribution: Name and release as os-release has them: ``ubuntu 22.04``.

        architecture: As dpkg has it: ``amd64``.

    Raises:
        AptFailed: There are none.
    """
    name, _, release = distribution.partition(" ")
    machine = _MACHINES.get(architecture)
    if machine is None or not re.fullmatch(_RELEASES.get(name, "(?!)"), release):
        raise AptFailed(
            f"toolkit: NVIDIA has no apt packages for {distribution} on {architecture}",
            hint="take an image of Debian or Ubuntu on amd64 or arm64, or capture a CUDA tree "
            "with toolkit = PATH",
        )
    return f"{name}{release.replace('.', '')}/{machine}"


def fetch_keyring(
    settings: Settings,
    distribution: str,
    architecture: str,
    into: Path,
    progress: Progress,
    root: Path = Path("/"),
) -> Path:
    """
    Bring the keyring's package for a system, made for the repository of the configuration.

    Args:
        distribution: ``ubuntu 22.04``.

        architecture: ``amd64``.

        into: A directory that the file is put into.

        root: Of the system, where its certificates are looked for.

    Raises:
        ConfigurationProblem: The configuration's URL cannot be one of a repository.

        AptFailed: It is not to be had, or what came is something else.
    """
    repository = settings.toolkit_repository.rstrip("/")
    scheme = urlsplit(repository).scheme
    if scheme not in ("http", "https"):
        raise ConfigurationProblem(
            settings.source("toolkit_repository"),
            f"toolkit_repository: {masked(repository)} is not a http or https URL",
        )
    if scheme == "https" and not (root / _CERTIFICATES).is_file():
        raise AptFailed(
            "toolkit: this image lacks the certificates without which apt trusts no https server",
            hint="put the package ca-certificates into the image",
        )
    folder = folder_of(distribution, architecture)
    url = below(f"{repository}/{folder}", FILE)
    file = into / FILE
    _download(url, file, folder, progress)
    _check(file, url)
    _address(file, f"{plain(repository)}/{folder}/")
    return file


def _download(url: str, file: Path, folder: str, progress: Progress) -> None:
    progress.status("NVIDIA's keyring")

    def sized(length: int) -> None:
        if length > _LARGEST:
            raise Unavailable(f"{length} bytes are too many for it")

    received = 0

    def counted(length: int) -> None:
        nonlocal received
        received += length
        sized(received)

    try:
        with open(file, "wb") as target:
            download(url, target, sized=sized, counted=counted)
    except Unavailable as problem:
        instead = (
            "name a mirror with toolkit_repository, or capture a CUDA tree with toolkit = PATH"
        )
        if problem.why.startswith("404"):
            instead = f"NVIDIA may have no packages for {folder}; {instead}"
        raise AptFailed(
            f"toolkit: {masked(url)} is not to be had: {problem.why}",
            hint=instead,
        ) from None


def _check(file: Path, url: str) -> None:
    """Whether *file* is the keyring's package and whole: dpkg-deb reads all of it."""
    with open(file, "rb") as opened:
        head = opened.read(len(_AR))
    name = _dpkg_deb("--field", file, "Package").strip() if head == _AR else ""
    whole = name == PACKAGE and bool(_dpkg_deb("--contents", file))
    if not whole:
        raise AptFailed(
            f"toolkit: {masked(url)} is not the package {PACKAGE}"
            + (f" but {name}" if name and name != PACKAGE else ""),
            hint="see whether a proxy answers in NVIDIA's place",
        )


def _dpkg_deb(*words: str | Path) -> str:
    """What dpkg-deb says; empty where it fails."""
    try:
        done = subprocess.run(
            ["dpkg-deb", *words],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout or " "


def _address(file: Path, url: str) -> None:
    """
    Let the list of sources in the keyring's package name *url*, if it names another.

    Credentials are not in it, for it becomes part of a snapshot: apt has them of auth.conf.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as work:
        tree = Path(work) / "tree"
        if not _dpkg_deb("--raw-extract", file, tree):
            raise AptFailed(f"toolkit: the package {PACKAGE} cannot be unpacked")
        changed = False
        for sources in sorted(tree.glob("etc/apt/sources.list.d/*.list")):
            before = sources.read_text("utf-8")
            after = _SOURCE.sub(lambda match: match[1] + url, before)
            if after != before:
                changed = True
                told = sources.stat()
                sources.write_text(after, "utf-8")
                os.utime(sources, ns=(told.st_mtime_ns, told.st_mtime_ns))
        if not changed:
            return
        _sum_again(tree)
        if not _dpkg_deb("--root-owner-group", "-Zgzip", "--build", tree, file):
            raise AptFailed(f"toolkit: the package {PACKAGE} cannot be made for {url}")


def _sum_again(tree: Path) -> None:
    """Write the checksums of an unpacked package anew, if it has any."""
    sums = tree / "DEBIAN" / "md5sums"
    if not sums.is_file():
        return
    lines = []
    for line in sums.read_text("utf-8").splitlines():
        name = line[34:]
        digest = hashlib.md5((tree / name).read_bytes(), usedforsecurity=False).hexdigest()
        lines.append(f"{digest}  {name}\n")
    sums.write_text("".join(lines), "utf-8")


def explained(
    settings: Settings, distribution: str, architecture: str, error: AptFailed
) -> AptFailed:
    """
    *error*, and the CUDA releases that there are where it says that one is not.

    Args:
        distribution: ``ubuntu 22.04``.

        architecture: ``amd64``.
    """
    asked = _TOOLKIT.search(error.message)
    if asked is None:
        return error
    folder = folder_of(distribution, architecture)
    found = _releases(below(f"{settings.toolkit_repository.rstrip('/')}/{folder}", "Packages.gz"))
    release = f"{asked[1]}.{asked[2]}"
    if not found or release in found:
        return error
    return AptFailed(
        f"toolkit: NVIDIA has no CUDA {release} for {folder}: {error.message}",
        output=error.output,
        hint=f"it has {', '.join(found)}",
    )


def _releases(url: str) -> list[str]:
    """The toolkits that an index of packages has, the oldest first; none if it cannot be read."""
    held = io.BytesIO()

    def counted(_: int) -> None:
        if held.tell() > _LARGEST_INDEX:
            raise Unavailable("it is too large for an index")

    try:
        download(url, held, sized=lambda length: None, counted=counted)
        held.seek(0)
        with gzip.open(held) as opened:
            text = opened.read(_LARGEST_INDEX).decode("utf-8", "replace")
    except (Unavailable, OSError, EOFError, zlib.error):
        return []
    pairs = {(int(match[1]), int(match[2])) for match in _NAMED.finditer(text)}
    return [f"{major}.{minor}" for major, minor in sorted(pairs)]


def is_nvidias(settings: Settings) -> bool:
    """Whether the repository of the configuration is NVIDIA's own, and no mirror."""
    return settings.toolkit_repository.rstrip("/") == TOOLKIT_REPOSITORY
