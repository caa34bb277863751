"""What is to be measured, found out and checked before anything is."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cold_warm import change
from benchmarks.cold_warm.change import Configuration
from benchmarks.cold_warm.store import below
from cachepod.environment.config import load_settings
from cachepod.environment.sources import find_file
from cachepod.errors import SpaceExhausted, UsageProblem
from cachepod.stores.url import directory_of, is_s3

_NOTHING = Path("/dev/null")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

#: With one of them, an environment is large: GB of it, and of another.
_LARGE = frozenset({"torch", "tensorflow", "jax", "vllm"})
_GB = (10.0, 3.0)

#: Compressed bytes are some half of the plain ones.
_STORED = 0.5


@dataclass(frozen=True)
class Plan:
    """
    What to measure.

    Args:
        file: The configuration file, ``/dev/null`` where there is none.

        base: The configuration as it is.

        changed: The same with one requirement changed; None if that is not to be measured.

        store: URL of the store below which the benchmark makes its own.

        name: Of the benchmark's own place in there.

        module: To be imported; empty for none.

        scratch: Where the environments go.

        size: Bytes that one of them may take.
    """

    file: Path
    base: Configuration
    changed: Configuration | None
    store: str
    name: str
    module: str
    scratch: Path
    size: int

    @classmethod
    def of(cls, options: argparse.Namespace, folder: Path, environ: Mapping[str, str]) -> Plan:
        """
        From the command line; *folder* is for the changed requirements.

        Raises:
            CachepodError: Something makes no sense, or there is no room.
        """
        if options.module and not _MODULE.fullmatch(options.module):
            raise UsageProblem(f"--import {options.module}: that is no name of a module")
        if options.rounds < 1 or options.warm < 0 or options.partial < 0:
            raise UsageProblem("--rounds takes 1 or more, --warm and --partial 0 or more")
        cwd = Path.cwd()
        file = find_file(str(options.config) if options.config else None, environ, cwd)
        file = file.absolute() if file is not None else _NOTHING
        root = file.parent if file.is_file() else cwd
        store = options.store
        if not store:
            store = load_settings({"config": str(file)}, environ, root).store[0]
        elif not is_s3(store):
            store = str(directory_of(store))
        name = f"cold-warm-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        also = {"CACHEPOD_PREFIX": str(folder / "env"), "CACHEPOD_STORE": below(store, name)}
        base = change.read(file, root, environ, also)
        if not base.settings.wants_environment:
            raise UsageProblem(f"{file} asks for no Python environment, so no start can be timed")
        changed = None
        if options.partial:
            changed = change.changed(base, file, root, options.change, folder, environ)
        checked = base.identity.checked(base.settings.check)
        module = options.module if options.module is not None else next(iter(checked), "")
        names = {line.name for line in base.identity.requirements.lines}
        guess = _GB[0] if names & _LARGE else _GB[1]
        size = int((guess if options.size is None else options.size) * 1e9)
        scratch = options.scratch.absolute()
        made = cls(file, base, changed, store, name, module, scratch, size)
        made.check_space()
        return made

    @property
    def title(self) -> str:
        """What is started, without a path of this machine."""
        handler = self.base.settings.handler
        name = self.file.name if self.file != _NOTHING else "no file"
        return f"{name}, handler {handler}" if handler else name

    @property
    def remarks(self) -> list[str]:
        """What the numbers leave out, a sentence each."""
        settings = self.base.settings
        remarks = []
        if settings.wants_packages:
            remarks.append(
                "apt packages are the container's: the cold start installs them, and for every "
                "other start they are there already"
            )
        if settings.trees or isinstance(settings.toolkit, Path):
            remarks.append("trees besides the environment stay in place: no start brings them")
        return remarks

    def check_space(self) -> None:
        """
        Raises:
            SpaceExhausted: A disk has no room for what is to be written to it.
        """
        needs = {self.scratch: self.size}
        if not is_s3(self.store):
            place = _existing(directory_of(self.store))
            same = os.stat(place).st_dev == os.stat(self.scratch).st_dev
            at = self.scratch if same else place
            needs[at] = needs.get(at, 0) + int(self.size * _STORED)
        for place, needed in needs.items():
            usage = shutil.disk_usage(place)
            # A restore leaves a tenth of the file system free.
            free = max(0.0, usage.free - 0.1 * usage.total)
            if usage.total and free < needed:
                raise SpaceExhausted(
                    str(place),
                    f"some {needed / 1e9:.1f} GB are needed beside the tenth of the disk "
                    f"that stays free, {free / 1e9:.1f} GB are there",
                    hint="give --scratch or --store another disk, or --size GB if the environment "
                    "is smaller",
                )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
