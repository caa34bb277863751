"""
The lines of a requirements file taken apart as pip does it: what continues, what is a comment,
what is an option.
"""

from __future__ import annotations

import re

from cachepod.errors import ConfigurationProblem

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_COMMENT_LINE = re.compile(r"\s*#")
# not compiled before it is used: most files need none
_HASH = r"(sha256|sha384|sha512):([0-9a-fA-F]+)"
OPTIONS_BEHIND = re.compile(r"\s(?=--?[A-Za-z])")
LONG = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
    "-f": "--find-links",
}


def logical_lines(text: str) -> list[tuple[int, str]]:
    """
    The lines of a requirements file with the number of the first physical line of each.

    As pip does it: a backslash at the end continues a line, a comment line never does, and a
    comment starts at ``#`` after a blank or at the beginning. Lines without content are left out.
    """
    found = []
    pending: list[str] = []
    start = 0
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        comment = _COMMENT_LINE.match(line) is not None
        if not pending:
            start = number
        if line.endswith("\\") and not comment:
            pending.append(line.rstrip("\\"))
            continue
        # a comment in the middle of a continued line ends it
        pending.append(f" {line}" if comment else line)
        joined = _COMMENT.sub("", "".join(pending)).strip()
        pending.clear()
        if joined:
            found.append((start, joined))
    return found


def split_words(text: str, where: str) -> list[str]:
    if "'" not in text and '"' not in text and "\\" not in text:
        return text.split()
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigurationProblem(where, f"the quotes do not match: {error}") from None


def split_option(word: str) -> tuple[str, str | None]:
    """Long name of an option and the value that is joined to it, if one is."""
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        return option, value if equals else None
    option, value = word[:2], word[2:].removeprefix("=")
    return LONG.get(option, option), value or None


def split_hashes(raw: str, where: str) -> tuple[str, list[str]]:
    """The requirement and the hashes behind it."""
    parts = OPTIONS_BEHIND.split(raw, maxsplit=1)
    hashes = []
    words = split_words(parts[1], where) if len(parts) > 1 else []
    while words:
        option, value = split_option(words.pop(0))
        if option != "--hash":
            raise ConfigurationProblem(
                where, f"the option {option} behind a requirement is not supported"
            )
        if value is None and words:
            value = words.pop(0)
        match = re.fullmatch(_HASH, value or "")
        length = {"sha256": 64, "sha384": 96, "sha512": 128}
        if not match or len(match[2]) != length[match[1]]:
            raise ConfigurationProblem(
                where, f"{value!r} is not a hash", hint="write --hash=sha256:<64 hex digits>"
            )
        hashes.append(f"{match[1]}:{match[2].lower()}")
    return parts[0].strip(), hashes
