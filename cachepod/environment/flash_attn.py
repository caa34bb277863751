"""
flash-attn: a wheel that no index has, chosen after torch is installed.

So what is installed decides the name, and the environment's own interpreter is asked for it. Each
version is looked for in each place, in order, until one was fetched, installed and imported. What
did not work is told together, at the end.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cachepod.environment.check import check
from cachepod.environment.config import Settings
from cachepod.environment.download import Unavailable
from cachepod.environment.flash_held import metadata, note, noted, remove
from cachepod.environment.flash_names import Facts, ask
from cachepod.environment.flash_plan import MODULE, NAME, Plan, variables
from cachepod.environment.installer import Build, Installer, Wanted, Watch
from cachepod.environment.space import check_space
from cachepod.environment.venv import site_packages
from cachepod.environment.wheelhouse import Wheel, examine, fetch
from cachepod.errors import CheckFailed, InstallFailed
from cachepod.limits import cores, memory
from cachepod.snapshot.progress import Progress
from cachepod.system.urls import masked

_BUILD_MEMORY = 9_000_000_000  # bytes that one compiler takes
_BUILD_NEEDS = ("setuptools", "wheel", "packaging", "ninja", "psutil")


@dataclass(frozen=True)
class Report:
    """
    How it went.

    Args:
        outcome: ``installed``, ``built``, ``kept`` (it was there) or ``missing``.

        wheel: The name of the wheel that is there now; empty for none.

        tried: A sentence for each place that did not help.

        problem: What it means that it is missing; empty if it is there.
    """

    outcome: str
    wheel: str
    tried: tuple[str, ...] = ()
    problem: str = ""


class FlashAttn:
    """The step of one installation that brings flash-attn."""

    def __init__(
        self, plan: Plan | None, settings: Settings, wanted: Wanted, work: Path, progress: Progress
    ) -> None:
        """
        Args:
            plan: What is wanted; None for nothing, and then every method does nothing.

            settings: The configuration.

            wanted: What else is installed, and from where.

            work: A directory for temporary files, on the file system of the prefix.

            progress: Told of the phase ``flash-attn`` and of what is missing.
        """
        self._plan = plan
        self._settings = settings
        self._wanted = wanted
        self._work = work / NAME
        self._progress = progress
        self._python = settings.prefix / "bin" / "python"
        self._tried: list[str] = []
        self._silent: set[str] = set()
        self._watch = Watch(note=progress.note)

    @property
    def _site(self) -> Path:
        return site_packages(self._python)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """
        Hide what is installed of it from an installer that removes all it was not told of.

        Its files stay where they are; without metadata they belong to nobody.
        """
        held = metadata(self._site) if self._plan is not None else None
        if held is None:
            yield
            return
        self._work.mkdir(parents=True, exist_ok=True)
        hidden = self._work / held.name
        held.rename(hidden)
        try:
            yield
        finally:
            hidden.rename(held)

    def install(self, installer: Installer) -> Report | None:
        """
        Bring it, or keep what is there if that is what would be brought.

        Returns:
            None if nothing is wanted.

        Raises:
            InstallFailed: There is none that works, and it is not optional.

            NotEnoughSpace, SpaceExhausted: Whatever the configuration says of its absence: on
                another machine it would be there.
        """
        plan = self._plan
        if plan is None:
            return None
        self._progress.phase(NAME)
        self._work.mkdir(parents=True, exist_ok=True)
        try:
            report = self._bring(plan, Facts.of(ask(self._python)), installer)
        except Unavailable as problem:
            report = Report("missing", "", problem=f"flash-attn cannot be had: {problem.why}")
        finally:
            shutil.rmtree(self._work, ignore_errors=True)
        if report.outcome == "missing":
            remove(self._settings.prefix, self._site)
            if not plan.optional:
                raise InstallFailed(
                    report.problem,
                    output="\n".join(report.tried),
                    hint="name other flash_attn or flash_attn_sources, or say "
                    'flash_attn_missing = "warning"',
                )
            self._progress.note(f"{report.problem}; the environment is made without it")
        return report

    def _bring(self, plan: Plan, facts: Facts, installer: Installer) -> Report:
        """The first version and place that works."""
        held = noted(self._site)
        for version in plan.versions:
            name = facts.wheel(version)
            if held.get("wheel") == name and self._fits(str(held.get("sha256")), plan):
                if self._imports("what is installed"):
                    return Report("kept", name, tuple(self._tried))
                held = {}
            for place in self._settings.flash_attn_sources:
                if place in self._silent:  # each wait is a part of a worker's cold start
                    continue
                if self._from(place, version, facts, plan, installer):
                    return Report("installed", name, tuple(self._tried))
        if plan.build and self._built(plan, facts, installer):
            return Report("built", facts.wheel(plan.versions[0] if plan.versions else "0"),
                          tuple(self._tried))  # fmt: skip
        return Report("missing", "", tuple(self._tried), self._sum_up(plan, facts))

    def _sum_up(self, plan: Plan, facts: Facts) -> str:
        versions = " and ".join(plan.versions) or "as it was asked for"
        last = self._tried[-1] if self._tried else "no place was named"
        more = f"{len(self._tried) - 1} more" if len(self._tried) > 1 else ""
        return f"no wheel of flash-attn {versions} works with {facts} ({last}" + (
            f"; {more} failed before)" if more else ")"
        )

    def _from(
        self, place: str, version: str, facts: Facts, plan: Plan, installer: Installer
    ) -> bool:
        """Fetch, install and import the wheel of *version* in *place*; False if it is no good."""
        name, source = facts.wheel(version), place
        place = source.replace("{version}", version)
        target = self._work / "fetched"
        try:
            fetch(place, name, target, sized=self._sized, counted=self._counted)
            wheel = examine(target, NAME, version)
            if not self._fits(wheel.sha256, plan):
                raise Unavailable(
                    f"its digest sha256:{wheel.sha256} is none of those that {plan.where} gives"
                )
            check_space(self._settings.prefix, wheel.unpacked, self._settings.min_free)
            self._put(wheel, name, facts, installer)
        except Unavailable as problem:
            self._tried.append(masked(f"{name} from {place}: {problem.why}"))
            if problem.silent:
                self._silent.add(source)
            return False
        return self._imports(f"{name} from {place}")

    def _put(self, wheel: Wheel, name: str, facts: Facts, installer: Installer) -> None:
        """Install what was fetched, under the name that its metadata would give it."""
        # a folder of its own for each: uv remembers what it met by the path
        folder = self._work / str(len(self._tried))
        folder.mkdir()
        named = folder / f"{MODULE}-{wheel.version}-{facts.tags}.whl"
        wheel.path.rename(named)
        remove(self._settings.prefix, self._site)
        try:
            installer.add(
                self._wanted, named, f"{NAME}=={wheel.version}", self._python, self._watch
            )
        except InstallFailed as problem:
            remove(self._settings.prefix, self._site, wheel.files)
            raise Unavailable(f"it cannot be installed: {problem.message}") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        note(self._site, name, wheel.sha256)

    def _built(self, plan: Plan, facts: Facts, installer: Installer) -> bool:
        """Build the first version from source; False if that fails."""
        environ = self._wanted.environ
        toolkit = _toolkit(self._settings, environ)
        if toolkit is None:
            self._tried.append("a build from source needs nvcc, which is not to be found")
            return False
        line = plan.source or f"{NAME}=={plan.versions[0]}"
        jobs = max(1, min(cores(), memory() // _BUILD_MEMORY))
        self._progress.note(f"building {masked(line)} from source with {toolkit}; this takes long")
        remove(self._settings.prefix, self._site)
        build = Build(line, NAME, _BUILD_NEEDS, variables(environ, jobs, toolkit))
        try:
            installer.build(self._wanted, build, self._python, self._watch)
        except InstallFailed as problem:
            remove(self._settings.prefix, self._site)
            self._tried.append(f"a build from source failed: {problem.message}")
            return False
        note(self._site, facts.wheel(plan.versions[0] if plan.versions else "0"), "")
        return self._imports("what was built from source")

    def _sized(self, size: int) -> None:
        self._progress.phase(NAME, size=size)
        check_space(self._settings.prefix, size, self._settings.min_free)

    def _counted(self, count: int) -> None:
        self._progress.advance(0, count)

    @staticmethod
    def _fits(digest: str, plan: Plan) -> bool:
        return not plan.hashes or f"sha256:{digest}" in plan.hashes

    def _imports(self, what: str) -> bool:
        """Whether it can be imported; removed again if not."""
        try:
            check(self._settings.prefix, [MODULE])
        except CheckFailed as problem:
            self._tried.append(masked(f"{what} was removed again: {problem.message}"))
            remove(self._settings.prefix, self._site)
            return False
        return True


def _toolkit(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """A directory with ``bin/nvcc``: the one that is configured or named, else a usual one."""
    usual = [f"/usr/local/cuda-{settings.cuda}"] if settings.cuda else []
    found = shutil.which("nvcc", path=environ.get("PATH"))
    named = [str(settings.toolkit)] if isinstance(settings.toolkit, Path) else []
    named += [environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    on_path = [str(Path(found).parent.parent)] if found else []
    for place in (*named, *usual, *on_path, "/usr/local/cuda"):
        if (Path(place) / "bin" / "nvcc").is_file():
            return Path(place)
    return None
