"""
A CUDA tree that is captured, and what its own packages made around it.

Beside the tree there are links to it (``/usr/local/cuda``), and the dynamic linker has files that
list its libraries (``/etc/ld.so.conf.d``). Both are noted in the snapshot, for around.py to make.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment.toolkit import ETC, cannot_be_made, captured
from cachepod.errors import ConfigurationProblem, ToolkitMissing
from cachepod.model.surroundings import Surroundings, is_link_name, is_linker_file, is_piece
from cachepod.snapshot.held import held_summary
from cachepod.snapshot.stamp import CUDA_TREE

if TYPE_CHECKING:
    from cachepod.environment.config import Settings

LINKER = "ld.so.conf.d"
_LIMIT = 1024 * 1024
_MARKS = ("bin/nvcc", "include/cuda.h", "version.json", "version.txt")
_NVCC = re.compile(r"\bV(\d+\.\d+\.\d+)\b")
_HEADER = re.compile(r"^\s*#\s*define\s+CUDA_VERSION\s+(\d{4,6})\b", re.MULTILINE)


def check_tree(settings: Settings) -> None:
    """
    Whether the CUDA tree that the configuration names is there, before anything is downloaded.

    Raises:
        ToolkitMissing: It is not.

        ConfigurationProblem: It is something else.
    """
    place = captured(settings)
    if place is None:
        return
    where = settings.source("toolkit")
    if place.is_symlink():
        raise ConfigurationProblem(
            where,
            f"toolkit: {place} is a link to {os.path.realpath(place)}",
            hint="name the tree itself: the links to it are restored with it",
        )
    check_place(settings)
    if not place.is_dir():
        raise ToolkitMissing(
            where,
            f"toolkit: there is no CUDA tree at {place}, and no snapshot has brought one",
            hint="publish once from a machine that has it, or let apt install one: toolkit = true",
        )
    if not any(os.path.lexists(place / mark) for mark in _MARKS):
        raise ConfigurationProblem(
            where,
            f"toolkit: {place} is not a CUDA tree, there is neither nvcc nor cuda.h in it",
            hint="name the directory that holds bin/nvcc",
        )


def check_place(settings: Settings) -> None:
    """
    Whether a restore can bring the tree.

    Raises:
        ToolkitMissing: It is not there, and this user may not make it.
    """
    if cannot_be_made(settings):
        raise ToolkitMissing(
            settings.source("toolkit"),
            f"toolkit: this user may not make {captured(settings)}",
            hint="run the container as root, name a place that its user may write to, or put the "
            "toolkit into the image",
        )


def release_of(place: Path) -> str:
    """The release of the toolkit at *place*, ``13.0.88`` or ``13.0``; empty where it says none."""
    try:
        told = json.loads((place / "version.json").read_text("utf-8"))
        return str(told["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with contextlib.suppress(OSError):
        match = re.search(
            r"(\d+\.\d+(\.\d+)?)", (place / "version.txt").read_text("utf-8", "replace")
        )
        if match:
            return match[1]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            [place / "bin" / "nvcc", "--version"],
            capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        match = _NVCC.search(answer.stdout)
        if match:
            return match[1]
    with contextlib.suppress(OSError):
        match = _HEADER.search((place / "include" / "cuda.h").read_text("utf-8", "replace"))
        if match:
            return f"{int(match[1]) // 1000}.{int(match[1]) % 1000 // 10}"
    return ""


def told_around(place: Path) -> Surroundings | None:
    """What lies around the tree at *place* by the snapshot that it came from; None if from none."""
    summary = held_summary(place)
    trees = summary.trees if summary is not None else ()
    return next((tree.around for tree in trees if tree.name == CUDA_TREE), None)


def around_of(place: Path, etc: Path = ETC) -> Surroundings:
    """
    What lies around the CUDA tree at *place*.

    Args:
        etc: Where the dynamic linker's files are.
    """
    links = {
        name: os.readlink(place.parent / name).startswith("/")
        for name in names_in(place.parent)
        if is_link_name(name) and leads_to(place.parent / name, place)
    }
    linker: dict[str, tuple[str, ...]] = {}
    for name in names_in(etc / LINKER):
        if is_linker_file(name):
            lines = lines_of(etc / LINKER / name)
            ours = [_seen_from_outside(line, place, links) for line in lines]
            if any(ours):
                linker[name] = tuple(filter(None, ours))
    return Surroundings(links, linker, release_of(place))


def names_in(directory: Path) -> list[str]:
    """What lies in *directory*, sorted; nothing where there is none."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def leads_to(link: Path, place: Path) -> bool:
    """Whether *link* is a symbolic link that ends at *place*."""
    return link.is_symlink() and os.path.realpath(link) == os.path.realpath(place)


def lines_of(file: Path) -> list[str]:
    """
    The directories that a file of the dynamic linker's lists.

    Source: ldconfig(8); what follows a ``#`` is a comment.
    """
    try:
        with open(file, "rb") as opened:
            text = os.fsdecode(opened.read(_LIMIT))
    except OSError:
        return []
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _seen_from_outside(line: str, place: Path, links: Mapping[str, bool]) -> str:
    """*line* as :class:`.Surroundings` tells it; empty where it does not lie in the tree."""
    for first, name in ((".", place.name), *((name, name) for name in links)):
        above = str(place.parent / name)
        if line == above or line.startswith(above + "/"):
            pieces = [piece for piece in line[len(above) :].split("/") if piece]
            return "/".join([first, *pieces]) if all(map(is_piece, pieces)) else ""
    return ""
