"""
One requirement, as PEP 508 and pip's requirements files write it, in canonical form.

Two spellings of one requirement give the same canonical text: name and extras normalised
(PEP 503, PEP 685), specifiers sorted, blanks gone. The text is made here and not by
``str(packaging.requirements.Requirement)``, whose spelling changes from release to release, for
the key must not depend on which release a machine has.

Importing packaging takes as long as all the rest of computing a key. So what nearly every line
looks like is read with the expressions below, which accept only what packaging accepts, and
packaging is asked about everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_HEAD = re.compile(rf"(?P<name>{_NAME})\s*(?:\[(?P<extras>[^\]]*)\])?\s*(?P<rest>.*)")
_EXTRAS = rf"\s*(?:{_NAME}\s*(?:,\s*{_NAME}\s*)*)?"
_CLAUSE = re.compile(r"\s*(===|~=|==|!=|<=|>=|<|>)\s*(\S+?)\s*")
_RELEASE = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_EXACT = re.compile(
    r"[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?"
    r"(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?"
)
_SEPARATORS = re.compile(r"[-_.]+")
_WHEEL = r"(?P<name>[^-/]+)-(?P<version>[^-/]+)(?:-\d[^-/]*)?(?:-[^-/]+){3}\.whl"
_SDIST = rf"(?P<name>{_NAME})-(?P<version>\d[^-/]*)\.(?:zip|tar\.gz|tgz|tar\.\w+)"


class Malformed(ValueError):
    """It is not a requirement; the text says why."""


@dataclass(frozen=True)
class Wanted:
    """
    A requirement by name.

    Args:
        name: Normalised.

        extras: Normalised and sorted.

        clauses: Version specifiers, ``==2.7.0``, sorted; empty for any version.

        url: Where it is to be had from, as written; empty for the index.

        marker: What follows the semicolon; empty where nothing does.
    """

    name: str
    extras: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()
    url: str = ""
    marker: str = ""

    @property
    def pinned(self) -> str:
        """The one version that will do; empty where several would."""
        if len(self.clauses) == 1:
            clause = self.clauses[0]
            if clause.startswith("==") and not clause.endswith("*"):
                return clause.lstrip("=")
        return ""

    @property
    def bracket(self) -> str:
        """Extras as they stand behind the name: ``[a,b]``, or nothing."""
        return f"[{','.join(self.extras)}]" if self.extras else ""


def normalized(name: str) -> str:
    """*name* as PEP 503 compares it."""
    return _SEPARATORS.sub("-", name).lower()


def parse(text: str) -> Wanted:
    """
    Read one requirement by name, without pip's options behind it.

    Raises:
        Malformed: It is none.
    """
    match = _HEAD.fullmatch(text.strip())
    if not match or (match["extras"] and not re.fullmatch(_EXTRAS, match["extras"])):
        return _asked(text)
    rest = match["rest"]
    url = marker = ""
    clauses: tuple[str, ...] = ()
    if rest.startswith("@"):
        # a semicolon may be part of a URL: only one with a blank before it starts a marker
        words = rest[1:].strip().split(None, 1)
        url = words[0] if words else ""
        after = words[1].strip() if len(words) > 1 else ""
        if not url or url.startswith(";") or (after and not after.startswith(";")):
            return _asked(text)
        marker = after[1:].strip()
        if after and not marker:
            return _asked(text)
    else:
        specifiers, semicolon, marker = rest.partition(";")
        marker = marker.strip()
        if semicolon and not marker:
            return _asked(text)
        usual = _clauses(specifiers.strip())
        if usual is None:
            return _asked(text)
        clauses = usual
    return Wanted(normalized(match["name"]), _extras(match["extras"]), clauses, url, marker)


def _extras(text: str | None) -> tuple[str, ...]:
    names = (name.strip() for name in (text or "").split(","))
    return tuple(sorted({normalized(name) for name in names if name}))


def _clauses(text: str) -> tuple[str, ...] | None:
    """Specifiers where all of them are of the plain kind; None where packaging has to judge."""
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
        if not text:
            return None
    if not text:
        return ()
    found = set()
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if not match:
            return None
        operator, version = match.groups()
        if operator in ("==", "!="):
            fine = _EXACT.fullmatch(version) or (
                version.endswith(".*") and _RELEASE.fullmatch(version[:-2])
            )
        else:
            fine = _RELEASE.fullmatch(version) and (operator != "~=" or "." in version)
        if not fine or operator == "===":
            return None
        found.add(operator + version)
    return tuple(sorted(found))


def _asked(text: str) -> Wanted:
    """What packaging makes of *text*, in our spelling."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise Malformed(str(error).splitlines()[0].rstrip(".")) from None
    return Wanted(
        normalized(requirement.name),
        tuple(sorted({normalized(extra) for extra in requirement.extras})),
        tuple(sorted({item.operator + item.version.lower() for item in requirement.specifier})),
        requirement.url or "",
        text.partition(";")[2].strip()
        if requirement.marker and not requirement.url
        else str(requirement.marker or ""),
    )


def applies(marker: str, variables: Mapping[str, str]) -> bool:
    """
    Whether an environment marker holds where its variables have these values.

    Raises:
        Malformed: It is no marker, or compares what cannot be compared.
    """
    from packaging.markers import (
        InvalidMarker,
        Marker,
        UndefinedComparison,
        UndefinedEnvironmentName,
    )
    from packaging.version import InvalidVersion

    try:
        return Marker(marker).evaluate({**variables, "extra": ""})
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, InvalidVersion) as error:
        raise Malformed(str(error).splitlines()[0].rstrip(".")) from None


def from_file_name(name: str) -> tuple[str, str]:
    """Name and version that a wheel's or a source archive's file name tells; empty otherwise."""
    match = re.fullmatch(_WHEEL, name) or re.fullmatch(_SDIST, name)
    return (normalized(match["name"]), match["version"].lower()) if match else ("", "")
