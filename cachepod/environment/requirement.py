"""
One requirement: what of it decides the result, and how it is handed to the installer.

A local path counts by its content, a URL without its credentials, a name with its extras and
specifiers in one spelling.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

from cachepod.environment import content, pep508
from cachepod.errors import ConfigurationProblem
from cachepod.system.urls import masked, plain

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# not compiled before they are used: most files need none of them
_EXTRAS_BEHIND = r"(?P<path>.+?)(?:\[(?P<extras>[^\[\]]*)\])?"
_NAMED_URL = r"[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*@"
_PROJECT_FILES = ("pyproject.toml", "setup.py")
_EGG = r"[#&]egg=([^&\[]+)"


@dataclass(frozen=True)
class Requirement:
    """
    One thing to install, or one constraint.

    Args:
        name: Normalised; ``local project`` for a directory that does not tell its name.

        value: What is wanted of it, canonical and without secrets: ``==2.7.0``.

        line: For a requirements file of the installer; may hold credentials.

        where: ``FILE:LINE`` it was read from.

        pinned: The one version that will do; empty where several would.

        fixed: Whether the line leaves the index no choice: pinned, a URL, or a local path.

        hashed: Whether the line carries hashes.
    """

    name: str
    value: str
    line: str = field(repr=False)
    where: str
    pinned: str = ""
    fixed: bool = False
    hashed: bool = False


def by_name(
    wanted: pep508.Wanted, shown: str, folder: Path, where: str, leave_out: Collection[Path]
) -> Requirement:
    """A requirement that starts with a name."""
    head = wanted.name + wanted.bracket
    if not wanted.url:
        return Requirement(
            name=wanted.name,
            value=wanted.bracket + (",".join(wanted.clauses) or "any version"),
            line=head + ",".join(wanted.clauses),
            where=where,
            pinned=wanted.pinned,
            fixed=bool(wanted.pinned),
        )
    if wanted.url.startswith("file:") or not URL.match(wanted.url):
        path = existing(file_of(wanted.url), folder, where)
        kind, digest = _digested(path, where, leave_out)
        return Requirement(
            name=wanted.name,
            value=f"{wanted.bracket}{kind} sha256:{digest}",
            line=f"{head} @ {path.as_uri()}",
            where=where,
            pinned=pep508.from_file_name(path.name)[1],
            fixed=True,
        )
    return Requirement(
        name=wanted.name,
        value=f"{wanted.bracket}@ {plain(pep508.parse(shown).url)}",
        line=f"{head} @ {wanted.url}",
        where=where,
        pinned=_told_by_url(wanted.url)[1],
        fixed=True,
    )


def direct(
    target: str,
    shown: str,
    folder: Path,
    where: str,
    leave_out: Collection[Path],
    *,
    editable: bool,
) -> Requirement:
    """A requirement that is a URL or a path and nothing else."""
    option, prefix = ("-e ", "editable ") if editable else ("", "")
    if URL.match(target) and not target.startswith("file://"):
        if editable and "+" not in target.partition("://")[0]:
            raise ConfigurationProblem(
                where, "only a directory or a version control URL can be editable"
            )
        name, version = _told_by_url(target)
        return Requirement(
            name=name or plain(shown),
            value=f"{prefix}@ {plain(shown)}",
            line=option + target,
            where=where,
            pinned=version,
            fixed=True,
        )
    match = re.fullmatch(_EXTRAS_BEHIND, target)
    assert match is not None, "the expression matches any text that is not empty"
    extras = pep508.parse(f"x[{match['extras'] or ''}]").bracket
    path = existing(file_of(match["path"]), folder, where)
    kind, digest = _digested(path, where, leave_out)
    if editable and kind != "directory":
        raise ConfigurationProblem(where, f"{shown_path(path)} cannot be editable: it is a file")
    name, version = pep508.from_file_name(path.name)
    if kind == "directory":
        name = _project_name(path)
    # an editable environment points at the directory, so where it lies matters too
    place = f"{path} " if editable else ""
    spelled = path.as_uri() if " " in str(path) else str(path)
    return Requirement(
        name=name or f"local {'project' if kind == 'directory' else 'package'}",
        value=f"{prefix}{extras}{kind} {place}sha256:{digest}",
        line=f"{option}{spelled}{extras}",
        where=where,
        pinned=version,
        fixed=True,
    )


def with_hashes(found: Requirement, hashes: Sequence[str]) -> Requirement:
    if not hashes:
        return found
    unique = sorted(set(hashes))
    if len(unique) == 1:
        said = f" {unique[0]}"
    else:
        digest = hashlib.sha256(" ".join(unique).encode()).hexdigest()
        said = f" {len(unique)} hashes sha256:{digest}"
    line = found.line + "".join(f" --hash={each}" for each in unique)
    return replace(found, value=found.value + said, line=line, hashed=True)


def looks_local(text: str, *, editable: bool) -> bool:
    """
    pip's rule: what has a slash or starts with a dot, and what is called like an archive; behind
    ``-e`` everything but a URL.
    """
    if re.match(_NAMED_URL, text):
        return False
    if editable:
        return True
    path = text.partition(" ;")[0].partition("[")[0].strip()
    return path.startswith((".", "~")) or os.sep in path or path.lower().endswith(pep508.ARCHIVES)


def file_of(text: str) -> str:
    """The path in a ``file:`` URL, or the path itself, ``~`` expanded."""
    if text.startswith("file:"):
        text = unquote(text.removeprefix("file:").partition("#")[0])
        if text.startswith("//"):
            text = "/" + text[2:].partition("/")[2]
    return os.path.expanduser(text)


def existing(text: str, folder: Path, where: str) -> Path:
    """
    Where a local path leads: from the file that names it on, else from the working directory on,
    which is how pip reads it.
    """
    candidates = [Path(os.path.abspath(folder / text)), Path(os.path.abspath(text))]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise ConfigurationProblem(where, f"{masked(text)} does not exist in {shown_path(folder)}")


def _digested(path: Path, where: str, leave_out: Collection[Path]) -> tuple[str, str]:
    """What *path* is, and the digest of its content."""
    try:
        if path.is_dir():
            if not any((path / name).is_file() for name in _PROJECT_FILES):
                raise ConfigurationProblem(
                    where,
                    f"{shown_path(path)} is no Python project: "
                    f"it has neither {' nor '.join(_PROJECT_FILES)}",
                )
            return "directory", content.directory_digest(path, leave_out)
        return "file", content.file_digest(path)
    except OSError as error:
        name = os.fsdecode(error.filename or path)
        raise ConfigurationProblem(where, f"{name} cannot be read: {error.strerror}") from None


def _project_name(path: Path) -> str:
    """The name that a project's pyproject.toml tells; empty where it tells none."""
    try:
        text = (path / "pyproject.toml").read_text("utf-8")
    except (OSError, ValueError):
        return ""
    from cachepod.environment.toml import TOMLDecodeError, loads

    try:
        name = loads(text).get("project", {}).get("name", "")
    except (TOMLDecodeError, AttributeError):
        return ""
    return pep508.normalized(name) if isinstance(name, str) else ""


def _told_by_url(url: str) -> tuple[str, str]:
    """Name and version that a URL tells, by ``#egg=`` or by its file name."""
    egg = re.search(_EGG, url)
    if egg:
        return pep508.normalized(unquote(egg[1])), ""
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    return pep508.from_file_name(unquote(path.rsplit("/", 1)[-1]))


def shown_path(path: Path) -> str:
    """*path* for a reader: relative where it lies below the working directory."""
    text, here = os.path.abspath(path), os.getcwd()
    return text[len(here) + 1 :] if text.startswith(here + os.sep) and here != os.sep else text
