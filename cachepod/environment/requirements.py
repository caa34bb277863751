"""
Requirements as an installer would read them, reduced to what decides the result.

Nested files, continued lines, comments, options, markers and variables mean what they mean to
pip. Out come flat requirements: for the key a canonical value without any secret, for the
installer a line that needs no other file. Markers are judged here, for the target interpreter: a
line that does not apply is gone, and one that does is as if it had no marker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cachepod.environment import pep508
from cachepod.environment.lines import (
    LONG,
    OPTIONS_BEHIND,
    logical_lines,
    split_hashes,
    split_option,
    split_words,
)
from cachepod.environment.requirement import (
    URL,
    Requirement,
    by_name,
    direct,
    existing,
    file_of,
    looks_local,
    shown_path,
    with_hashes,
)
from cachepod.environment.steps import Step, beside
from cachepod.errors import ConfigurationProblem
from cachepod.system.urls import is_secret_name, masked

# not compiled before it is used: most files need none
_VARIABLE = r"\$\{([A-Z0-9_]+)\}"
_WITH_VALUE = frozenset({*LONG.values(), "--extra-index-url", "--no-binary", "--only-binary"})
_ALONE = frozenset({"--pre", "--require-hashes"})
_DEPTH = 50


@dataclass(frozen=True)
class Requirements:
    """
    All that was asked for.

    Args:
        lines: What to install.

        constraints: What holds for a package if something wants it.

        index_url: As the files say, credentials included; empty where they do not.

        extra_index_urls: Likewise.

        find_links: Absolute directories and URLs.

        pre: Whether versions before a release will do.

        no_binary: Names never to be taken as wheels; ``:all:`` is one.

        only_binary: Names never to be built from source.

        require_hashes: Whether every line must carry a hash.

        files: Every file read, in order.
    """

    lines: tuple[Requirement, ...] = ()
    constraints: tuple[Requirement, ...] = ()
    index_url: str = field(default="", repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    pre: bool = False
    no_binary: tuple[str, ...] = ()
    only_binary: tuple[str, ...] = ()
    require_hashes: bool = False
    files: tuple[Path, ...] = ()

    def pinned(self, name: str) -> str:
        """The version of *name* that lines or constraints pin; empty where they do not."""
        for each in (*self.lines, *self.constraints):
            if each.name == name and each.pinned:
                return each.pinned
        return ""

    def wants(self, name: str) -> bool:
        """Whether *name* is among the lines."""
        return any(each.name == name for each in self.lines)

    @property
    def text(self) -> str:
        """The lines as one flat requirements file; it may hold credentials."""
        return "".join(f"{each.line}\n" for each in self.lines)

    @property
    def constraints_text(self) -> str:
        """The constraints as one flat file; it may hold credentials."""
        return "".join(f"{each.line}\n" for each in self.constraints)


def read_requirements(
    files: Sequence[tuple[Path, str]],
    packages: Sequence[str] = (),
    *,
    root: Path,
    packages_where: str = "packages",
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    leave_out: Collection[Path] = (),
) -> Requirements:
    """
    Read files and inline lines.

    Args:
        files: Absolute path of each file, and what named it: ``cachepod.toml:3``.

        packages: Requirement lines given in the configuration itself.

        root: Where local paths in *packages* count from.

        packages_where: What named *packages*.

        variables: Of environment markers, for the target interpreter.

        environ: Gives the values of ``${NAME}``.

        leave_out: Directories that are no part of a local project they lie in.

    Raises:
        ConfigurationProblem: A file cannot be read, or a line means nothing; it is named.
    """
    step = Step(tuple(files), tuple(packages), packages_where)
    return read_steps([step], root=root, variables=variables, environ=environ, leave_out=leave_out)


def read_steps(
    steps: Sequence[Step],
    *,
    root: Path,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    leave_out: Collection[Path] = (),
) -> Requirements:
    """
    Read what several givers ask for; see :func:`read_requirements`.

    The lines of a step about a distribution replace those of earlier steps about the same.
    """
    reader = _Reader(variables, environ, leave_out)
    for step in steps:
        reader.step(step, root)
    return reader.result()


class _Reader:
    """What was met so far, while files are read one inside the other."""

    def __init__(
        self,
        variables: Mapping[str, str],
        environ: Mapping[str, str],
        leave_out: Collection[Path],
    ) -> None:
        self._variables = variables
        self._environ = environ
        self._leave_out = leave_out
        self._applies: dict[str, bool] = {}
        self._stack: list[Path] = []
        self._done: set[tuple[Path, bool]] = set()
        self._lines: list[Requirement] = []
        self._constraints: list[Requirement] = []
        self._files: list[Path] = []
        self._index_url = ""
        self._extra_index_urls: list[str] = []
        self._find_links: list[str] = []
        self._flags: set[str] = set()
        self._binary: dict[str, set[str]] = {"--no-binary": set(), "--only-binary": set()}
        self._built_in: set[Requirement] = set()

    def step(self, step: Step, root: Path) -> None:
        """Read one giver's files and lines."""
        before, self._lines = self._lines, []
        self._done.clear()
        for path, named_by in step.files:
            self.file(path, named_by, constraint=False)
        for text in step.packages:
            self.line(text.strip(), step.packages_where, root, constraint=False)
        # what has a blank in it is no name but stands for one that is not told
        gone = step.without.union(each.name for each in self._lines if " " not in each.name)
        torch = next((each.pinned for each in self._lines if each.name == "torch"), "")
        kept = []
        for each in before:
            if each.name not in gone:
                kept.append(beside(each, torch) if each in self._built_in else each)
                if each in self._built_in:
                    self._built_in.add(kept[-1])
        if step.built_in:
            self._built_in.update(self._lines)
        self._lines = [*kept, *self._lines]

    def result(self) -> Requirements:
        return Requirements(
            lines=_unique(self._lines),
            constraints=_unique(self._constraints),
            index_url=self._index_url,
            extra_index_urls=tuple(dict.fromkeys(self._extra_index_urls)),
            find_links=tuple(dict.fromkeys(self._find_links)),
            pre="--pre" in self._flags,
            no_binary=tuple(sorted(self._binary["--no-binary"])),
            only_binary=tuple(sorted(self._binary["--only-binary"])),
            require_hashes="--require-hashes" in self._flags,
            files=tuple(dict.fromkeys(self._files)),
        )

    def file(self, path: Path, named_by: str, *, constraint: bool) -> None:
        """Read one file and everything it includes."""
        path = Path(os.path.normpath(path))
        kind = "constraints" if constraint else "requirements"
        if path in self._stack:
            circle = [*self._stack[self._stack.index(path) :], path]
            raise ConfigurationProblem(
                named_by,
                "files include each other in a circle: "
                + " -> ".join(shown_path(each) for each in circle),
            )
        if len(self._stack) >= _DEPTH:
            raise ConfigurationProblem(named_by, f"files are included {_DEPTH} levels deep")
        if (path, constraint) in self._done:
            return
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise ConfigurationProblem(
                named_by, f"the {kind} file {shown_path(path)} does not exist"
            ) from None
        except OSError as error:
            raise ConfigurationProblem(
                named_by,
                f"the {kind} file {shown_path(path)} cannot be read: {error.strerror}",
            ) from None
        except UnicodeDecodeError as error:
            number = path.read_bytes()[: error.start].count(b"\n") + 1
            raise ConfigurationProblem(
                f"{shown_path(path)}:{number}", "the file is not UTF-8 text"
            ) from None
        self._files.append(path)
        self._stack.append(path)
        for number, line in logical_lines(text):
            self.line(line, f"{shown_path(path)}:{number}", path.parent, constraint=constraint)
        self._stack.pop()
        self._done.add((path, constraint))

    def line(self, text: str, where: str, folder: Path, *, constraint: bool) -> None:
        """Read one logical line, comments already gone."""
        if not text:
            return
        raw, shown = self._expanded(text)
        try:
            if text.startswith("-"):
                self._options(raw, shown, where, folder, constraint)
            else:
                self._requirement(raw, shown, where, folder, constraint, editable=False)
        except pep508.Malformed as error:
            raise ConfigurationProblem(
                where, f"{masked(shown)!r} is not a requirement: {masked(str(error))}"
            ) from None

    def _expanded(self, text: str) -> tuple[str, str]:
        """
        *text* with its variables, for the installer and for the key.

        A variable that is called like a secret and stands in a URL stays a name in the second.
        """
        if "${" not in text:
            return text, text

        def value(match: re.Match[str], hide: bool) -> str:
            name = match[1]
            word = match.string[: match.start()].split()[-1:] or [""]
            if hide and is_secret_name(name) and "://" in word[0]:
                return match[0]
            return self._environ.get(name) or match[0]

        return (
            re.sub(_VARIABLE, lambda match: value(match, False), text),
            re.sub(_VARIABLE, lambda match: value(match, True), text),
        )

    def _options(self, raw: str, shown: str, where: str, folder: Path, constraint: bool) -> None:
        """A line of pip's options."""
        words = split_words(raw, where)
        first = split_option(words[0])
        if first[0] == "--editable":
            strip = re.compile(r"(?:--editable|-e)[\s=]*")
            parts = [strip.sub("", each, count=1).strip(" \"'") for each in (raw, shown)]
            self._requirement(parts[0], parts[1], where, folder, constraint, editable=True)
            return
        while words:
            option, value = split_option(words.pop(0))
            if option in _ALONE and value is None:
                self._flags.add(option)
                continue
            if option not in _WITH_VALUE or option == "--editable":
                raise ConfigurationProblem(
                    where,
                    f"the option {masked(option)} is not supported",
                    hint="supported are -r, -c, -e, -i, --extra-index-url, -f, --pre, "
                    "--no-binary, --only-binary, --require-hashes and --hash",
                )
            if value is None:
                if not words:
                    raise ConfigurationProblem(where, f"the option {option} has no value")
                value = words.pop(0)
            self._option(option, value, where, folder, constraint)

    def _option(self, option: str, value: str, where: str, folder: Path, constraint: bool) -> None:
        if option in ("--requirement", "--constraint"):
            if URL.match(value) and not value.startswith("file://"):
                raise ConfigurationProblem(
                    where,
                    f"{option} {masked(value)}: files are read from this machine only",
                    hint="download the file when the image is built",
                )
            path = folder / file_of(value)
            self.file(path, where, constraint=constraint or option == "--constraint")
        elif option == "--index-url":
            self._index_url = value
        elif option == "--extra-index-url":
            self._extra_index_urls.append(value)
        elif option == "--find-links":
            if not URL.match(value) or value.startswith("file://"):
                value = str(existing(file_of(value), folder, where))
            self._find_links.append(value)
        else:
            self._binaries(option, value)

    def _binaries(self, option: str, value: str) -> None:
        """pip's rules: ``:none:`` empties the list, a name leaves the opposite list."""
        mine = self._binary[option]
        other = self._binary["--only-binary" if option == "--no-binary" else "--no-binary"]
        for name in (part.strip() for part in value.split(",")):
            if name == ":none:":
                mine.clear()
            elif name == ":all:":
                mine.clear()
                other.clear()
                mine.add(name)
            elif name:
                mine.add(pep508.normalized(name))
                other.discard(pep508.normalized(name))

    def _requirement(
        self, raw: str, shown: str, where: str, folder: Path, constraint: bool, *, editable: bool
    ) -> None:
        """One requirement, with the hashes behind it."""
        head, hashes = split_hashes(raw, where)
        shown = OPTIONS_BEHIND.split(shown, maxsplit=1)[0].strip()
        into = self._constraints if constraint else self._lines
        if URL.match(head) or looks_local(head, editable=editable):
            target, _, marker = head.partition(" ;")
            if marker and not self._holds(marker):
                return
            shown = shown.partition(" ;")[0]
            found = direct(
                target.strip(), shown.strip(), folder, where, self._leave_out, editable=editable
            )
        else:
            wanted = pep508.parse(head)
            if wanted.marker and not self._holds(wanted.marker):
                return
            if editable:
                raise ConfigurationProblem(
                    where, "only a directory or a version control URL can be editable"
                )
            found = by_name(wanted, shown, folder, where, self._leave_out)
        into.append(with_hashes(found, hashes))

    def _holds(self, marker: str) -> bool:
        marker = marker.strip()
        if marker not in self._applies:
            self._applies[marker] = pep508.applies(marker, self._variables)
        return self._applies[marker]


def _unique(found: list[Requirement]) -> tuple[Requirement, ...]:
    """Each requirement once, in the order they were met."""
    return tuple({(each.name, each.value): each for each in reversed(found)}.values())[::-1]
