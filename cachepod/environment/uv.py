"""The installer of choice: uv, from its package on PyPI, never downloaded otherwise."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cachepod.environment.failures import explain
from cachepod.environment.flash_plan import NAME as FLASH_ATTN
from cachepod.environment.installer import (
    Build,
    Resolution,
    Wanted,
    Watch,
    child_environ,
    stand_ins,
    with_hashes,
    write_private,
)
from cachepod.environment.space import Artifact, read_artifacts
from cachepod.errors import InstallFailed
from cachepod.system.process import Outcome, growth, run

_UNKNOWN_ISSUER = "invalid peer certificate"
_SYSTEM_CERTIFICATES = "UV_SYSTEM_CERTS"
_UNKNOWN_BACKEND = "for '--torch-backend"


def find_uv() -> str | None:
    """The uv that came with cachepod: its package knows, or it lies beside the interpreter."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        pass
    return shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")


class Uv:
    """uv, with a cache of its own for one installation or with a lasting one."""

    name = "uv"

    def __init__(
        self, binary: str, base: Path, work: Path, prefix: Path, cache: Path | None
    ) -> None:
        """
        Args:
            binary: uv itself.

            base: The interpreter that is resolved for.

            work: A directory for temporary files, on the file system of the prefix.

            prefix: The environment, for errors.

            cache: The lasting cache; None for one in *work*, which goes with it. From that one
                files are hard links into the environment, so that they take their space once.
                From a lasting one they are copies, since their times will be changed.
        """
        self._binary = binary
        self._base = base
        self._work = work
        self._prefix = prefix
        self._cache = cache or work / "cache"
        self._link_mode = "copy" if cache else "hardlink"
        self._temporary = work / "tmp"
        self._temporary.mkdir(exist_ok=True)
        self._more: dict[str, str] = {}
        self._knows_backend = True

    def resolve(self, wanted: Wanted) -> Resolution:
        """See :class:`cachepod.environment.installer.Installer`."""
        if wanted.locked:
            lines = tuple(line.line for line in wanted.requirements.lines)
        else:
            text = self.compile(wanted).replace("\\\n", " ")
            lines = tuple(line for line in text.splitlines() if line.strip())
            if wanted.hashed:
                lines = with_hashes(lines, wanted.requirements)
        return Resolution(lines, tuple(self._artifacts(wanted, lines)))

    def compile(self, wanted: Wanted, *extra: str) -> str:
        """What ``uv pip compile`` with the *extra* arguments makes of what is wanted."""
        links = stand_ins(self._work / "provided", FLASH_ATTN, wanted.provided)
        asked = self._file("requirements.in", wanted, links + wanted.requirements.text)
        output = self._work / "resolved.txt"
        output.unlink(missing_ok=True)  # uv would prefer what an older one says
        arguments = ["compile", str(asked), "--output-file", str(output)]
        arguments += ["--python", str(self._base), "--no-header", "--no-annotate", *extra]
        if wanted.provided:
            arguments += ["--no-emit-package", FLASH_ATTN]
        if wanted.requirements.constraints:
            constraints = self._work / "constraints.txt"
            write_private(constraints, wanted.requirements.constraints_text)
            arguments += ["--constraint", str(constraints)]
        if wanted.left_out:
            # a requirement that never applies takes the place of all others of its name
            overrides = self._work / "overrides.txt"
            never = "".join(f"{name}; sys_platform == 'never'\n" for name in wanted.left_out)
            write_private(overrides, never)
            arguments += ["--override", str(overrides)]
        self._run(wanted, arguments, Watch())
        lines = output.read_text("utf-8").splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("#"))

    def sync(self, wanted: Wanted, resolution: Resolution, python: Path, watch: Watch) -> None:
        """See :class:`cachepod.environment.installer.Installer`."""
        exact = self._file("exact.txt", wanted, "".join(f"{line}\n" for line in resolution.lines))
        arguments = ["sync", str(exact), "--python", str(python)]
        arguments += ["--link-mode", self._link_mode, "--allow-empty-requirements"]
        if wanted.hashed:
            arguments.append("--require-hashes")
        for name in sorted(wanted.local_names(resolution.artifacts)):
            arguments += ["--reinstall-package", name]
        self._run(wanted, arguments, watch)

    def add(self, wanted: Wanted, wheel: Path, exact: str, python: Path, watch: Watch) -> None:
        """See :class:`cachepod.environment.installer.Installer`."""
        arguments = ["install", exact, "--no-index", "--find-links", str(wheel.parent)]
        self._run(wanted, [*arguments, *self._alone(python)], watch, apart=True)

    def build(self, wanted: Wanted, build: Build, python: Path, watch: Watch) -> None:
        """See :class:`cachepod.environment.installer.Installer`."""
        tools = self._work / "build-tools"
        needs = self._file("build-tools.in", wanted, "".join(f"{each}\n" for each in build.needs))
        arguments = ["install", "-r", str(needs), "--target", str(tools), "--python", str(python)]
        self._run(wanted, arguments, watch)
        options = wanted.options(torch_as_extra=True).replace(f"--only-binary {build.name}\n", "")
        asked = write_private(self._work / "build.in", f"{options}{build.line}\n")
        arguments = ["install", "-r", str(asked), "--no-build-isolation-package", build.name]
        arguments += ["--no-binary", build.name, *self._alone(python)]
        environ = {**build.environ, "PYTHONPATH": str(tools)}
        self._run(wanted, arguments, watch, apart=True, more=environ)

    def _alone(self, python: Path) -> list[str]:
        return ["--no-deps", "--python", str(python), "--link-mode", "hardlink"]

    def _artifacts(self, wanted: Wanted, lines: tuple[str, ...]) -> list[Artifact]:
        """What *lines* are installed from; nothing if this uv cannot tell."""
        exact = self._file("exact.txt", wanted, "".join(f"{line}\n" for line in lines))
        output = self._work / "pylock.toml"
        arguments = ["compile", str(exact), "--format", "pylock.toml", "--no-deps"]
        arguments += ["--output-file", str(output), "--python", str(self._base), "--no-header"]
        try:
            self._run(wanted, arguments, Watch())
            return read_artifacts(output)
        except (InstallFailed, OSError, ValueError):
            return []

    def _file(self, name: str, wanted: Wanted, text: str) -> Path:
        options = wanted.options(torch_as_extra=not wanted.torch_backend)
        return write_private(self._work / name, options + text)

    def _run(
        self,
        wanted: Wanted,
        arguments: list[str],
        watch: Watch,
        *,
        apart: bool = False,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """
        Run ``uv pip`` and turn its failure into an error.

        Args:
            apart: For one package that is no part of the resolution: no cache that lasts, since
                wheels for several releases of torch have one name there, and no index of torch's.

            more: Variables besides the user's.
        """
        command = [self._binary, "pip", *arguments]
        cache = self._work / "cache" if apart else self._cache
        command += ["--cache-dir", str(cache), "--no-progress", "--color", "never"]
        if wanted.requirements.pre:
            command += ["--prerelease", "allow"]

        def line(text: str) -> None:
            if text.strip().startswith("Building "):
                watch.note(f"{text.strip()} from source")

        tick = growth(watch.written)

        def attempt() -> Outcome:
            return run(
                command if apart else [*command, *self._torch_options(wanted)],
                environ={**child_environ(wanted.environ, self._temporary), **self._more, **more},
                directory=wanted.directory,
                on_line=line,
                on_tick=tick,
            )

        outcome = attempt()
        if outcome.status and _UNKNOWN_ISSUER in outcome.output and not self._more:
            # A proxy or mirror whose authority only the machine knows. uv brings a list of its
            # own, which a slim image without ca-certificates needs; pip asks the machine.
            self._more = {_SYSTEM_CERTIFICATES: "true"}
            outcome = attempt()
        if outcome.status and _UNKNOWN_BACKEND in outcome.output and self._knows_backend:
            self._knows_backend = False
            outcome = attempt()
        if outcome.status:
            raise explain(
                outcome.output,
                installer=self.name,
                where=str(self._prefix),
                environ=wanted.environ,
            )

    def _torch_options(self, wanted: Wanted) -> list[str]:
        """Arguments that say where torch comes from, as far as no file says so."""
        if not wanted.torch_index:
            return []
        if wanted.torch_backend and self._knows_backend:
            return ["--torch-backend", wanted.torch_backend]
        # A mirror of PyTorch's index holds other packages, too, in old versions; uv would look for
        # those nowhere else. Best match is what pip does.
        options = ["--index-strategy", "unsafe-best-match"]
        if wanted.torch_backend:
            # PyTorch's own index, of a release that this uv is too old to know: public, no secret
            options += ["--extra-index-url", wanted.torch_index]
        return options
