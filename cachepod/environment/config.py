"""
The configuration: flags, environment, file, defaults, in this order of precedence.

Every value remembers who gave it, so that ``cachepod config`` can say so and an error can name
the file and the line, the variable or the flag. The whole reference is docs/configuration.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cachepod.environment import amounts
from cachepod.environment import settings as read
from cachepod.environment.requirement import shown_path
from cachepod.environment.settings import Given
from cachepod.environment.urls import masked
from cachepod.errors import ConfigurationProblem, UsageProblem
from cachepod.snapshot.stamp import ENVIRONMENT_TREE
from cachepod.stores.mounts import place_of

FILE = "cachepod.toml"
PROJECT_FILE = "pyproject.toml"
PREFIX = "CACHEPOD_"
DEFAULT = "default"

_FLAG, _VARIABLE, _FILE, _NOBODY = range(4)


@dataclass(frozen=True)
class Key:
    """
    One key of the configuration.

    Args:
        reader: Makes a value of the right type of what was given.

        flag: Its option on the command line; empty where it has none.

        other_variables: Environment variables that count besides ``CACHEPOD_<KEY>``.
    """

    reader: read.Reader
    flag: str = ""
    other_variables: tuple[str, ...] = ()


KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "store": Key(read.places, "--store"),
        "prefix": Key(read.path, "--prefix"),
        "requirements": Key(read.paths, "-r"),
        "packages": Key(read.texts),
        "lock": Key(read.path),
        "trees": Key(read.folders, "--tree"),
        "key": Key(read.user_key, "--key"),
        "handler": Key(read.text, "--handler", ("HANDLER_TYPE",)),
        "python": Key(read.command),
        "cuda": Key(read.cuda),
        "torch_index": Key(read.torch_index),
        "index_url": Key(read.url),
        "extra_index_urls": Key(read.urls),
        "find_links": Key(read.places),
        "apt": Key(read.apt_packages),
        "check": Key(read.modules),
        "installer": Key(read.one_of("auto", "uv", "pip")),
        "cache_dir": Key(read.path, "--cache-dir"),
        "level": Key(read.whole(1, 22), "--level"),
        "threads": Key(read.whole(0), "--threads"),
        "direct": Key(read.yes_or_no, "--no-direct"),
        "timeout": Key(read.number(0), "--timeout"),
        "wait": Key(read.number(0), "--wait"),
        "min_free": Key(read.number(0, 0.9, "write 0.1 for a tenth of the file system")),
        "compile": Key(read.yes_or_no),
        "fill": Key(read.one_of("background", "after", "off"), "--fill"),
        "keep_last": Key(read.whole(0), "--keep-last"),
        "max_age": Key(amounts.duration, "--max-age"),
        "max_size": Key(amounts.size, "--max-size"),
        "keep": Key(amounts.keys, "--keep"),
        "grace": Key(amounts.duration, "--grace"),
        "signing_key": Key(read.path),
        "trusted_keys": Key(read.paths),
    }
)


@dataclass(frozen=True)
class Settings:
    """
    The effective configuration; docs/configuration.md says what each key means.

    Args:
        sources: Name of a key to who gave it: ``flag --store``, ``environment CACHEPOD_STORE``,
            ``cachepod.toml:12`` or ``default``.

        root: Folder of the configuration file; the working directory where there is none.

        file: The configuration file.

        notes: What a user should know, such as a variable that is misspelled.
    """

    prefix: Path
    root: Path
    store: tuple[str, ...] = field(default=(), repr=False)
    requirements: tuple[Path, ...] = ()
    packages: tuple[str, ...] = field(default=(), repr=False)
    lock: Path | None = None
    trees: Mapping[str, Path] = field(default_factory=dict)
    key: str | None = None
    handler: str = ""
    python: str = ""
    cuda: str = ""
    torch_index: str = field(default="auto", repr=False)
    index_url: str = field(default="", repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    apt: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    installer: str = "auto"
    cache_dir: Path | None = None
    level: int = 3
    threads: int = 0
    direct: bool = True
    timeout: float = 180.0
    wait: float = 240.0
    min_free: float = 0.10
    compile: bool = True
    fill: str = "background"
    keep_last: int | None = None
    max_age: float | None = None
    max_size: int | None = None
    keep: tuple[str, ...] = ()
    grace: float = 180.0
    signing_key: Path | None = field(default=None, repr=False)
    trusted_keys: tuple[Path, ...] = field(default=(), repr=False)
    sources: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def wants_environment(self) -> bool:
        """Whether there is a Python environment to make; else there are trees alone."""
        return bool(self.requirements or self.packages or self.lock)

    @property
    def signed(self) -> bool:
        """Whether only snapshots that a trusted key has signed are believed."""
        return bool(self.signing_key or self.trusted_keys)

    def source(self, name: str) -> str:
        """Who gave the key *name*, as an error names it: ``cachepod.toml:3``, ``-r``."""
        return self.sources.get(name, DEFAULT).removeprefix("flag ").removeprefix("environment ")


@dataclass(frozen=True)
class Row:
    """
    One key of the effective configuration, fit to be shown.

    Args:
        name: The key.

        value: Of JSON's types, credentials masked.

        source: Who gave it.
    """

    name: str
    value: Any
    source: str

    @property
    def text(self) -> str:
        """The value in one line."""
        if isinstance(self.value, dict):
            return ", ".join(f"{name}={value}" for name, value in self.value.items())
        if isinstance(self.value, list):
            return ", ".join(self.value)
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, float):
            return f"{self.value:g}"
        return "" if self.value is None else str(self.value)


def rows(settings: Settings) -> list[Row]:
    """Every key, its value and its source, in the order of the reference."""
    return [
        Row(name, _shown(_known(name, settings)), settings.sources.get(name, DEFAULT))
        for name in KEYS
    ]


#: Settings that name files of keys, where somebody may put a key itself by mistake.
_KEY_FILES = frozenset({"signing_key", "trusted_keys"})


def _known(name: str, settings: Settings) -> object:
    """The value of the key *name*, without what could be a secret."""
    value = getattr(settings, name)
    if name not in _KEY_FILES or not value:
        return value
    paths = value if isinstance(value, tuple) else (value,)
    shown = tuple(str(path) if os.path.lexists(path) else "*** (no such file)" for path in paths)
    return shown if isinstance(value, tuple) else shown[0]


def _shown(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: str(folder) for name, folder in value.items()}
    if isinstance(value, tuple):
        return [masked(str(item)) for item in value]
    if isinstance(value, (str, Path)):
        return masked(str(value))
    return value


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Settings:
    """
    Put the effective configuration together.

    Args:
        flags: Values of options by the key they set, and ``config`` for the file; None and the
            empty tuple mean that an option was not given.

        environ: The environment's variables.

        cwd: Where the configuration file is looked for, upwards, and what relative paths of
            flags and variables count from.

    Raises:
        ConfigurationProblem: Somebody gave a value that cannot be; the message names the file
            and line, the variable or the flag.

        UsageProblem: There is no file of the given name.
    """
    cwd = Path(os.path.abspath(cwd))
    unknown = set(flags) - set(KEYS) - {"config"}
    if unknown:
        raise TypeError(f"no keys of the configuration: {sorted(unknown)}")
    file = _find_file(flags.get("config"), environ, cwd)
    root = file.parent if file is not None and file.is_file() else cwd
    layers = (
        _from_flags(flags, cwd),
        _from_environment(environ, cwd),
        _from_file(file, root) if file is not None else {},
    )
    given: dict[str, tuple[int, Given]] = {}
    for rank, layer in enumerate(layers):
        for name, value in layer.items():
            given.setdefault(name, (rank, value))
    _set_lock_aside(given)
    values: dict[str, Any] = {
        name: KEYS[name].reader(name, value) for name, (_, value) in given.items()
    }
    sources = {name: given[name][1].source if name in given else DEFAULT for name in KEYS}
    values.setdefault("prefix", root / ".venv")
    if not values.get("store"):
        from cachepod.stores.url import default_store_url

        values["store"] = (default_store_url(environ),)
        sources["store"] = DEFAULT
    settings = Settings(**values, root=root, file=file, sources=sources, notes=_misspelled(environ))
    _check_combinations(settings)
    return settings


def _set_lock_aside(given: dict[str, tuple[int, Given]]) -> None:
    """
    A lock replaces the requirements it was made of, not ones that were asked for since: a flag
    ``-r`` is not answered with the lock of the configuration file.
    """
    asked = [given[name][0] for name in ("requirements", "packages") if name in given]
    if "lock" in given and asked and min(asked) < given["lock"][0]:
        del given["lock"]


def _find_file(flag: object, environ: Mapping[str, str], cwd: Path) -> Path | None:
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


def _from_file(file: Path, root: Path) -> dict[str, Given]:
    try:
        table, lines = _table_of(file)
    except OSError as error:
        raise UsageProblem(f"{shown_path(file)} cannot be read: {error.strerror}") from None
    if table is None:
        raise UsageProblem(f"{shown_path(file)} has no table [tool.cachepod]")
    found = {}
    for name, value in table.items():
        where = f"{shown_path(file)}:{lines.get((name,), 1)}"
        if name not in KEYS:
            nearest = _nearest(name, KEYS)
            hint = f"did you mean {nearest}?" if nearest else ""
            raise ConfigurationProblem(where, f"unknown key {name!r}", hint=hint)
        inner = {
            path[1]: f"{shown_path(file)}:{line}"
            for path, line in lines.items()
            if len(path) == 2 and path[0] == name
        }
        found[name] = Given(value, where, where, root, inner=inner)
    return found


def _from_environment(environ: Mapping[str, str], cwd: Path) -> dict[str, Given]:
    found = {}
    for name, key in KEYS.items():
        for variable in (f"{PREFIX}{name.upper()}", *key.other_variables):
            if environ.get(variable, "").strip():
                found[name] = Given(
                    environ[variable], variable, f"environment {variable}", cwd, spaced=True
                )
                break
    return found


def _from_flags(flags: Mapping[str, object], cwd: Path) -> dict[str, Given]:
    return {
        name: Given(value, KEYS[name].flag or name, f"flag {KEYS[name].flag or name}", cwd)
        for name, value in flags.items()
        if name != "config" and value is not None and value != ()
    }


def _misspelled(environ: Mapping[str, str]) -> tuple[str, ...]:
    """
    Variables that nearly are ours. They are told and not refused: a container's environment is
    not always its user's, and it must not keep a worker from starting.
    """
    known = {*KEYS, "config"}
    notes = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name not in known:
            guess = _nearest(name, known)
            if guess:
                meant = f"{PREFIX}{guess.upper()}"
                notes.append(f"the variable {variable} means nothing; did you mean {meant}?")
    return tuple(notes)


def _nearest(name: str, known: Iterable[str]) -> str:
    """The one of *known* that *name* resembles; empty where it resembles none."""
    from difflib import get_close_matches

    close = get_close_matches(name.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    return close[0] if close else ""


def _check_combinations(settings: Settings) -> None:
    """Refuse what cannot be together, naming both."""

    def clash(one: str, other: str, why: str, hint: str = "") -> ConfigurationProblem:
        first, second = settings.source(one), settings.source(other)
        return ConfigurationProblem(first, f"{why} ({other}: {second})", hint=hint)

    if settings.key:
        for other in ("requirements", "packages", "lock", "apt"):
            if getattr(settings, other):
                raise clash(
                    "key",
                    other,
                    f"a key of your own cannot be had together with {other}",
                    "the key of an environment is computed; leave key out",
                )
        if not settings.trees:
            raise ConfigurationProblem(
                settings.source("key"),
                "a key of your own needs a tree",
                hint="name a directory with --tree NAME=DIR",
            )
    places: dict[str, tuple[str, Path]] = {
        f"the tree {name}": ("trees", folder) for name, folder in settings.trees.items()
    }
    if settings.wants_environment:
        if ENVIRONMENT_TREE in settings.trees:
            raise clash(
                "trees", "prefix", f"the tree {ENVIRONMENT_TREE} is the environment's own name"
            )
        if settings.prefix == Path("/"):
            raise ConfigurationProblem(settings.source("prefix"), "the prefix cannot be /")
        places["the prefix"] = ("prefix", settings.prefix)
    real = {what: (name, Path(place_of(str(folder)))) for what, (name, folder) in places.items()}
    listed = list(real.items())
    for number, (what, (name, folder)) in enumerate(listed):
        for other_what, (other, other_folder) in listed[number + 1 :]:
            if _overlap(folder, other_folder):
                raise clash(
                    name, other, f"{what} ({folder}) and {other_what} ({other_folder}) overlap"
                )
    kept = [("store", url, "the store") for url in settings.store]
    if settings.cache_dir is not None:
        kept.append(("cache_dir", str(settings.cache_dir), "the installer's cache"))
    for other, url, other_what in kept:
        if "://" in url and not url.startswith("file:///"):
            continue
        place = Path(place_of(url.removeprefix("file://")))
        for what, (name, folder) in listed:
            if _overlap(folder, place):
                raise clash(name, other, f"{what} ({folder}) and {other_what} ({place}) overlap")


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


assert set(KEYS) < {each.name for each in fields(Settings)}
