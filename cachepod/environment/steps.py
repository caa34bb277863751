"""
What several givers ask for one after the other: a handler's profile, and the configuration itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachepod.environment.requirement import Requirement


@dataclass(frozen=True)
class Step:
    """
    What one giver asks for, on top of what others before it do.

    Args:
        files: Absolute path of each file, and what named it: ``cachepod.toml:3``.

        packages: Requirement lines given in the configuration itself.

        packages_where: What named *packages*.

        without: Normalised names of distributions that are left out of what came before.

        of_profile: Whether it is a part of a handler's profile.

        built_in: Whether it is one of ours, in which torch's companions follow another torch.
    """

    files: tuple[tuple[Path, str], ...] = ()
    packages: tuple[str, ...] = field(default=(), repr=False)
    packages_where: str = "packages"
    without: frozenset[str] = frozenset()
    of_profile: bool = False
    built_in: bool = False


def beside(ours: Requirement, torch: str) -> Requirement:
    """
    One of our own requirements beside another release of torch than ours.

    torchaudio and torchvision become those that were made for it: not every release of them tells
    an installer which torch it needs.

    Args:
        ours: As the built-in profile has it.

        torch: The one version of torch that will do; empty where several would.
    """
    release = re.match(r"2\.(\d+)", torch)
    if not release or ours.name not in ("torchaudio", "torchvision"):
        return ours
    minor = int(release[1])
    clause = f"==2.{minor}.*" if ours.name == "torchaudio" else f"==0.{minor + 15}.*"
    return replace(ours, value=clause, line=ours.name + clause, pinned="", fixed=False)
