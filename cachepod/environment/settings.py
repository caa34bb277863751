"""
How each kind of value of the configuration is read, whoever gives it.

A file gives TOML's types; the environment and the command line give text. Both end as the types
of :class:`cachepod.environment.config.Settings`, or as an error that names the giver.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cachepod.errors import CachepodError, ConfigurationProblem, DriverPackage
from cachepod.model.names import check_tree_name, check_user_key
from cachepod.system.urls import masked

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
# not compiled before they are used: most configurations need none of them
_MODULE = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_APT = r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=\S+)?"
_CUDA = r"\d{1,2}\.\d{1,2}"
_VERSION = r"\d+(\.\d+)*([a-z]+\d*)?(\.post\d+)?"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://\S+"

#: Where NVIDIA keeps the packages of CUDA, a folder for each distribution.
TOOLKIT_REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos"
#: Where the authors of flash-attn keep its wheels, a folder for each version.
FLASH_ATTN_RELEASES = "https://github.com/Dao-AILab/flash-attention/releases/download/v{version}"


@dataclass(frozen=True)
class Given:
    """
    A value as somebody gave it.

    Args:
        value: Of TOML's types, or text.

        where: Names the giver in an error: ``cachepod.toml:12``, ``CACHEPOD_LEVEL``, ``--level``.

        source: Names it where the configuration is shown: ``environment CACHEPOD_LEVEL``.

        folder: Where relative paths count from.

        spaced: Whether a text for a list holds its elements between blanks.

        inner: Names the places of a table's keys; those of tables in it as ``outer.inner``.
    """

    value: object
    where: str
    source: str
    folder: Path
    spaced: bool = False
    inner: Mapping[str, str] = field(default_factory=dict)

    def problem(self, what: str, hint: str = "") -> ConfigurationProblem:
        """An error about this value."""
        return ConfigurationProblem(self.where, what, hint=hint)


Reader = Callable[[str, Given], object]


def text(name: str, given: Given) -> str:
    """One line of text."""
    if not isinstance(given.value, (str, os.PathLike)):
        raise given.problem(f"{name} must be text in quotes, not {_kind(given.value)}")
    value = os.fspath(given.value)
    if not isinstance(value, str) or any(letter in value for letter in "\0\n\r"):
        raise given.problem(f"{name} must be one line of text")
    return value.strip()


def texts(name: str, given: Given) -> tuple[str, ...]:
    """A list of lines; one text alone is a list of one."""
    value = given.value
    if isinstance(value, str):
        return tuple(value.split()) if given.spaced else (text(name, given),)
    if not isinstance(value, (list, tuple)):
        raise given.problem(f"{name} must be a list of texts, not {_kind(value)}")
    found = []
    for item in value:
        if not isinstance(item, (str, os.PathLike)):
            raise given.problem(f"{name} must be a list of texts, but has {_kind(item)} in it")
        found.append(text(name, Given(item, given.where, given.source, given.folder)))
    return tuple(found)


def path(name: str, given: Given) -> Path:
    """An absolute path; relative ones count from the giver's folder."""
    value = text(name, given)
    if not value:
        raise given.problem(f"{name} is empty")
    return _absolute(value, given)


def paths(name: str, given: Given) -> tuple[Path, ...]:
    """A list of them."""
    values = texts(name, given)
    if "" in values:
        raise given.problem(f"{name} has an empty path in it")
    return tuple(_absolute(value, given) for value in values)


def places(name: str, given: Given) -> tuple[str, ...]:
    """Directories and URLs; a directory becomes absolute."""
    values = texts(name, given)
    if "" in values:
        raise given.problem(f"{name} has an empty place in it")
    return tuple(value if "://" in value else str(_absolute(value, given)) for value in values)


def folders(name: str, given: Given) -> Mapping[str, Path]:
    """Named directories: a table, or ``NAME=DIR`` texts."""
    value = given.value
    pairs: list[tuple[str, object]]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = []
        for item in texts(name, given):
            tree, equals, place = item.partition("=")
            if not equals:
                raise given.problem(f"{masked(item)!r} is not of the form NAME=DIR")
            pairs.append((tree.strip(), place))
    found: dict[str, Path] = {}
    for tree, folder in pairs:
        where = given.inner.get(tree, given.where)
        one = Given(folder, where, given.source, given.folder)
        _adopt(one, check_tree_name, tree)
        if tree in found:
            raise one.problem(f"the tree {tree} is given twice")
        found[tree] = path(f"{name}.{tree}", one)
    return found


def tables(name: str, given: Given) -> Mapping[str, Mapping[str, object]]:
    """Named tables; what may stand in one is for the caller to say."""
    if not isinstance(given.value, Mapping):
        raise given.problem(f"{name} must be tables [{name}.NAME], not {_kind(given.value)}")
    for inner, value in given.value.items():
        if not isinstance(value, Mapping):
            where = given.inner.get(inner, given.where)
            raise ConfigurationProblem(where, f"{name}.{inner} must be a table, not {_kind(value)}")
    return given.value


def yes_or_no(name: str, given: Given) -> bool:
    """A truth value."""
    value = given.value
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and given.spaced:
        if value.strip().lower() in _TRUE:
            return True
        if value.strip().lower() in _FALSE:
            return False
        raise given.problem(f"{name} must be 1 or 0, true or false, not {value!r}")
    raise given.problem(f"{name} must be true or false, not {_kind(value)}")


def whole(low: int, high: int | None = None) -> Reader:
    """A whole number of a range."""

    def read(name: str, given: Given) -> int:
        value = given.value
        if isinstance(value, str) and given.spaced:
            try:
                value = int(value)
            except ValueError:
                raise given.problem(f"{name} must be a whole number, not {value!r}") from None
        if isinstance(value, bool) or not isinstance(value, int):
            raise given.problem(f"{name} must be a whole number, not {_kind(value)}")
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise given.problem(f"{name} must be {limits}, not {value}")
        return value

    return read


def number(low: float, high: float | None = None, hint: str = "") -> Reader:
    """A number of a range."""

    def read(name: str, given: Given) -> float:
        value = given.value
        if isinstance(value, str) and given.spaced:
            try:
                value = float(value)
            except ValueError:
                raise given.problem(f"{name} must be a number, not {value!r}", hint) from None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise given.problem(f"{name} must be a number, not {_kind(value)}", hint)
        if not math.isfinite(value) or value < low or (high is not None and value > high):
            limits = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
            raise given.problem(f"{name} must be {limits}, not {value:g}", hint)
        return float(value)

    return read


def one_of(*choices: str) -> Reader:
    """One of a few words."""

    def read(name: str, given: Given) -> str:
        value = text(name, given)
        if value not in choices:
            raise given.problem(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        return value

    return read


def cuda(name: str, given: Given) -> str:
    """A CUDA release, ``12.6``, or nothing."""
    hint = f'write it in quotes, as {name} = "12.6"'
    if not isinstance(given.value, str):
        raise given.problem(f"{name} must be text in quotes, not {_kind(given.value)}", hint)
    value = text(name, given)
    if value and not re.fullmatch(_CUDA, value):
        raise given.problem(f"{name} must be a release such as 12.6, not {value!r}", hint)
    return value


def toolkit(name: str, given: Given) -> bool | Path:
    """Whether there is to be one, or the directory of one that is there."""
    value = given.value
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and os.sep in value:
        return path(name, given)
    if isinstance(value, str) and given.spaced and value.strip().lower() in _TRUE | _FALSE:
        return yes_or_no(name, given)
    raise given.problem(
        f"{name} must be true, false or the path of a CUDA tree, not "
        + (repr(masked(value)) if isinstance(value, str) else _kind(value))
    )


def versions(name: str, given: Given) -> tuple[str, ...]:
    """Versions of a distribution, the first choice first."""
    values = texts(name, given)
    for value in values:
        if not re.fullmatch(_VERSION, value):
            raise given.problem(f"{name}: {value!r} is not a version such as 2.8.0.post2")
    return values


def url(name: str, given: Given) -> str:
    """A URL, or nothing."""
    value = text(name, given)
    if value and not re.fullmatch(_SCHEME, value):
        raise given.problem(f"{name} must be a URL, not {masked(value)!r}")
    return value


def urls(name: str, given: Given) -> tuple[str, ...]:
    """A list of them."""
    values = texts(name, given)
    for value in values:
        if not re.fullmatch(_SCHEME, value):
            raise given.problem(f"{name} must be a list of URLs, but has {masked(value)!r} in it")
    return values


def torch_index(name: str, given: Given) -> str:
    """``auto``, ``pypi`` or a URL."""
    value = text(name, given)
    if value not in ("auto", "pypi") and not re.fullmatch(_SCHEME, value):
        raise given.problem(f"{name} must be auto, pypi or a URL, not {masked(value)!r}")
    return value


def modules(name: str, given: Given) -> tuple[str, ...]:
    """Names of modules to import."""
    values = texts(name, given)
    for value in values:
        if not re.fullmatch(_MODULE, value):
            raise given.problem(f"{name}: {value!r} cannot be imported, it is not a module's name")
    return values


def apt_packages(name: str, given: Given) -> tuple[str, ...]:
    """Names of Debian packages, with ``=VERSION`` where wanted; none of a driver of the GPU."""
    from cachepod.system.drivers import is_driver

    values = texts(name, given)
    for value in values:
        if not re.fullmatch(_APT, value):
            raise given.problem(f"{name}: {value!r} is not the name of an apt package")
        if is_driver(value):
            error = DriverPackage(value, value)
            raise given.problem(f"{name}: {error.message}", error.hint)
    return values


def user_key(name: str, given: Given) -> str | None:
    """A key of the user's own."""
    value = text(name, given)
    if not value:
        return None
    _adopt(given, check_user_key, value)
    return value


def command(name: str, given: Given) -> str:
    """A command on the PATH, or the path of a program."""
    value = text(name, given)
    return str(_absolute(value, given)) if os.sep in value else value


def _adopt(given: Given, check: Callable[[str], object], value: str) -> None:
    """Let an error of *check* name the giver."""
    try:
        check(value)
    except CachepodError as error:
        raise given.problem(error.message, error.hint) from None


def _absolute(value: str, given: Given) -> Path:
    return Path(os.path.abspath(given.folder / os.path.expanduser(value)))


def _kind(value: object) -> str:
    """What a value is, in TOML's words."""
    if isinstance(value, bool):
        return f"the truth value {'true' if value else 'false'}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "a table" if isinstance(value, Mapping) else f"a {type(value).__name__}"
