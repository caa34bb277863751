"""
The configuration: flags, environment, file, defaults, in this order of precedence.

Every value remembers who gave it, so that ``cachepod config`` can say so and an error can name
the file and the line, the variable or the flag. The whole reference is docs/configuration.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachepod.environment.keys import KEYS
from cachepod.environment.settings import FLASH_ATTN_RELEASES, TOOLKIT_REPOSITORY, Given
from cachepod.environment.sources import (
    find_file,
    from_environment,
    from_file,
    from_flags,
    misspelled,
)
from cachepod.environment.without_gpu import check_index
from cachepod.errors import ConfigurationProblem
from cachepod.snapshot.stamp import CUDA_TREE, ENVIRONMENT_TREE
from cachepod.stores.mounts import place_of
from cachepod.system.urls import masked

if TYPE_CHECKING:
    from cachepod.environment.steps import Step

DEFAULT = "default"

#: Where distributions and others put their files side by side.
_SHARED = frozenset(
    map(Path, ("/", "/opt", "/root", "/srv", "/usr", "/usr/lib", "/usr/local", "/var"))
)

_FLAG, _VARIABLE, _FILE, _NOBODY = range(4)


@dataclass(frozen=True)
class Settings:
    """
    The effective configuration; docs/configuration.md says what each key means.

    Args:
        sources: Name of a key to who gave it: ``flag --store``, ``environment CACHEPOD_STORE``,
            ``cachepod.toml:12``, ``profile tts`` or ``default``; several for a list that is joined.

        root: Folder of the configuration file; the working directory where there is none.

        file: The configuration file.

        notes: What a user should know, such as a variable that is misspelled.

        steps: With a handler, what its profile and the configuration ask for one after the other;
            ``requirements`` and ``packages`` have all of it.

        handler_unknown: Whether the handler is a name alone, with no profile.
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
    handlers: Mapping[str, Mapping[str, object]] = field(default_factory=dict, repr=False)
    python: str = ""
    cuda: str = ""
    torch_index: str = field(default="auto", repr=False)
    index_url: str = field(default="", repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    without_gpu: str = "same"
    toolkit: bool | Path = False
    toolkit_repository: str = field(default=TOOLKIT_REPOSITORY, repr=False)
    flash_attn: tuple[str, ...] = ()
    flash_attn_sources: tuple[str, ...] = field(default=(FLASH_ATTN_RELEASES,), repr=False)
    flash_attn_missing: str = "error"
    flash_attn_build: bool = False
    apt: tuple[str, ...] = ()
    apt_missing: str = "error"
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
    steps: tuple[Step, ...] = field(default=(), repr=False)
    handler_unknown: bool = False

    @property
    def own_step(self) -> Step:
        """What the configuration asks for where there is no profile."""
        from cachepod.environment.steps import Step

        where = self.source("requirements")
        files = tuple((path, where) for path in self.requirements)
        return Step(files, self.packages, self.source("packages"))

    @property
    def wants_environment(self) -> bool:
        """Whether there is a Python environment to make; else there are trees alone."""
        return bool(self.requirements or self.packages or self.lock)

    @property
    def wants_packages(self) -> bool:
        """Whether packages are wanted that the system has to have: apt's."""
        return bool(self.apt) or self.toolkit is True

    @property
    def places(self) -> tuple[Path, ...]:
        """Directories that tell this configuration from others on this machine."""
        places = list(self.trees.values())
        if isinstance(self.toolkit, Path):
            places.append(self.toolkit)
        if self.wants_environment:
            places.append(self.prefix)
        return tuple(places)

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
            if any(isinstance(value, dict) for value in self.value.values()):
                return ", ".join(self.value)
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
        return {name: _shown(inner) for name, inner in value.items()}
    if isinstance(value, (tuple, list)):
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
    file = find_file(flags.get("config"), environ, cwd)
    root = file.parent if file is not None and file.is_file() else cwd
    layers = (
        from_flags(flags, cwd),
        from_environment(environ, cwd),
        from_file(file, root) if file is not None else {},
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
    notes = misspelled(environ)
    if "handlers" in given or values.get("handler"):
        from cachepod.environment.profiles import profiled

        profile = profiled(given, values, layers[_FILE].get("handler"))
        values.update(profile.values)
        sources.update(profile.sources)
        values.update(steps=profile.steps, handler_unknown=profile.unknown)
        notes = (*notes, *profile.notes)
    values.setdefault("prefix", root / ".venv")
    if not values.get("store"):
        from cachepod.stores.url import default_store_url

        values["store"] = (default_store_url(environ),)
        sources["store"] = DEFAULT
    settings = Settings(**values, root=root, file=file, sources=sources, notes=notes)
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


def _check_combinations(settings: Settings) -> None:
    """Refuse what cannot be together, naming both."""
    check_index(settings)

    def clash(one: str, other: str, why: str, hint: str = "") -> ConfigurationProblem:
        first, second = settings.source(one), settings.source(other)
        return ConfigurationProblem(first, f"{why} ({other}: {second})", hint=hint)

    if settings.key:
        others = ["requirements", "packages", "lock", "apt"]
        if settings.toolkit is True:
            others.append("toolkit")
        for other in others:
            if getattr(settings, other):
                raise clash(
                    "key",
                    other,
                    f"a key of your own cannot be had together with {other}",
                    "the key of an environment is computed; leave key out",
                )
        if not settings.trees and not isinstance(settings.toolkit, Path):
            raise ConfigurationProblem(
                settings.source("key"),
                "a key of your own needs a tree",
                hint="name a directory with --tree NAME=DIR",
            )
    places: dict[str, tuple[str, Path]] = {
        f"the tree {name}": ("trees", folder) for name, folder in settings.trees.items()
    }
    if isinstance(settings.toolkit, Path):
        if CUDA_TREE in settings.trees:
            raise clash("trees", "toolkit", f"the tree {CUDA_TREE} is the toolkit's own name")
        if settings.toolkit in _SHARED:
            raise ConfigurationProblem(
                settings.source("toolkit"),
                f"toolkit: {settings.toolkit} holds more than a CUDA toolkit",
                hint="name a directory of its own, as /usr/local/cuda-12.6",
            )
        places["the toolkit"] = ("toolkit", settings.toolkit)
    if settings.wants_packages and "system" in settings.trees:
        raise clash("trees", "apt", "the tree system is that of the apt packages")
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
