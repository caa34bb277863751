"""Installing into a directory of the test's own, from an index of a few small packages."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cachepod.environment.install import InstallReport, install
from tests.support.wheels import Index, configured, plain_environ

INSTALLERS = ("uv", "pip")


def small_index(root: Path) -> Index:
    """Two versions of one package, one that needs it, one that stands alone."""
    made = Index(root)
    made.add("alpha", "1.0", {"alpha/__init__.py": "VERSION = '1.0'\n", "alpha/old.py": "x = 1\n"})
    made.add("alpha", "2.0", {"alpha/__init__.py": "VERSION = '2.0'\n", "alpha/new.py": "x = 2\n"})
    made.add("beta", "1.0", requires=["alpha"], scripts={"beta-tool": "beta:main"})
    made.add("gamma", "1.0")
    return made


class Notes:
    """Progress that remembers what a user was told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.statuses: list[str] = []
        self.notes: list[str] = []

    def phase(self, name: str, *, files: int = 0, size: int = 0) -> None:
        self.phases.append(name)

    def advance(self, files: int, size: int) -> None:
        assert files >= 0
        assert size >= 0

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def installed(
    folder: Path,
    index: Index | None,
    *packages: str,
    force: bool = False,
    progress: Notes | None = None,
    environ: dict[str, str] | None = None,
    **keys: object,
) -> InstallReport:
    """Install *packages* at ``folder/env`` with no settings of the developer's own."""
    folder.mkdir(exist_ok=True)
    settings, identity = configured(folder, index, packages, **keys)
    environ = {**plain_environ(folder), **(environ or {})}
    return install(settings, identity, force=force, progress=progress, environ=environ)


def run(prefix: Path, code: str) -> str:
    """
    What *code* prints in the environment at *prefix*.

    It leaves no bytecode behind (-B): a source that is edited within the same second and keeps its
    size would be taken for unchanged.
    """
    return subprocess.run(
        [prefix / "bin" / "python", "-B", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
