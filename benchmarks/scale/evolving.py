"""
Real snapshots of one environment as it evolves: each has a hundredth of the files of the one before
replaced, as an upgraded package is.

The environment is a virtual environment, made without a package index, and a made-up package of
files of 1.1 MB, which are a chunk each. Every snapshot is published as a hook would, for a
configuration that asks for another version of a package that nobody installs; but many of them by
one process, since a thousand commands would take minutes to start::

    python -m benchmarks.scale.evolving make|change|fill DOCUMENT
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.scale.making import write_big
from cachepod.model.fingerprint import Fingerprint
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.stamp import ENVIRONMENT_TREE, Stamp, State, state_directory, write_stamp
from cachepod.stores.local import LocalStore

_SIZE = 1_100_000  # bytes: more than goes together with others
_PACKAGE = "own"


@dataclass(frozen=True)
class Evolving:
    """
    An environment and its store.

    Args:
        prefix: The environment.

        store: Directory of the store.

        files: Of the made-up package.

        base: Family and inputs of every key, but for the package's version.
    """

    prefix: str
    store: str
    files: int
    base: dict[str, Any]

    def fingerprint(self, version: int) -> Fingerprint:
        """Of the configuration :meth:`configuration` of the same *version*."""
        inputs = {**self.base["inputs"], f"requirement:{_PACKAGE}": f"=={version}"}
        return Fingerprint(self.base["family"], inputs)

    def make(self, version: int) -> None:
        """The environment, installed, in its first *version*."""
        command = [sys.executable, "-m", "venv", "--without-pip", self.prefix]
        subprocess.run(command, check=True, capture_output=True)
        for number in range(self.files):
            self._write(number, version)
        self._stamp(version)

    def change(self, version: int) -> None:
        """Replace a hundredth, the next one at each *version*."""
        share = max(1, self.files // 100)
        for number in range(version * share, (version + 1) * share):
            self._write(number % self.files, version)
        self._stamp(version)

    def fill(self, begin: int, end: int) -> None:
        """Publish the versions from *begin* to before *end*; 0 is the environment as it is."""
        store = LocalStore(Path(self.store))
        for version in range(begin, end):
            if version:
                self.change(version)
            wanted = self.fingerprint(version)
            source = TreeSource(ENVIRONMENT_TREE, Path(self.prefix))
            publish(store, wanted.key, wanted, [source])

    def _write(self, number: int, version: int) -> None:
        place = Path(self.prefix, "lib", "growth", f"{number // 20:03d}")
        place.mkdir(parents=True, exist_ok=True)
        write_big(place / f"part_{number:05d}.so", _SIZE, f"{number}.{version}")

    def _stamp(self, version: int) -> None:
        state_directory(Path(self.prefix)).mkdir(exist_ok=True)
        key = self.fingerprint(version).key
        write_stamp(Path(self.prefix), Stamp(State.INSTALLED, key, ENVIRONMENT_TREE))


def configuration(file: Path, prefix: Path, store: Path, version: int | str) -> Path:
    """Write the configuration that asks for *version* to *file*."""
    file.write_text(
        f'store = "{store}"\nprefix = "{prefix}"\npackages = ["{_PACKAGE}=={version}"]\n'
    )
    return file


def base_of(file: Path) -> dict[str, Any]:
    """Family and inputs of the configuration *file*, as cachepod tells them."""
    command = [measure.cachepod(), "key", "--explain", "--json", "--config", file]
    return measure.run(command).report


def run(what: str, evolving: Evolving, *versions: int) -> None:
    """``make``, ``change`` or ``fill`` in a process of its own."""
    document = json.dumps([asdict(evolving), versions])
    command = [sys.executable, "-m", "benchmarks.scale.evolving", what, document]
    measure.run(command, cwd=Path(__file__).resolve().parents[2])


if __name__ == "__main__":
    described, versions = json.loads(sys.argv[2])
    getattr(Evolving(**described), sys.argv[1])(*versions)
