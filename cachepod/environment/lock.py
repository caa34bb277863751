"""
``cachepod lock``: the requirements resolved into a requirements file of pins and hashes.

The file can be committed: it names no index, no path of this machine and no credentials.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from cachepod.environment.config import Settings
from cachepod.environment.identity import Identity, identify
from cachepod.environment.installer import Wanted
from cachepod.environment.uv import Uv, find_uv
from cachepod.errors import InstallFailed, SpaceExhausted, TreeUnreadable, UsageProblem
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.system.urls import plain

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s;]+")
_LOCAL = re.compile(
    r"(?P<editable>-e\s+)?"
    r"(?:(?P<name>[A-Za-z0-9][\w.-]*)\s*(?P<extras>\[[^\]]*\])?\s*@\s*)?"
    r"(?P<path>file://\S+|/\S+?)(?P<behind>\[[^\]]*\])?(?P<rest>\s.*)?"
)
_FULL = (28, 122)  # ENOSPC, EDQUOT


@dataclass(frozen=True)
class LockReport:
    """
    What was locked.

    Args:
        outcome: ``written``, or ``unchanged`` if the file said all of it already.

        path: The file.

        packages: How many packages it pins.

        warnings: What a user should know of it.
    """

    outcome: str
    path: Path
    packages: int
    warnings: tuple[str, ...] = ()


def lock(
    settings: Settings,
    identity: Identity,
    output: Path,
    *,
    progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
) -> LockReport:
    """
    Resolve the requirements anew and write them to *output*, replacing it whole.

    Args:
        settings: The configuration. A lock in it is not read: it is what is being made.

        identity: Of *settings*; computed anew from the requirements if they name a lock, or if
            this machine gets something else for want of a GPU.

        output: The file. Local projects are written relative to its directory.

        progress: Told of the phase ``resolve``.

        environ: The user's environment; the process's own by default.

    Raises:
        UsageProblem: There are no requirements to lock.

        InstallFailed: They cannot be resolved, or there is no uv.

        TreeUnreadable: *output* cannot be written.
    """
    environ = dict(os.environ if environ is None else environ)
    if settings.lock is not None or identity.without_gpu:
        # what is locked is for every machine, not for one that has no GPU
        settings = replace(settings, lock=None, without_gpu="same")
        if settings.requirements or settings.packages:
            identity = identify(settings, environ)
    if not settings.requirements and not settings.packages:
        raise UsageProblem(
            "there is nothing to lock: no requirements are configured",
            hint="name a file with -r FILE or in cachepod.toml",
        )
    binary = find_uv()
    if binary is None:
        raise InstallFailed(
            "uv is not to be found, and pip makes no locks",
            hint="install cachepod with its dependencies: uv is one",
        )
    (progress or NoProgress()).phase("resolve")
    wanted = Wanted.of(settings, identity, environ)
    base = identity.interpreter.executable
    with tempfile.TemporaryDirectory(prefix="cachepod-lock-") as work:
        uv = Uv(binary, base, Path(work), output, settings.cache_dir)
        resolved = uv.compile(wanted, "--generate-hashes")
    lines, warnings = _portable(resolved, output.absolute().parent)
    plan = identity.flash_attn
    if plan is not None and not settings.flash_attn:
        # Once the lock is what counts, nobody reads the line any more.
        said = ", ".join(f'"{version}"' for version in plan.versions)
        warnings += (
            f"flash-attn ({plan.where}) is installed by wheel and not in the lock: "
            f"say flash_attn = [{said}] in the configuration",
        )
    text = _header(identity) + "".join(f"{line}\n" for line in lines)
    packages = sum(bool(line) and not line.startswith((" ", "#", "--")) for line in lines)
    outcome = "written" if _replace(output, text) else "unchanged"
    return LockReport(outcome, output, packages, warnings)


def _header(identity: Identity) -> str:
    python = identity.interpreter
    inputs = identity.fingerprint.inputs
    cuda = f", CUDA {inputs['cuda']}" if "cuda" in inputs else ""
    version = ".".join(python.version.split(".")[:2])
    return (
        f"# Made by cachepod lock for {python.implementation} {version} "
        f"on {python.platform}{cuda}.\n"
        '# Change the requirements and run it again; use it by lock = "FILE" in cachepod.toml.\n'
    )


def _portable(resolved: str, folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """The lines of *resolved* without this machine's paths and anybody's credentials."""
    lines = []
    warnings = []
    for line in resolved.splitlines():
        match = _LOCAL.fullmatch(line)
        if match:
            relative = _relative(match["path"], folder)
            extras = match["extras"] or match["behind"] or ""
            rest = match["rest"] or ""
            lines.append(f"{match['editable'] or ''}{relative}{extras}{rest}")
            if not rest.strip(" \\"):
                warnings.append(f"{relative} is a project on this disk, it has no hash")
            continue
        public = _URL.sub(lambda url: plain(url[0]), line)
        if public != line and _URL.sub(lambda url: url[0].lower(), line) != public:
            warnings.append(
                f"credentials were left out of {_URL.findall(public)[0]}: put them into netrc"
            )
        lines.append(public)
    return lines, tuple(warnings)


def _relative(path: str, folder: Path) -> str:
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://"))
    relative = os.path.relpath(path, folder)
    return relative if relative.startswith("..") else f"./{relative}"


def _replace(output: Path, text: str) -> bool:
    """Make *output* hold *text*, all at once; False if it does already."""
    try:
        if output.read_text("utf-8") == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        try:
            temporary.write_text(text, "utf-8")
            os.replace(temporary, output)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in _FULL:
            raise SpaceExhausted(str(output), os.strerror(error.errno)) from error
        raise TreeUnreadable(str(output), error.strerror or str(error)) from error
    return True
