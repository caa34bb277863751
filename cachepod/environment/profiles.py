"""
Profiles of handlers: what a kind of worker needs, built in or as ``[handlers.NAME]`` says.

A profile is a chain: what is built in (profiles.json), a table that has it as its base, a table
that has that one, and so on. Together with what the configuration says by itself they are layers,
from the one that everybody may overrule to the one that nobody does::

    built in  <  the file's own keys  <  tables, the base first  <  variables and flags

Lists are joined along the layers; of the other keys the last layer that gives one counts.
Imported only where there is a handler, or tables of some.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cachepod.environment import pep508, profile_tables
from cachepod.environment.config import Settings
from cachepod.environment.keys import HANDLER_TYPE
from cachepod.environment.profile_tables import BUILT_IN, JOINED, Table
from cachepod.environment.requirement import shown_path
from cachepod.environment.requirements import Requirements, read_steps
from cachepod.environment.settings import Given
from cachepod.environment.steps import Step
from cachepod.errors import ConfigurationProblem

_FILE = 2  # rank of the configuration file's own keys


@dataclass(frozen=True)
class Profiled:
    """
    What a handler changes in the configuration.

    Args:
        values: Effective values of keys.

        sources: Who gave them.

        steps: What is asked for to be installed, one giver after the other.

        unknown: Whether there is no profile of this name, which is no error here.

        notes: What a user should know.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    unknown: bool = False
    notes: tuple[str, ...] = ()


def profiled(
    given: Mapping[str, tuple[int, Given]], values: Mapping[str, Any], in_file: Given | None
) -> Profiled:
    """
    Put the profile of the handler below, and beside, what the configuration says.

    Args:
        given: What the configuration says, and its rank: 0 by flag, 1 by variable, 2 by file.

        values: The same, read.

        in_file: The handler that the file names, whoever has the last word.

    Raises:
        ConfigurationProblem: No handler has that name, or a table says something that cannot be.
    """
    tables = profile_tables.read(given["handlers"][1]) if "handlers" in given else {}
    if not values.get("handler") or values.get("key"):
        # a key of the user's own says it all, whatever kind of worker asks
        return Profiled()
    name, said = str(values["handler"]), given["handler"][1]
    changed: dict[str, Any] = {}
    sources: dict[str, str] = {}
    notes: list[str] = []
    if name not in tables and name not in BUILT_IN:
        unknown = _unknown(name, said, {*BUILT_IN, *tables})
        if said.where != HANDLER_TYPE:
            raise unknown
        # Software of other people may have set it: no reason to keep a worker from starting.
        if in_file is None or str(in_file.value) not in {*BUILT_IN, *tables}:
            note = f"{unknown.message}; it is a part of the key and nothing else"
            return Profiled(unknown=True, notes=(note,))
        name = changed["handler"] = str(in_file.value)
        sources["handler"] = in_file.source
        notes.append(f"{unknown.message}; the handler is {name} ({in_file.where})")
    mixed = _Mixed()
    for layer in _layers(name, tables, given, values):
        mixed.add(layer)
    notes += mixed.notes
    return Profiled(
        {**mixed.values, **changed},
        {**{key: ", ".join(found) for key, found in mixed.sources.items()}, **sources},
        # without a profile's own, what is asked for is one list, as it is without a handler
        tuple(mixed.steps) if any(step.of_profile for step in mixed.steps) else (),
        notes=tuple(notes),
    )


def _unknown(name: str, said: Given, known: Collection[str]) -> ConfigurationProblem:
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    listed = [*close, *sorted(set(known) - set(close))]
    hint = f"did you mean {close[0]}? " if close else ""
    return said.problem(
        f"there is no handler {name!r}, known are {', '.join(listed[:-1])} and {listed[-1]}",
        f"{hint}a name of your own needs a table [handlers.{name}] in the configuration file",
    )


@dataclass(frozen=True)
class _Layer:
    """
    What one giver says.

    Args:
        values: By key, read.

        given: The same as it was given.

        table: The table of a handler; its ``without`` counts.

        built_in: Whether it is ours.
    """

    values: Mapping[str, Any]
    given: Mapping[str, Given]
    table: Table | None = None
    built_in: bool = False


def _layers(
    name: str,
    tables: Mapping[str, Table],
    given: Mapping[str, tuple[int, Given]],
    values: Mapping[str, Any],
) -> Iterator[_Layer]:
    chain, built_in = profile_tables.chain(name, tables)
    if built_in:
        table = profile_tables.built_in(built_in)
        yield _Layer(table.values, table.given, table, built_in=True)
    usable = profile_tables.USABLE

    def own(wanted: bool) -> _Layer:
        found = {
            key: one
            for key, (rank, one) in given.items()
            if key in usable and (rank == _FILE) == wanted
        }
        return _Layer({key: values[key] for key in found}, found)

    yield own(True)
    for table in chain:
        yield _Layer(table.values, table.given, table)
    yield own(False)


class _Mixed:
    """The layers so far, joined."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, list[str]] = {}
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self._lock_of_table = False
        self._lenient = False  # about apt packages, as only ours are

    def add(self, layer: _Layer) -> None:
        """Put *layer* on top."""
        table, given = layer.table, layer.given
        without = table.without if table is not None else frozenset()
        asks = "requirements" in given or "packages" in given
        if (asks or without) and self._lock_of_table and "lock" not in given:
            # it was made of what was asked for below
            del self.values["lock"], self.sources["lock"]
            self._lock_of_table = False
        if table is not None and without:
            self._leave_out(table)
        if "apt" in given and self._lenient:
            # ours can be done without, but not what somebody asks for by himself
            del self.values["apt_missing"], self.sources["apt_missing"]
            self._lenient = False
        for key, value in layer.values.items():
            before = self.values.get(key)
            if key in JOINED:
                self.values[key] = _joined(key, before, value)
                if given[key].source not in self.sources.setdefault(key, []):
                    self.sources[key].append(given[key].source)
            else:
                self.values[key] = value
                self.sources[key] = [given[key].source]
        if "apt_missing" in given:
            self._lenient = layer.built_in
        if "lock" in given:
            self._lock_of_table = table is not None
        if asks or without:
            files: tuple[Path, ...] = layer.values.get("requirements", ())
            self.steps.append(
                Step(
                    tuple((path, given["requirements"].where) for path in files),
                    layer.values.get("packages", ()),
                    given["packages"].where if "packages" in given else "packages",
                    without,
                    of_profile=table is not None,
                    built_in=layer.built_in,
                )
            )

    def _leave_out(self, table: Table) -> None:
        without = table.without
        held = {
            *(_named(line) for line in self.values.get("packages", ())),
            *(_apt_name(line) for line in self.values.get("apt", ())),
        }
        if not self.values.get("requirements"):
            # a later release of ours may ask for less: no reason to keep a worker from starting
            self.notes += [
                f"{table.given['without'].where}: there is no {name} to leave out"
                for name in sorted(without - held)
            ]
        for key, name_of in (("packages", _named), ("apt", _apt_name), ("check", _module_name)):
            if key in self.values:
                self.values[key] = tuple(
                    each for each in self.values[key] if name_of(each) not in without
                )


def _joined(key: str, before: Any, value: Any) -> Any:
    if before is None:
        return value
    if key == "trees":
        return {**before, **value}
    if key in ("extra_index_urls", "find_links"):
        # the first one counts first
        return tuple(dict.fromkeys((*value, *before)))
    if key in ("packages", "apt"):
        name_of = _named if key == "packages" else _apt_name
        anew = {name_of(line) for line in value} - {""}
        before = [line for line in before if name_of(line) not in anew]
    return tuple(dict.fromkeys((*before, *value)))


def _named(line: str) -> str:
    """
    The distribution that a requirement line is about; empty where that is not plain to see. A
    marker may not hold, so a line with one is not known to be about anything.
    """
    try:
        wanted = pep508.parse(line)
    except pep508.Malformed:
        return ""
    return "" if wanted.marker else wanted.name


def _apt_name(line: str) -> str:
    return line.partition("=")[0]


def _module_name(module: str) -> str:
    """The distribution that brings a module, where it is called like it."""
    return pep508.normalized(module.partition(".")[0])


def judge(
    settings: Settings,
    found: Requirements,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
) -> Settings:
    """
    Look at a profile beside the requirements that were read: what was asked for, or a lock.

    Returns:
        *settings*; without the CUDA release of a built-in profile, if they name a torch of their
        own that is not built for it. Then torch says which it is, as it does without a profile.

    Raises:
        ConfigurationProblem: The lock lacks what the profile asks for.
    """
    from cachepod.environment.torch import builds_of

    if settings.lock is not None:
        _check_lock(settings, found, variables, environ)
    torch = found.pinned("torch")
    if not torch or not settings.sources.get("cuda", "").startswith("profile "):
        return settings
    local = torch.partition("+")[2]
    if settings.cuda in builds_of(torch) and local in ("", f"cu{settings.cuda.replace('.', '')}"):
        return settings
    return replace(settings, cuda="", sources={**settings.sources, "cuda": "default"})


def _check_lock(
    settings: Settings,
    locked: Requirements,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
) -> None:
    """
    Refuse a lock that was made without the profile, or before it was what it is.

    Files are not looked at: where there is a lock they need not be there.
    """
    steps = [replace(step, files=()) for step in settings.steps if step.of_profile]
    wanted = read_steps(
        steps, root=settings.root, variables=variables, environ=environ,
        leave_out=(settings.prefix,),
    )  # fmt: skip
    held = {each.name for each in locked.lines}
    for each in wanted.lines:
        # flash-attn is in no lock, and what tells no name cannot be looked for
        if each.name not in held and each.name != "flash-attn" and " " not in each.name:
            assert settings.lock is not None
            raise ConfigurationProblem(
                settings.source("lock"),
                f"the lock {shown_path(settings.lock)} has no {each.name}, which the handler "
                f"{settings.handler} needs ({each.where})",
                hint="make it anew with cachepod lock, or name a lock for each handler: "
                f"[handlers.{settings.handler}] lock = ...",
            )
