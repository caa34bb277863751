"""A key in words: its inputs as a table, and what differs from those of another snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachepod.model.fingerprint import Difference

if TYPE_CHECKING:
    from cachepod.environment.identity import Identity


@dataclass(frozen=True)
class Input:
    """
    One input of a key, for a table.

    Args:
        name: As the fingerprint has it: ``requirement:torch``.

        value: Canonical and without secrets.

        where: Who gave it; empty for what was observed.
    """

    name: str
    value: str
    where: str = ""


_ORDER = ("key", "format", "machine", "distribution", "base", "libc", "python", "abi",
          "interpreter", "prefix", "compile", "cuda", "without-gpu", "toolkit", "handler", "tree",
          "apt", "lock", "option", "index", "flash-attn", "constraint", "requirement")  # fmt: skip


def explain(identity: Identity) -> list[Input]:
    """Every input of the key, what was observed first and the requirements last."""
    return [
        Input(name, value, identity.wheres.get(name, ""))
        for name, value in sorted(
            identity.fingerprint.inputs.items(), key=lambda item: _rank(item[0])
        )
    ]


def _rank(name: str) -> tuple[int, str]:
    kind = name.partition(":")[0]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), name)


def in_words(differences: Sequence[Difference], theirs: str = "the snapshot") -> list[str]:
    """
    What differs, a sentence for each input.

    Args:
        differences: Ours and theirs, as :meth:`Fingerprint.differences` gives them.

        theirs: What to call the other side.
    """
    return [
        _sentence(each, theirs) for each in sorted(differences, key=lambda each: _rank(each.name))
    ]


def _sentence(each: Difference, theirs: str) -> str:
    kind, _, name = each.name.partition(":")
    what = f"{kind} {name}" if name else kind
    if each.name == "base":
        if each.ours and each.theirs:
            return f"the base image differs: {each.ours} here, {each.theirs} in {theirs}"
        where = "here" if each.ours else f"in {theirs}"
        return f"the base image counts {where} only, where packages are added to it"
    if each.ours is None:
        return f"{what} ({each.theirs}) is in {theirs} only"
    if each.theirs is None:
        return f"{what} ({each.ours}) is asked for here, not in {theirs}"
    return f"{what} is {each.ours} here, {each.theirs} in {theirs}"
