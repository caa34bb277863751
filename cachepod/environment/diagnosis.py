"""What an examination finds: one line of ``cachepod doctor`` each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cachepod.errors import CachepodError, StoreUnreachable


class Severity(str, Enum):
    """How much a reader should mind."""

    OK = "ok"
    NOTE = "note"  # not as usual, and no harm
    WARNING = "warning"  # it works, but slower, or not for long
    PROBLEM = "problem"  # something will fail


@dataclass(frozen=True)
class Check:
    """
    One thing that was looked at.

    Args:
        about: ``machine``, or the store or the prefix as the user names it.

        name: What was looked at, in a word or two.

        result: What was found.

        meaning: What follows from it, and what to do where something is to be done.

        severity: How much it matters.
    """

    about: str
    name: str
    result: str
    meaning: str
    severity: Severity = Severity.OK


def failed(about: str, name: str, error: CachepodError) -> Check:
    """The check that met *error*."""
    said = error.why if isinstance(error, StoreUnreachable) else error.message  # about names it
    return Check(about, name, said, error.hint or "nothing works there", Severity.PROBLEM)
