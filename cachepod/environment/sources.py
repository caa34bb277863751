"""
Where values of the configuration come from: the file, the environment, the command line.

Each function gives what was said there, not yet read: name of the key to :class:`.settings.Given`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cachepod.environment.keys import KEYS
from cachepod.environment.requirement import shown_path
from cachepod.environment.settings import Given
from cachepod.errors import ConfigurationProblem, UsageProblem

FILE = "cachepod.toml"
PROJECT_FILE = "pyproject.toml"
PREFIX = "CACHEPOD_"


def find_file(flag: object, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file that was named, else the first one upwards from *cwd*; None if there is none."""
    named = flag if flag else environ.get(f"{PREFIX}CONFIG")
    if named:
        path = cwd / os.path.expanduser(str(named))
        if not path.exists():
            said_by = "--config" if flag else f"{PREFIX}CONFIG"
            raise UsageProblem(f"{said_by}: the file {shown_path(path)} does not exist")
        return path
    for folder in (cwd, *cwd.parents):
        if (folder / FILE).is_file():
            return folder / FILE
        project = folder / PROJECT_FILE
        try:
            if b"cachepod" in project.read_bytes() and _table_of(project)[0] is not None:
                return project
        except OSError:
            continue
    return None


def _table_of(file: Path) -> tuple[Mapping[str, Any] | None, dict[tuple[str, ...], int]]:
    """The table of *file* that is ours, None where it has none, and the lines of its keys."""
    from cachepod.environment.toml import TOMLDecodeError, error_line, key_lines, loads

    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageProblem(f"{shown_path(file)}: the file is not UTF-8 text") from None
    try:
        table: Any = loads(text)
    except TOMLDecodeError as error:
        line, message = error_line(error, text)
        raise ConfigurationProblem(f"{shown_path(file)}:{line}", message) from None
    above: tuple[str, ...] = ()
    if file.name == PROJECT_FILE:
        above = ("tool", "cachepod")
        for part in above:
            table = table.get(part) if isinstance(table, dict) else None
    lines = key_lines(text)
    depth = len(above)
    inside = {path[depth:]: line for path, line in lines.items() if path[:depth] == above}
    if table is not None and not isinstance(table, dict):
        raise ConfigurationProblem(
            f"{shown_path(file)}:{inside.get((), 1)}", "tool.cachepod must be a table"
        )
    return table, inside


def from_file(file: Path, root: Path) -> dict[str, Given]:
    """What *file* says; relative paths in it count from *root*."""
    try:
        table, lines = _table_of(file)
    except OSError as error:
        raise UsageProblem(f"{shown_path(file)} cannot be read: {error.strerror}") from None
    if table is None:
        raise UsageProblem(f"{shown_path(file)} has no table [tool.cachepod]")
    found = {}
    for name, value in table.items():
        # the table that holds others may have no header of its own
        line = min((line for path, line in lines.items() if path[:1] == (name,)), default=1)
        where = f"{shown_path(file)}:{line}"
        if name not in KEYS:
            guess = nearest(name, KEYS)
            hint = f"did you mean {guess}?" if guess else ""
            raise ConfigurationProblem(where, f"unknown key {name!r}", hint=hint)
        inner = {
            ".".join(path[1:]): f"{shown_path(file)}:{line}"
            for path, line in lines.items()
            if len(path) > 1 and path[0] == name
        }
        found[name] = Given(value, where, where, root, inner=inner)
    return found


def from_environment(environ: Mapping[str, str], cwd: Path) -> dict[str, Given]:
    """What variables say."""
    found = {}
    for name, key in KEYS.items():
        if not key.variable:
            continue
        for variable in (f"{PREFIX}{name.upper()}", *key.other_variables):
            if environ.get(variable, "").strip():
                found[name] = Given(
                    environ[variable], variable, f"environment {variable}", cwd, spaced=True
                )
                break
    return found


def from_flags(flags: Mapping[str, object], cwd: Path) -> dict[str, Given]:
    """What the command line says."""
    return {
        name: Given(value, KEYS[name].flag or name, f"flag {KEYS[name].flag or name}", cwd)
        for name, value in flags.items()
        if name != "config" and value is not None and value != ()
    }


def misspelled(environ: Mapping[str, str]) -> tuple[str, ...]:
    """
    Variables that nearly are ours. They are told and not refused: a container's environment is
    not always its user's, and it must not keep a worker from starting.
    """
    known = {*(name for name, key in KEYS.items() if key.variable), "config"}
    notes = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name not in known:
            guess = nearest(name, known)
            if guess:
                meant = f"{PREFIX}{guess.upper()}"
                notes.append(f"the variable {variable} means nothing; did you mean {meant}?")
    return tuple(notes)


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of *known* that *name* resembles; empty where it resembles none."""
    from difflib import get_close_matches

    close = get_close_matches(name.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    return close[0] if close else ""
