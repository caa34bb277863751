"""
What is wanted of flash-attn, and what that takes out of the requirements.

Its index has source releases alone, which take hours to compile: a line of requirements about it
is no order to do so. Such a line is taken out and becomes a plan, which flash_attn.py carries out
after the packages are installed. Only what the key needs is here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment.requirement import Requirement
from cachepod.environment.requirements import Requirements
from cachepod.errors import ConfigurationProblem

if TYPE_CHECKING:
    from cachepod.environment.config import Settings

NAME = "flash-attn"
MODULE = "flash_attn"
#: What it needs besides torch, which it is installed without.
NEEDS = "einops"

_WHEEL = r"\.whl(?=$|[?#\s\[])"
_HASH = r"--hash=(\S+)"


@dataclass(frozen=True)
class Plan:
    """
    What is wanted.

    Args:
        versions: The first choice first.

        source: A line of requirements to build it from; empty for a release of the index.

        hashes: ``sha256:...``; a wheel must have one of them. Empty if any will do.

        build: Whether it may be built from source.

        optional: Whether an environment without it is good as well.

        where: Who asked for it.
    """

    versions: tuple[str, ...]
    source: str = field(default="", repr=False)
    hashes: tuple[str, ...] = ()
    build: bool = False
    optional: bool = False
    where: str = ""

    @property
    def value(self) -> str:
        """For the key: what may be installed, in the order it is tried. Places do not count."""
        choices = [*self.versions]
        if self.build:
            choices.append("a build from source")
        if self.optional:
            choices.append("nothing")
        text = " or ".join(choices)
        return f"{text} {' '.join(self.hashes)}" if self.hashes else text

    def add_to(self, inputs: dict[str, str], wheres: dict[str, str]) -> None:
        """Make this an input of the key."""
        inputs[NAME] = self.value
        wheres[NAME] = self.where


def take_over(settings: Settings, asked: Requirements) -> tuple[Requirements, Plan | None]:
    """
    The requirements without flash-attn and with what it needs, and the plan; None for no plan.

    A line that names a wheel stays: it says all that there is to say.

    Raises:
        ConfigurationProblem: A line names no version, or a source that may not be built; a wheel
            is named while there are versions to choose from; a lock lacks what it needs.
    """
    mine = [line for line in asked.lines if line.name == NAME]
    if not mine and not settings.flash_attn:
        return asked, None
    wheels = [line for line in mine if _direct(line) and re.search(_WHEEL, line.line)]
    if wheels:
        if settings.flash_attn:
            raise ConfigurationProblem(
                settings.source("flash_attn"),
                f"flash_attn names versions of what {wheels[0].where} names a wheel of",
                hint="leave one of the two out",
            )
        return asked, None
    plan = _plan(settings, mine)
    lines = [line for line in asked.lines if line.name != NAME]
    if not any(line.name == NEEDS for line in lines):
        if settings.lock is not None:
            raise ConfigurationProblem(
                settings.source("lock"),
                f"the lock has no {NEEDS}, which flash-attn needs ({plan.where})",
                hint="make it anew with cachepod lock",
            )
        lines.append(Requirement(name=NEEDS, value="any version", line=NEEDS, where=plan.where))
    return replace(asked, lines=tuple(lines)), plan


def _plan(settings: Settings, mine: list[Requirement]) -> Plan:
    pinned = [line.pinned.partition("+")[0] for line in mine if line.pinned]
    source = ""
    hashes: list[str] = []
    for line in mine:
        hashes += re.findall(_HASH, line.line)
        if not _direct(line):
            if not line.pinned and not settings.flash_attn:
                raise ConfigurationProblem(
                    line.where,
                    "flash-attn is installed by wheel, which is found by its version, and this "
                    "line names none",
                    hint='write flash-attn==2.8.0, or say flash_attn = ["2.8.0"]',
                )
        elif settings.flash_attn_build:
            source = line.line
        else:
            raise ConfigurationProblem(
                line.where,
                "flash-attn is to be built from source, which takes hours",
                hint="name a wheel or a version, or say flash_attn_build = true",
            )
    return Plan(
        versions=settings.flash_attn or tuple(dict.fromkeys(pinned)),
        source=source,
        hashes=tuple(sorted(set(hashes))),
        build=settings.flash_attn_build,
        optional=settings.flash_attn_missing == "warning",
        where=settings.source("flash_attn") if settings.flash_attn else mine[0].where,
    )


def _direct(line: Requirement) -> bool:
    """Whether *line* names a file, a directory or a repository, and not a mere version."""
    return "/" in line.line or "@" in line.line


def lacks_it(prefix: Path) -> bool:
    """Whether the environment at *prefix* has no flash-attn: a look at two directories."""
    lib = os.path.join(prefix, "lib")
    try:
        for folder in os.listdir(lib):
            if not folder.startswith("python"):
                continue
            for name in os.listdir(os.path.join(lib, folder, "site-packages")):
                if name.startswith(f"{MODULE}-") and name.endswith(".dist-info"):
                    return False
    except OSError:
        return False
    return True


def variables(environ: Mapping[str, str], jobs: int, toolkit: Path) -> dict[str, str]:
    """
    What a build of it is told: the toolkit, and how many compilers may run at once.

    Its own release notes count 8 to 9 GB of memory for each of them.
    """
    return {
        "CUDA_HOME": str(toolkit),
        "PATH": os.pathsep.join([str(toolkit / "bin"), environ.get("PATH", os.defpath)]),
        "MAX_JOBS": environ.get("MAX_JOBS", "") or str(jobs),
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
    }
