"""
The cold path: make the environment at the prefix hold what the configuration asks for.

What it holds in the end is a function of the key alone. The requirements are resolved first, and
then the environment is made to hold exactly that, whatever it held before: nothing, or the
environment of a relative that a restore has brought.

Crash windows, by the stamp:

1. resolving: the prefix is as it was (a new one has the stamp ``installing``);
2. from the first change to the last: ``installing``; the next run empties the prefix;
3. ``installed``, the key in it, written last: the sole commit point.

Temporary files and the installer's cache lie in the state directory of the prefix: on its file
system, so that files are linked and not copied, and gone with it if this process is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cachepod.environment.advice import advice
from cachepod.environment.bytecode import Target, compile_environment, drop_outdated
from cachepod.environment.check import check
from cachepod.environment.config import Settings
from cachepod.environment.distributions import distributions, installed_versions
from cachepod.environment.flash_attn import FlashAttn, Report
from cachepod.environment.flash_plan import MODULE as FLASH_MODULE
from cachepod.environment.flash_plan import NAME as FLASH_ATTN
from cachepod.environment.identity import Identity
from cachepod.environment.installer import Installer, Resolution, Wanted, Watch
from cachepod.environment.pip import Pip, find_pip
from cachepod.environment.space import Artifact, check_space, missing, with_sizes
from cachepod.environment.tidy import Extent, normalise_times, remove_strays
from cachepod.environment.uv import Uv, find_uv
from cachepod.environment.venv import (
    Found,
    Prefix,
    create,
    empty,
    examine,
    remove,
    site_packages,
)
from cachepod.errors import (
    CachepodError,
    ForeignDirectory,
    InstallFailed,
    SpaceExhausted,
    TreeUnreadable,
)
from cachepod.limits import cores
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.snapshot.stamp import (
    ENVIRONMENT_TREE,
    STATE_DIRECTORY,
    Stamp,
    State,
    read_stamp,
    state_directory,
    write_stamp,
)

_WORK = "install"  # in the state directory


@dataclass(frozen=True)
class InstallReport:
    """
    What an install did.

    Args:
        outcome: ``installed``, ``present`` (there was nothing to do) or ``topped up``.

        packages: Distributions in the environment.

        files: Files in it, 0 if it was present.

        size: Their bytes, 0 if it was present.

        phases: Seconds of each phase.

        flash_attn: How the step that brings it went; None if it is not wanted.
    """

    outcome: str
    packages: int
    files: int
    size: int
    phases: Mapping[str, float]
    flash_attn: Report | None = None


def install(
    settings: Settings,
    identity: Identity,
    *,
    force: bool = False,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> InstallReport:
    """
    Make the environment of *identity* at the prefix.

    Args:
        settings: The configuration.

        identity: Its key, its requirements and the interpreter.

        force: Replace a directory that cachepod did not make.

        progress: Told of the phases ``resolve``, ``packages``, ``bytecode``.

        environ: The user's environment, for the installer; the process's own by default.

    Raises:
        ForeignDirectory: The prefix holds what cachepod did not make.

        NotEnoughSpace: Known before a package is downloaded; nothing was changed.

        SpaceExhausted: The disk filled up all the same.

        InstallFailed: The installer gave up.

        CheckFailed: All is installed, but a module that must be importable is not.

        TreeUnreadable: The prefix cannot be made or written.
    """
    job = _Job(
        settings,
        identity,
        progress or NoProgress(),
        dict(os.environ if environ is None else environ),
    )
    try:
        return job.run(force)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceExhausted(str(settings.prefix), os.strerror(error.errno)) from error
        where = os.fspath(error.filename or settings.prefix)
        raise TreeUnreadable(str(where), error.strerror or str(error)) from error


class _Job:
    """One installation, its parts timed."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        progress: Progress,
        environ: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._progress = progress
        self._prefix = settings.prefix
        self._work = state_directory(self._prefix) / _WORK
        self._wanted = Wanted.of(settings, identity, environ)
        self._flash = FlashAttn(identity.flash_attn, settings, self._wanted, self._work, progress)
        self._flash_report: Report | None = None
        self._phases: dict[str, float] = {}
        found = read_stamp(self._prefix)
        same = found is not None and found.key == identity.key
        self._spoils = found.spoils if found is not None and same else ""

    def run(self, force: bool) -> InstallReport:
        """Look at the prefix and do what it needs."""
        started = time.monotonic()
        before = examine(self._prefix, self._identity.key, self._identity.interpreter)
        if before.found is Found.PRESENT:
            site = site_packages(self._prefix / "bin" / "python")
            return InstallReport("present", len(installed_versions(site)), 0, 0, {})
        if before.found is Found.FOREIGN and not force:
            raise ForeignDirectory(str(self._prefix))
        created = not self._prefix.exists()
        self._prefix.mkdir(parents=True, exist_ok=True)
        if before.found is Found.NOTHING:
            self._stamp(State.INSTALLING)
        try:
            with self._work_directory():
                extent, packages = self._install(before)
        except BaseException:
            self._give_up(created)
            raise
        self._stamp(State.INSTALLED, read_stamp(self._prefix), time.monotonic() - started)
        outcome = "topped up" if before.found is Found.RELATIVE else "installed"
        return InstallReport(
            outcome, packages, extent.files, extent.size, self._phases, self._flash_report
        )

    def _install(self, before: Prefix) -> tuple[Extent, int]:
        """Everything between the first look and the last stamp."""
        python = self._prefix / "bin" / "python"
        installer = self._installer()
        for note in advice(self._settings, self._identity, self._wanted.environ):
            self._progress.note(note)
        with self._phase("resolve"):
            resolution = installer.resolve(self._wanted)
        relative = before.found is Found.RELATIVE
        if before.found is Found.REMAINS:
            # It is of no use to anybody, and its room may be needed.
            with self._phase("clean"):
                self._clear()
        installed = installed_versions(site_packages(python)) if relative else {}
        needed = self._check_space(resolution, installed)
        if before.found is Found.FOREIGN:
            with self._phase("clean"):
                self._clear()
        if not relative:
            with self._phase("venv"):
                create(self._identity.interpreter.executable, self._prefix)
        self._packages(installer, resolution, before, needed)
        if self._identity.flash_attn is not None:
            with self._phase(FLASH_ATTN):
                self._flash_report = self._flash.install(installer)
        site = site_packages(python)
        present = list(distributions(site))
        target = self._target(python)
        # uv's lock, and what was there before and belongs to nothing now
        with self._phase("tidy"):
            (self._prefix / ".lock").unlink(missing_ok=True)
            if relative:
                drop_outdated(site, target)
                strays = remove_strays(self._prefix, site, present)
                if strays:
                    self._progress.note(
                        f"removed {len(strays)} files that belong to no package: {strays[0]}"
                        + (", ..." if len(strays) > 1 else "")
                    )
            # The cache holds links to the environment's files: without them first, the change
            # times settle before anybody remembers them.
            shutil.rmtree(self._work, ignore_errors=True)
            extent = normalise_times(self._prefix)
        if self._settings.compile:
            with self._phase("bytecode"):
                compile_environment(
                    site,
                    target,
                    present,
                    jobs=cores(),
                    progress=self._progress,
                )
                extent = normalise_times(self._prefix)
        modules = self._identity.checked(self._settings.check)
        if modules:
            self._progress.phase("check")
            with self._phase("check"):
                check(self._prefix, modules, self._wanted.environ)
        return extent, len(present)

    def _packages(
        self, installer: Installer, resolution: Resolution, before: Prefix, needed: int
    ) -> None:
        """The part that downloads and unpacks, under the stamp ``installing``."""
        python = self._prefix / "bin" / "python"
        self._stamp(State.INSTALLING, before.stamp)
        held = self._records() if before.found is Found.RELATIVE else None
        self._progress.phase("packages", size=needed)
        watch = Watch(
            written=lambda count: self._progress.advance(0, count), note=self._progress.note
        )
        try:
            with self._phase("packages"), self._flash.aside():
                installer.sync(self._wanted, resolution, python, watch)
        except CachepodError:
            # Downloads and builds come before the first change: if nothing has changed, a
            # relative is as good as it was, and need not be brought again.
            if before.stamp is not None and held is not None and held == self._records():
                write_stamp(self._prefix, before.stamp)
            raise

    def _check_space(self, resolution: Resolution, installed: Mapping[str, str]) -> int:
        """Bytes that will be written, as far as can be known; NotEnoughSpace if too many."""
        lacking = with_sizes(list(missing(resolution.artifacts, installed)))
        for artifact in lacking:
            if artifact.kind == "source":
                self._progress.note(
                    f"{artifact.name} {artifact.version} has no wheel for this interpreter "
                    "and is built from source"
                )
        needed = sum(artifact.unpacked for artifact in lacking)
        if needed:
            check_space(self._prefix, needed + self._cached(lacking), self._settings.min_free)
        return needed

    def _cached(self, lacking: list[Artifact]) -> int:
        """What a lasting cache on the same file system takes beside the environment."""
        cache = self._settings.cache_dir
        if cache is None:
            return 0
        cache.mkdir(parents=True, exist_ok=True)
        if cache.stat().st_dev != self._prefix.stat().st_dev:
            return 0
        held = {path.name for path in cache.glob("wheels-*/*/*")}
        return sum(artifact.unpacked for artifact in lacking if artifact.name not in held)

    def _installer(self) -> Installer:
        """uv, or pip where it is asked for or there is no uv."""
        base, cache = self._identity.interpreter.executable, self._settings.cache_dir
        choice = self._settings.installer
        uv = find_uv() if choice in ("auto", "uv") else None
        if uv is not None:
            return Uv(uv, base, self._work, self._prefix, cache)
        pip = find_pip(base) if choice in ("auto", "pip") else None
        if pip is not None:
            return Pip(pip, base, self._work, self._prefix, cache)
        wanted = "neither uv nor pip is" if choice == "auto" else f"{choice} is not"
        raise InstallFailed(
            f"{wanted} to be found", hint="install cachepod with its dependencies: uv is one"
        )

    def _target(self, python: Path) -> Target:
        """Who loads the bytecode."""
        answer = subprocess.run(
            [str(python), "-I", "-S", "-c", "import sys, _imp, importlib.util as u\n"
             "print(sys.implementation.cache_tag, u.MAGIC_NUMBER.hex())"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        tag, _, magic = answer.stdout.strip().partition(" ")
        if answer.returncode or not magic:
            raise InstallFailed(
                "the new environment's interpreter does not start", output=answer.stderr
            )
        return Target(python, tag, bytes.fromhex(magic))

    def _records(self) -> dict[str, int]:
        """A token for every distribution of the resolution that changes when it does."""
        site = site_packages(self._prefix / "bin" / "python")
        return {
            info.name: info.stat().st_ctime_ns
            for info in site.glob("*.dist-info")
            if not info.name.startswith(f"{FLASH_MODULE}-")
        }

    def _stamp(self, state: State, before: Stamp | None = None, seconds: float = 0.0) -> None:
        held = before.manifest if before is not None else ""
        key = self._identity.key
        write_stamp(
            self._prefix,
            Stamp(state, key, ENVIRONMENT_TREE, held, self._spoils, install_seconds=seconds),
        )

    def _clear(self) -> None:
        """Empty the prefix but for the files of this run."""
        self._stamp(State.INSTALLING)
        empty(self._prefix, keep=self._work)

    @contextlib.contextmanager
    def _work_directory(self) -> Iterator[None]:
        """The place for temporary files; what a killed run left there goes first."""
        remove(self._work)
        self._work.mkdir(parents=True)
        try:
            yield
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _give_up(self, created: bool) -> None:
        """Leave nothing of a failed installation but what is still of use."""
        stamp = read_stamp(self._prefix)
        with contextlib.suppress(OSError):
            if stamp is None:
                (self._prefix / STATE_DIRECTORY).rmdir()
            elif stamp.state is State.INSTALLING:
                empty(self._prefix, keep=self._work)
                shutil.rmtree(state_directory(self._prefix))
            if created:
                self._prefix.rmdir()

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        if name == "resolve":
            self._progress.phase("resolve")
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self._phases[name] = self._phases.get(name, 0.0) + spent
