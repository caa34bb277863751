"""
Make around a CUDA tree that was restored what its own packages make there.

Links to it and the dynamic linker's files, as the snapshot tells them. Each is made in one step,
and what is in place already is left alone, so that a start that was killed is made good by the
next one. What is something else's stays as it is, and is named.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment.cudatree import LINKER, leads_to, lines_of, told_around
from cachepod.environment.toolkit import (
    CACHE,
    ETC,
    captured,
    libraries_of,
    linker_knows,
    stays,
)
from cachepod.model.surroundings import Surroundings
from cachepod.snapshot.progress import Progress

if TYPE_CHECKING:
    from cachepod.environment.config import Settings

_TIMEOUT = 120.0  # seconds; on a cold disk it reads the head of every library
_LDCONFIG = ("/sbin/ldconfig", "/usr/sbin/ldconfig")


def settle(settings: Settings, progress: Progress, *, fresh: bool, etc: Path = ETC) -> None:
    """
    Make what is to lie around the CUDA tree that a restore has brought, or has found in place.

    Nothing of it is an error: by the variables alone programs find the toolkit.

    Args:
        progress: Told of what could not be done.

        fresh: The tree is new, so that the dynamic linker has not seen its libraries.

        etc: Where the dynamic linker's files are.
    """
    place = captured(settings)
    if place is None or stays(settings):
        return
    around = told_around(place)
    if around is not None:
        _Settling(place, etc, progress).make(around, fresh)


class _Settling:
    """
    What is made around one tree.

    Args:
        place: Where the tree is.

        etc: Where the dynamic linker's files are.
    """

    def __init__(self, place: Path, etc: Path, progress: Progress) -> None:
        self._place = place
        self._etc = etc
        self._progress = progress
        self._denied: list[str] = []

    def make(self, around: Surroundings, fresh: bool) -> None:
        links = [
            name for name, absolute in sorted(around.links.items()) if self._link(name, absolute)
        ]
        changed = False
        for name, directories in sorted(around.linker.items()):
            # A link that leads elsewhere is somebody else's, and so is what it leads to.
            known = [each for each in directories if each.partition("/")[0] in (".", *links)]
            changed = self._configure(name, known) or changed
        libraries = libraries_of(self._place)
        if around.linker and libraries is not None and not self._denied:
            seen = linker_knows(libraries, self._etc)
            if fresh or changed or not seen:
                self._ldconfig()
        if self._denied:
            self._progress.note(
                f"{', '.join(self._denied)} cannot be written here: what cachepod starts finds the "
                "CUDA toolkit by its variables, other programs may not"
            )

    def _link(self, name: str, absolute: bool) -> bool:
        """Whether there is a link of this name to the tree, made now or before."""
        link = self._place.parent / name
        try:
            os.symlink(self._place if absolute else self._place.name, link)
        except FileExistsError:
            if leads_to(link, self._place):
                return True
            other = f"a link to {os.readlink(link)}" if link.is_symlink() else "no link"
            self._progress.note(f"{link} is {other} and stays so; the toolkit is {self._place}")
            return False
        except OSError:
            self._denied.append(str(link))
            return False
        return True

    def _configure(self, name: str, directories: list[str]) -> bool:
        """Whether the dynamic linker's file *name* had to be written to list *directories*."""
        file = self._etc / LINKER / name
        wanted = [self._path(each) for each in directories]
        found = lines_of(file)
        if set(wanted) <= set(found):
            return False
        if os.path.lexists(file) and not (file.is_file() and all(map(self._is_ours, found))):
            self._progress.note(f"{file} lists other directories and stays as it is")
            return False
        temporary = file.with_name(f".{name}.{os.getpid()}")
        try:
            file.parent.mkdir(exist_ok=True)
            temporary.write_bytes(os.fsencode("".join(f"{line}\n" for line in wanted)))
            os.chmod(temporary, 0o644)
            os.replace(temporary, file)
        except OSError:
            temporary.unlink(missing_ok=True)
            self._denied.append(str(file))
            return False
        return True

    def _path(self, directory: str) -> str:
        first, slash, rest = directory.partition("/")
        name = self._place.name if first == "." else first
        return str(self._place.parent / name) + slash + rest

    def _is_ours(self, line: str) -> bool:
        """Whether a line that a file of the linker's has already is about this tree."""
        real, place = os.path.realpath(line), os.path.realpath(self._place)
        return real == place or real.startswith(place + "/")

    def _ldconfig(self) -> None:
        """
        Let the dynamic linker see the libraries.

        ``-X``: without making links in the tree, which is what the snapshot says.
        """
        if not os.access(self._etc, os.W_OK):
            self._denied.append(str(self._etc / CACHE))
            return
        program = next((name for name in _LDCONFIG if os.access(name, os.X_OK)), None)
        if program is None:
            self._progress.note("there is no ldconfig: the CUDA libraries are found by variable")
            return
        files = ["-C", str(self._etc / CACHE), "-f", str(self._etc / "ld.so.conf")]
        try:
            done = subprocess.run(
                [program, "-X", *([] if self._etc == ETC else files)],
                capture_output=True,
                check=False,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
            )
            said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
            why = said[-1] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        if why:
            self._progress.note(f"ldconfig does not see the CUDA libraries: {why}")
