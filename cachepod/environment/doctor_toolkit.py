"""What ``cachepod doctor`` says of the CUDA toolkit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from cachepod.environment.config import Settings
from cachepod.environment.cudatree import check_tree, release_of
from cachepod.environment.diagnosis import Check, Severity, failed
from cachepod.environment.toolkit import ETC, libraries_of, linker_knows, place_of, stays
from cachepod.errors import ConfigurationProblem

_ABOUT = "toolkit"


def examine_toolkit(
    settings: Settings, environ: Mapping[str, str], etc: Path = ETC
) -> Iterator[Check]:
    """
    Whether it is there, of which release, and whether programs find what they need beside it.

    Args:
        etc: Where the dynamic linker's files are.
    """
    place = place_of(settings)
    if place is None:
        return
    if not place.is_dir():
        yield Check(_ABOUT, "directory", f"{place} does not exist", _how(settings), Severity.NOTE)
        return
    try:
        check_tree(settings)
    except ConfigurationProblem as error:
        yield failed(_ABOUT, "directory", error)
        return
    if settings.toolkit is True:
        whose = "apt installed it, here or where the snapshot was made"
    elif stays(settings):
        whose = "it is this image's own: it is published, and no restore replaces it"
    else:
        whose = "cachepod brought it"
    yield Check(_ABOUT, "directory", f"{place}, {release_of(place) or 'no release'}", whose)
    libraries = libraries_of(place)
    if libraries is not None:
        known = linker_knows(libraries, etc)
        yield Check(
            _ABOUT,
            "libraries",
            f"{libraries}",
            "every program finds them"
            if known
            else "only commands that cachepod starts find them, by LD_LIBRARY_PATH",
            Severity.OK if known else Severity.NOTE,
        )
    compiler = shutil.which("g++", path=environ.get("PATH", os.defpath))
    if compiler is None:
        yield Check(
            _ABOUT, "compiler", "there is no g++", "nvcc needs one: apt has it", Severity.WARNING
        )


def _how(settings: Settings) -> str:
    if settings.toolkit is True:
        return "an install has apt bring it, a restore the snapshot of that"
    return "a restore brings it, if a machine that has it has published; no install can make it"
