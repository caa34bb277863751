"""
Where the CUDA toolkit of a configuration lies, and the variables by which programs find it.

``toolkit = true`` is a part of the apt layer, see keyring.py; a path is a tree that a snapshot
holds as ``cuda``, see cudatree.py. What is here every start of a worker needs; it imports neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.snapshot.stamp import NOT_CONTENT, has_stamp

if TYPE_CHECKING:
    from cachepod.environment.config import Settings

#: Where NVIDIA's packages put it; ``cuda`` there is a link to the one that was chosen.
_USUAL = Path("/usr/local")
ETC = Path("/etc")
CACHE = "ld.so.cache"
_CACHE_LIMIT = 64 * 1024 * 1024


def captured(settings: Settings) -> Path | None:
    """The directory that a snapshot holds as the tree ``cuda``; None where there is to be none."""
    return settings.toolkit if isinstance(settings.toolkit, Path) else None


def stays(settings: Settings) -> bool:
    """
    Whether there is a CUDA tree that cachepod did not bring: the image's own.

    It is what was asked for, and no restore replaces it.
    """
    place = captured(settings)
    if place is None or has_stamp(place):
        return False
    try:
        return any(name not in NOT_CONTENT for name in os.listdir(place))
    except OSError:
        return False


def cannot_be_made(settings: Settings) -> bool:
    """Whether the tree is not there, and this user may not make its directory."""
    place = captured(settings)
    if place is None or os.path.lexists(place):
        return False
    above = next(each for each in place.parents if os.path.lexists(each))
    return not os.access(above, os.W_OK | os.X_OK)


def goes_without(settings: Settings) -> bool:
    """Whether what is lacking of the toolkit is to keep nothing else from starting."""
    return settings.apt_missing == "warning"


def place_of(settings: Settings) -> Path | None:
    """Where the toolkit lies, or is to lie; None where none was asked for."""
    place = captured(settings)
    if place is not None or not settings.toolkit:
        return place
    return _USUAL / (f"cuda-{settings.cuda}" if settings.cuda else "cuda")


def with_toolkit(settings: Settings, environ: Mapping[str, str], etc: Path = ETC) -> dict[str, str]:
    """
    *environ*, and in it what a program needs to find the toolkit, if it is there.

    ``CUDA_HOME``, its ``bin`` first on the ``PATH``, and, where the dynamic linker does not know
    its libraries, their directory last in ``LD_LIBRARY_PATH``.

    Args:
        etc: Where the dynamic linker's files are.
    """
    made = dict(environ)
    place = place_of(settings)
    if place is None or not place.is_dir():
        return made
    made["CUDA_HOME"] = str(place)
    path = environ.get("PATH", os.defpath)
    made["PATH"] = os.pathsep.join([str(place / "bin"), path])
    libraries = libraries_of(place)
    if libraries is not None and not linker_knows(libraries, etc):
        before = environ.get("LD_LIBRARY_PATH", "")
        # Last: an environment's own libraries come before those of a toolkit beside it.
        made["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [before, str(libraries)]))
    return made


def package_of(cuda: str) -> str:
    """The apt package that is the toolkit of the release *cuda*: ``cuda-toolkit-12-6``."""
    return f"cuda-toolkit-{cuda.replace('.', '-')}"


def libraries_of(place: Path) -> Path | None:
    """The directory of the libraries of the toolkit at *place*; None where it has none."""
    for name in ("lib64", "lib"):
        if (place / name).is_dir():
            return place / name
    return None


def linker_knows(libraries: Path, etc: Path = ETC) -> bool:
    """
    Whether the dynamic linker finds what lies in *libraries*, by its cache.

    Source: ld.so.cache ends with the paths that its entries name, each closed by a NUL.
    """
    try:
        with open(etc / CACHE, "rb") as file:
            data = file.read(_CACHE_LIMIT)
    except OSError:
        return False
    wanted = os.path.realpath(os.fsencode(libraries))
    found = {os.path.dirname(each) for each in data.split(b"\0") if each.startswith(b"/")}
    return any(os.path.realpath(each) == wanted for each in found)
