"""The installer where uv is not to be had: pip, without leaving itself in the environment."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cachepod.environment.distributions import installed_versions, normal_name
from cachepod.environment.failures import explain
from cachepod.environment.flash_plan import NAME as FLASH_ATTN
from cachepod.environment.installer import (
    Build,
    Resolution,
    Wanted,
    Watch,
    child_environ,
    pinned_names,
    stand_ins,
    with_hashes,
    write_private,
)
from cachepod.environment.space import Artifact
from cachepod.environment.venv import create, site_packages
from cachepod.environment.without_gpu import is_left_out
from cachepod.errors import InstallFailed
from cachepod.system.process import growth, run

_ALONE = ("--no-deps", "--no-compile", "--no-warn-script-location", "--progress-bar", "off")

# Where an interpreter keeps the pip that its venv module would install. Debian puts it elsewhere
# and says so in WHEEL_PKG_DIR.
_BUNDLED = """
import glob, os, sysconfig
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR") or ""]
try:
    import ensurepip
    folders.append(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"))
except ImportError:
    pass
found = [path for folder in folders if folder for path in glob.glob(folder + "/pip-*.whl")]
print(max(found, default=""))
"""


def find_pip(base: Path) -> tuple[str, ...] | None:
    """
    How to start pip, its ``--python`` option or the environment's interpreter left out.

    Returns:
        A command if cachepod's own interpreter has pip; a single path if the *base* interpreter
        carries a wheel of it, which runs as a script; None if there is no pip at all.
    """
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip")
    answer = subprocess.run(
        [str(base), "-I", "-c", _BUNDLED], capture_output=True, text=True, check=False
    )
    wheel = answer.stdout.strip()
    return (f"{wheel}/pip",) if answer.returncode == 0 and wheel else None


class Pip:
    """pip, run from outside the environment."""

    name = "pip"

    def __init__(
        self,
        command: tuple[str, ...],
        base: Path,
        work: Path,
        prefix: Path,
        cache: Path | None,
    ) -> None:
        """
        Args:
            command: As :func:`find_pip` gives it.

            base: The interpreter that is resolved for.

            work: A directory for temporary files, on the file system of the prefix.

            prefix: The environment, for errors.

            cache: A lasting cache; None for none.
        """
        self._command = command
        self._base = base
        self._work = work
        self._prefix = prefix
        self._cache = cache
        self._temporary = work / "tmp"
        self._temporary.mkdir(exist_ok=True)

    def resolve(self, wanted: Wanted) -> Resolution:
        """See :class:`cachepod.environment.installer.Installer`."""
        if wanted.locked:
            return Resolution(tuple(line.line for line in wanted.requirements.lines), ())
        # An empty environment to resolve for: a system's own may refuse to be touched even in
        # a rehearsal, and what it holds already must not count.
        scratch = self._work / "resolve"
        create(self._base, scratch)
        report = self._work / "report.json"
        links = stand_ins(self._work / "provided", FLASH_ATTN, wanted.provided)
        asked = self._file("requirements.in", wanted, links + wanted.requirements.text)
        arguments = ["install", "--dry-run", "--report", str(report), "-r", str(asked)]
        if wanted.requirements.constraints:
            constraints = self._work / "constraints.txt"
            write_private(constraints, wanted.requirements.constraints_text)
            arguments += ["--constraint", str(constraints)]
        if wanted.requirements.pre:
            arguments.append("--pre")
        self._run(wanted, scratch / "bin" / "python", arguments, Watch())
        gone = (*wanted.left_out, FLASH_ATTN) if wanted.provided else wanted.left_out
        installs = [
            item
            for item in json.loads(report.read_bytes())["install"]
            if not is_left_out(normal_name(item["metadata"]["name"]), gone)
        ]
        lines = tuple(sorted(_line(item) for item in installs))
        if wanted.hashed:
            lines = with_hashes(lines, wanted.requirements)
        return Resolution(lines, tuple(_artifact(item) for item in installs))

    def sync(self, wanted: Wanted, resolution: Resolution, python: Path, watch: Watch) -> None:
        """See :class:`cachepod.environment.installer.Installer`."""
        # pip takes a local wheel of the installed version for the installed one.
        kept = pinned_names(resolution.lines) - wanted.local_names(resolution.artifacts)
        surplus = set(installed_versions(site_packages(python))) - kept
        if surplus:
            self._run(wanted, python, ["uninstall", "--yes", *sorted(surplus)], watch)
        if not resolution.lines:
            return
        exact = self._file("exact.txt", wanted, "".join(f"{line}\n" for line in resolution.lines))
        arguments = ["install", "--no-deps", "--no-compile", "--no-warn-script-location"]
        arguments += ["--progress-bar", "off", "-r", str(exact)]
        if wanted.hashed:
            arguments.append("--require-hashes")
        self._run(wanted, python, arguments, watch)

    def add(self, wanted: Wanted, wheel: Path, exact: str, python: Path, watch: Watch) -> None:
        """See :class:`cachepod.environment.installer.Installer`."""
        arguments = ["install", exact, "--no-index", "--find-links", str(wheel.parent), *_ALONE]
        self._run(wanted, python, arguments, watch)

    def build(self, wanted: Wanted, build: Build, python: Path, watch: Watch) -> None:
        """See :class:`cachepod.environment.installer.Installer`."""
        tools = self._work / "build-tools"
        needs = self._file("build-tools.in", wanted, "".join(f"{each}\n" for each in build.needs))
        self._run(wanted, python, ["install", "-r", str(needs), "--target", str(tools)], watch)
        options = wanted.options(torch_as_extra=True).replace(f"--only-binary {build.name}\n", "")
        asked = write_private(self._work / "build.in", f"{options}{build.line}\n")
        arguments = ["install", "-r", str(asked), "--no-build-isolation", *_ALONE]
        arguments += ["--no-binary", build.name]
        environ = {**build.environ, "PYTHONPATH": str(tools)}
        self._run(wanted, python, arguments, watch, environ)

    def _file(self, name: str, wanted: Wanted, text: str) -> Path:
        return write_private(self._work / name, wanted.options(torch_as_extra=True) + text)

    def _run(
        self,
        wanted: Wanted,
        python: Path,
        arguments: list[str],
        watch: Watch,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Run pip for the environment of *python* and turn its failure into an error."""
        if len(self._command) == 1:
            command = [str(python), "-s", *self._command]
        else:
            command = [*self._command, "--python", str(python)]
        command += [arguments[0], *arguments[1:]]
        if arguments[0] == "install":
            command += ["--cache-dir", str(self._cache)] if self._cache else ["--no-cache-dir"]

        def line(text: str) -> None:
            if text.strip().startswith("Building wheel for "):
                watch.note(f"{text.strip().partition(' (')[0]} from source")

        outcome = run(
            command,
            environ={**child_environ(wanted.environ, self._temporary), **more},
            directory=wanted.directory,
            on_line=line,
            on_tick=growth(watch.written),
        )
        if outcome.status:
            raise explain(
                outcome.output,
                installer=self.name,
                where=str(self._prefix),
                environ=wanted.environ,
            )


def _line(item: dict[str, Any]) -> str:
    """One package of pip's report (its format is documented, version 1) as a requirement."""
    metadata, origin = item["metadata"], item["download_info"]
    if not item.get("is_direct"):
        return f"{metadata['name']}=={metadata['version']}"
    url = origin["url"]
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if origin.get("dir_info", {}).get("editable"):
        if not url.startswith("file://"):
            raise InstallFailed(f"{metadata['name']} cannot be editable")
        return f"-e {url}"
    return f"{metadata['name']} @ {url}"


def _artifact(item: dict[str, Any]) -> Artifact:
    metadata, origin = item["metadata"], item["download_info"]
    url = str(origin["url"])
    if "dir_info" in origin or "vcs_info" in origin:
        return Artifact(metadata["name"], metadata["version"], "", 0, "project")
    kind = "wheel" if url.partition("#")[0].endswith(".whl") else "source"
    return Artifact(metadata["name"].lower(), metadata["version"], url, 0, kind)
