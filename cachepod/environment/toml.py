"""TOML with line numbers, which the parsers do not give."""

from __future__ import annotations

import re
import sys
from typing import Any

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError
    from tomllib import loads as _loads
else:
    from tomli import TOMLDecodeError
    from tomli import loads as _loads

__all__ = ["TOMLDecodeError", "error_line", "key_lines", "loads"]

_AT_LINE = r"\(at line (\d+), column \d+\)"
_TOKEN = re.compile(
    r'(?P<comment>#[^\n]*)|(?P<long>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5})'
    r'|(?P<string>"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')|(?P<newline>\n)'
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<equals>=)|(?P<dot>\.)|(?P<comma>,)"
    r"|(?P<bare>[A-Za-z0-9_-]+)|(?P<other>.)",
    re.DOTALL,
)


def loads(text: str) -> dict[str, Any]:
    """
    Parse *text*.

    Raises:
        TOMLDecodeError: It is not TOML.
    """
    return _loads(text)


def error_line(error: TOMLDecodeError, text: str) -> tuple[int, str]:
    """The line that *error* is about, and its message without the place."""
    match = re.search(_AT_LINE, str(error))
    number = int(match[1]) if match else len(text.splitlines()) or 1
    return number, re.sub(_AT_LINE, "", str(error)).replace("(at end of document)", "").strip()


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """
    The line on which each table and each key of a valid document starts, by its full path.

    Keys inside inline tables and arrays are left to the key that holds them.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    path: list[str] = []  # of the key being read
    depth = 0  # of brackets in a value
    state = "start"  # of a line; then "header", "key" or "value"
    number = 1
    for match in _TOKEN.finditer(text.replace("\r\n", "\n")):
        kind, token = match.lastgroup, match[0]
        here = number
        number += token.count("\n")
        if state == "value":
            depth += (kind == "open") - (kind == "close")
            if kind == "newline" and depth == 0:
                state, path = "start", []
        elif kind in ("bare", "string"):
            state = "key" if state == "start" else state
            path.append(_unquoted(token) if kind == "string" else token)
        elif state == "start" and kind == "open":
            state = "header"
        elif state == "header" and kind == "newline":
            table = tuple(path)
            lines.setdefault(table, here)
            state, path = "start", []
        elif state == "key" and kind == "equals":
            for length in range(1, len(path) + 1):
                lines.setdefault((*table, *path[:length]), here)
            state = "value"
    if state == "header":
        lines.setdefault(tuple(path), number)
    return lines


def _unquoted(token: str) -> str:
    if token[0] == "'":
        return token[1:-1]
    parsed = _loads(f"x = {token}")["x"]
    return str(parsed)
