"""
A configuration with one requirement changed.

Nothing is written beside the user's files: what the configuration asks for is read as cachepod
reads it, and goes as one flat file of requirements, or as a lock, into a folder of the benchmark's.
So the two keys differ in one input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.environment.requirements import Requirements

#: Small, pure Python, in need of nothing, on PyPI; the first that is not asked for is taken.
DEFAULTS = (
    "iniconfig==2.0.0"
    " --hash=sha256:b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374",
    "toolz==1.0.0 --hash=sha256:292c8f1c4e7516bf9086f8850935c799a874039c8bcf959d47b600e4c44a6236",
)


@dataclass(frozen=True)
class Configuration:
    """
    What is started.

    Args:
        settings: As cachepod has them.

        identity: Its key, and every input of it.

        environ: To be added to the environment of each command.

        arguments: More options of each command of the hook.

        change: How it differs from what the file says; empty if it does not.
    """

    settings: Settings
    identity: Identity
    environ: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    change: str = ""


def read(
    file: Path, root: Path, environ: Mapping[str, str], also: Mapping[str, str]
) -> Configuration:
    """
    The configuration *file* where *also* is added to the variables *environ*.

    Args:
        root: The working directory of the hook.

    Raises:
        CachepodError: It makes no sense, or asks for nothing.
    """
    return _read(file, root, environ, also, None, "")


def changed(
    base: Configuration,
    file: Path,
    root: Path,
    wanted: str,
    folder: Path,
    environ: Mapping[str, str],
) -> Configuration:
    """
    *base* with one requirement changed or added.

    Args:
        base: What :func:`read` made of *file*.

        file: The configuration file.

        root: The working directory of the hook.

        wanted: ``NAME==VERSION``, with ``--hash=sha256:...`` behind it where the requirements
            have hashes; empty for one of :data:`DEFAULTS`.

        folder: Where the requirements go. They may hold credentials, so only this user reads them.

        environ: The variables that *base* was read with.

    Raises:
        CachepodError: *wanted* is no requirement, or is there already.
    """
    from cachepod.environment import pep508
    from cachepod.environment.installer import write_private
    from cachepod.environment.requirements import read_requirements
    from cachepod.errors import UsageProblem

    settings, python = base.settings, base.identity.interpreter
    asked = base.identity.requirements
    if not wanted:
        wanted = next(each for each in DEFAULTS if not asked.wants(each.partition("==")[0]))
        if not any(line.hashed for line in asked.lines):
            wanted = wanted.partition(" ")[0]
    requirement, _, hashes = wanted.partition(" --hash")
    requirement = "".join(requirement.split())
    try:
        name = pep508.parse(requirement).name
    except pep508.Malformed as error:
        raise UsageProblem(f"--change {wanted!r} is not NAME==VERSION: {error}") from None
    if any(line.hashed for line in asked.lines) and not hashes:
        raise UsageProblem(
            "--change: the requirements have hashes, so the changed one needs its own",
            hint=f"give --change '{requirement} --hash=sha256:...'",
        )
    before = next((each.value for each in asked.lines if each.name == name), "")
    change = f"{requirement} instead of {before}" if before else f"{requirement} added"
    line = requirement + (f" --hash{hashes}" if hashes else "")

    def flat(files: Sequence[tuple[Path, str]], packages: Sequence[str], suffix: str) -> Path:
        found = read_requirements(
            files,
            packages,
            root=settings.root,
            variables=python.markers,
            environ=environ,
            leave_out=(settings.prefix,),
        )
        return write_private(folder / f"changed{suffix}", _flat(found, name, line, folder))

    path: Path | None = None
    if settings.lock is not None:
        also = {"CACHEPOD_LOCK": str(flat([(settings.lock, "lock")], (), ".lock"))}
    else:
        own = [step for step in settings.steps if not step.of_profile] or [settings.own_step]
        files = [each for step in own for each in step.files]
        path = flat(files, [each for step in own for each in step.packages], ".txt")
        # Of the file's own packages nothing is left: all but this one are in the flat file.
        also = {"CACHEPOD_PACKAGES": requirement}
    made = _read(file, root, environ, {**base.environ, **also}, path, change)
    if made.identity.key == base.identity.key:
        raise UsageProblem(f"--change {requirement}: the configuration asks for that already")
    return made


def _flat(asked: Requirements, name: str, line: str, folder: Path) -> str:
    """The text of a file with all that was *asked* for, and *line* instead of what *name* has."""
    from cachepod.environment.installer import write_private

    lines = [f"--index-url {asked.index_url}"] if asked.index_url else []
    lines += [f"--extra-index-url {url}" for url in asked.extra_index_urls]
    links = (each if "://" in each else Path(each).as_uri() for each in asked.find_links)
    lines += [f"--find-links {link}" for link in links]
    lines += [f"--no-binary {each}" for each in asked.no_binary]
    lines += [f"--only-binary {each}" for each in asked.only_binary]
    lines += ["--pre"] if asked.pre else []
    lines += ["--require-hashes"] if asked.require_hashes else []
    if asked.constraints:
        write_private(folder / "constraints.txt", asked.constraints_text)
        lines.append("-c constraints.txt")
    rest = replace(asked, lines=tuple(each for each in asked.lines if each.name != name))
    return "\n".join([*lines, rest.text + line]) + "\n"


def _read(
    file: Path,
    root: Path,
    environ: Mapping[str, str],
    also: Mapping[str, str],
    requirements: Path | None,
    change: str,
) -> Configuration:
    from cachepod.environment.config import load_settings
    from cachepod.environment.identity import identify

    flags: dict[str, object] = {"config": str(file)}
    arguments: tuple[str, ...] = ()
    if requirements is not None:
        flags["requirements"] = (str(requirements),)
        arguments = ("-r", str(requirements))
    settings = load_settings(flags, {**environ, **also}, root)
    identity = identify(settings, {**environ, **also})
    return Configuration(settings, identity, also, arguments, change)
