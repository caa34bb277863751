"""Installing again, from what an installer has kept: uv from its cache, pip from wheels."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from benchmarks import measure
from benchmarks.peers.peer import Peer, Where, said, site_packages

# What lies on the volume: kept by uv, kept for pip, what to install, and by which interpreter.
_CACHE, _WHEELS, _PINS, _BASE = "cache", "wheels", "requirements.txt", "interpreter"
_UV = '"$1" venv -q -p "$2" "$3" && "$1" pip install -q -p "$3/bin/python" "${@:4}"'
_PIP = '"$1" -m venv --without-pip "$2" && "$3" --python "$2" "${@:4}"'
_PIP_ALONE = ("-q", "--no-deps", "--no-cache-dir", "--disable-pip-version-check")


class _Installer(Peer):
    """What both have in common: the tree's own distributions, by name and version."""

    def publish(self, tree: Path, where: Where) -> None:
        """Filling a cache is mostly downloading, and so not compared."""
        return

    def _write_pins(self, tree: Path, folder: Path) -> Path:
        """The requirements that install what *tree* has."""
        found = metadata.distributions(path=[str(site_packages(tree))])
        pins = sorted(f"{each.name}=={each.version}\n" for each in found)
        if not pins:
            why = "the tree holds no distributions that could be installed"
            raise measure.CommandFailed(why, measure.Cost(0, 0, 0, 1, ""), why)
        path = folder / _PINS
        path.write_text("".join(pins))
        return path

    def _remember_base(self, tree: Path, where: Where) -> str:
        """The interpreter that the tree was made from, which a restore takes, too."""
        own = tree / "bin" / "python"
        python = own if own.exists() else self.settings.python or Path(sys.executable)
        base = said([python, "-c", "import sys; print(sys._base_executable)"]) or str(python)
        (where.folder / _BASE).write_text(base)
        return base


class Uv(_Installer):
    """uv from a cache that has everything, offline."""

    name = "uv, from its cache"
    set_up = (
        "--offline and --no-deps, so that nothing is resolved; --link-mode copy, the only one "
        "between two file systems. The cache was filled there from the index."
    )
    leaves_out = (
        "uv installs the same distributions anew, without bytecode: the import after it has to "
        "compile what it imports."
    )
    shares = "uv cache"
    flags: tuple[str, ...] = ()

    def missing(self) -> str:
        """One program."""
        return measure.needs("uv")

    def versions(self) -> dict[str, str]:
        """Its own."""
        return {"uv": said([self._uv, "--version"]).split()[1]}

    def prepare(self, tree: Path, where: Where) -> None:
        """Fill the cache from the index; the environment that this takes is links to it."""
        pins = self._write_pins(tree, where.folder)
        base = self._remember_base(tree, where)
        flags = ["--link-mode", "symlink", *self._flags(where), "-r", str(pins)]
        with tempfile.TemporaryDirectory(prefix="uv-", dir=self.settings.scratch) as once:
            measure.run(measure.pipeline(_UV, self._uv, base, Path(once) / "venv", *flags))

    def restore(self, where: Where, target: Path) -> list[str]:
        """A new environment, and everything into it."""
        base = (where.folder / _BASE).read_text()
        flags = ["--offline", "--link-mode", "copy", *self.flags, *self._flags(where)]
        words = [*flags, "-r", str(where.folder / _PINS)]
        return measure.pipeline(_UV, self._uv, base, target, *words)

    def _flags(self, where: Where) -> list[str]:
        return ["--no-deps", "--cache-dir", str(where.folder / _CACHE)]

    @property
    def _uv(self) -> str:
        return measure.find_tool("uv") or "uv"


class UvBytecode(Uv):
    """The same, and compiled."""

    name = "uv, from its cache, --compile-bytecode"
    set_up = (
        "As without, and --compile-bytecode, which its documentation recommends where the start of "
        "a program matters more than its installation; every core compiles."
    )
    leaves_out = "uv installs the same distributions anew, rather than the same files."
    flags = ("--compile-bytecode",)


class Pip(_Installer):
    """pip from a directory of wheels, offline."""

    name = "pip, from wheels"
    set_up = (
        "The newest pip, beside the environment (--python), so that none has to be installed in "
        "it; --no-index --find-links --no-deps on a directory of wheels; bytecode compiled, as by "
        "default."
    )
    leaves_out = "pip installs the same distributions anew, rather than the same files."

    def missing(self) -> str:
        """From PyPI."""
        return self.settings.programs.install("pip")

    def versions(self) -> dict[str, str]:
        """Its own."""
        return {"pip": self.settings.programs.version("pip")}

    def prepare(self, tree: Path, where: Where) -> None:
        """Have a wheel of every distribution: from the index, or built from its source."""
        pins = self._write_pins(tree, where.folder)
        base = self._remember_base(tree, where)
        words = ["wheel", *_PIP_ALONE, "-w", str(where.folder / _WHEELS), "-r", str(pins)]
        with tempfile.TemporaryDirectory(prefix="pip-", dir=self.settings.scratch) as once:
            measure.run(measure.pipeline(_PIP, base, Path(once) / "venv", self._pip, *words))

    def restore(self, where: Where, target: Path) -> list[str]:
        """A new environment, and everything into it."""
        base = (where.folder / _BASE).read_text()
        # Isolated from the user's own configuration, which may name other places of wheels.
        words = ["install", "--isolated", *_PIP_ALONE, "--no-index"]
        words += ["--find-links", str(where.folder / _WHEELS), "-r", str(where.folder / _PINS)]
        restored = measure.pipeline(_PIP, base, target, self._pip, *words)
        return ["env", f"PIP_CONFIG_FILE={os.devnull}", *restored]

    @property
    def _pip(self) -> str:
        return self.settings.programs["pip"]
