"""
The apt layer, as the rest of cachepod sees it: install, capture, apply.

Packages are installed once, by apt itself. What that added to the file system and to dpkg's
database is captured as an ordinary tree at :func:`place`, which is published and restored as any
other. In a new container of the same base it is *applied*: merged into the root as if apt had run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cachepod.errors import CachepodError
from cachepod.snapshot.progress import Progress
from cachepod.system.base import installed, missing_of
from cachepod.system.record import TREE, Progressed, place, read_record

__all__ = [
    "TREE",
    "ApplyReport",
    "LayerReport",
    "applied",
    "apply",
    "install",
    "missing",
    "place",
]


@dataclass(frozen=True)
class LayerReport:
    """
    What an installation did.

    Args:
        outcome: ``installed``, or ``present`` if everything was there already.

        packages: Those that are new or of another version: name to version.

        files: Files and links that the tree holds.

        size: Their bytes.

        publishable: Whether the tree at :func:`place` is exactly what a new container of the
            same base needs for what was asked.

        why: Why it is not, in words; empty where it is.

        phases: Seconds of each.

        warnings: What a user should know.
    """

    outcome: str
    packages: Mapping[str, str] = field(default_factory=dict)
    files: int = 0
    size: int = 0
    publishable: bool = True
    why: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApplyReport:
    """
    What an apply did.

    Args:
        outcome: ``applied``, or ``confirmed`` if the layer was in place.

        packages: How many packages the layer has.

        files: Files and links that were put in place.

        size: Their bytes.

        phases: Seconds of each.

        notes: What a user should know: files of his that stayed, set-uid bits that were dropped.
    """

    outcome: str
    packages: int = 0
    files: int = 0
    size: int = 0
    phases: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def install(
    packages: Sequence[str],
    *,
    debs: Sequence[Path] = (),
    root: Path = Path("/"),
    exclude: Sequence[Path] = (),
    key: str = "",
    min_free: float = 0.0,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> LayerReport:
    """
    Install *packages* with apt, and capture what came of it into :func:`place`.

    An installation that was killed is taken up where it was. One that fails leaves what dpkg has
    done so far, as apt itself does, and the next one captures it.

    Args:
        packages: Names, ``NAME`` or ``NAME=VERSION``.

        debs: Package files that are installed first, such as the keyring of a repository.

        root: Installed into; another one than ``/`` needs apt and dpkg in it.

        exclude: Directories that are none of apt's business, such as the prefix.

        key: What the tree is made for, for its stamp.

        min_free: Share of the file system that must stay free.

        environ: The environment of apt; proxies are taken from it.

    Raises:
        NotRoot: This process is not root's.

        UsageProblem: A name that no package can have.

        DriverPackage: One of *packages* is, or needs, a driver of the GPU: nothing was installed.

        AptFailed: apt could not, in its own words: a mirror that is down, an unknown package.

        AptLocked: Another process has held the lock for too long.

        NotEnoughSpace, SpaceExhausted: Known before the download, and while writing.

        TreeUnreadable: The file system cannot be read.
    """
    from cachepod.system import install as installing

    return installing.install(
        packages,
        debs=debs,
        root=root,
        exclude=exclude,
        key=key,
        min_free=min_free,
        progress=progress,
        environ=environ,
    )


def apply(
    root: Path = Path("/"), *, trusted: bool = False, progress: Progress | None = None
) -> ApplyReport:
    """
    Merge what :func:`place` holds into *root*; nothing to do where it is merged.

    Killed at any moment, the next one completes it.

    Args:
        trusted: Whether set-uid and set-gid bits and capabilities are given: somebody who is
            trusted vouches for the tree.

    Raises:
        NotRoot: This process may not.

        BaseDiffers: The layer is for another base.

        AptLocked: Another process has held dpkg's lock for too long.

        NewerFormat: A later cachepod made the layer.

        TreeUnreadable: The tree is no layer, or one that no cachepod makes.

        PlaceTaken: What the container has, a mount or a link, is in the way, or cannot be written.

        NotEnoughSpace, SpaceExhausted: As they say; a later apply completes it.
    """
    from cachepod.system import apply as applying

    return applying.apply(root, trusted=trusted, progress=progress)


def applied(root: Path = Path("/")) -> bool:
    """Whether what :func:`place` holds is merged into *root* and still there."""
    from cachepod.system.metadata import decode, digest_of, read_metadata

    record = read_record(root)
    if record is None or record.state is not Progressed.IN_PLACE or not record.layer:
        return False
    try:
        data = read_metadata(place(root))
        if digest_of(data) != record.layer:
            return False
        wanted = decode(data, "").packages
    except CachepodError:
        return False
    found = installed(root)
    here = {} if found is None else found.versions
    return all(here.get(name) == version for name, version in wanted.items())


def missing(packages: Sequence[str], root: Path = Path("/")) -> list[str]:
    """Those of *packages* (``NAME``, ``NAME=VERSION``) that dpkg does not have installed."""
    return missing_of(packages, installed(root))
