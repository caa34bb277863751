"""What an installer's output means, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cachepod.errors import CachepodError, InstallFailed, SpaceExhausted

_TAIL = 6  # lines of a failed build that are shown

_FULL = re.compile(r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b")
_NO_PACKAGE = (
    re.compile(r"Because (?P<name>[\w.\-\[\]]+) was not found in the package registry"),
    re.compile(r"Because (?P<name>[\w.\-\[\]]+) was not found in the provided package locations"),
    re.compile(r"No matching distribution found for (?P<name>\S+)(?s:.*)", re.MULTILINE),
)
_PIP_VERSIONS = re.compile(
    r"Could not find a version that satisfies the requirement (?P<what>\S+)[^\n]*?"
    r"\(from versions: (?P<versions>[^)]*)\)"
)
_NOT_CACHED = re.compile(r"Because (?P<name>\S+) was not found in the cache")
_PIP_NONE = re.compile(r"\(from versions: none\)")
_NETWORK = re.compile(
    r"dns error|tcp connect error|error sending request|Network is unreachable"
    r"|Temporary failure in name resolution|Failed to establish a new connection"
    r"|Max retries exceeded|operation timed out|[Nn]etwork connectivity is disabled"
    r"|Connection (?:refused|reset|aborted)|ReadTimeout",
)
_FETCHED = re.compile(r"(?:Failed to fetch: `?|url \()(?P<url>[a-z]+://[^\s`)]+)")
_HOST = re.compile(r"host='(?P<host>[^']+)'")
_DENIED = re.compile(
    r"\b(?:401|403)\b[^\n]*(?:Unauthorized|Forbidden|Client Error)"
    r"|HTTP status client error \(40[13]"
)
_HASH = re.compile(
    r"[Hh]ash mismatch for `?(?P<name>[^\s`:]+)"
    r"|DO NOT MATCH THE HASHES(?s:.*?)^\s+(?P<pip>\S+)(?: \(from[^\n]*| from [^\n]*)?:$",
    re.MULTILINE,
)
_UNHASHED = re.compile(
    r"(?:In `?--require-hashes`? mode|Hashes are required in --require-hashes mode)[^\n]*"
)
_FLASH_ATTN = re.compile(
    r"building from source is disabled for `flash-attn`"
    r"|No matching distribution found for flash[-_]attn\b"
)
_BUILD = re.compile(
    r"Failed to build `(?P<name>[^\s`]+)|Failed building (?:wheel|editable) for (?P<pip>\S+)"
    r"|(?:build backend returned an error|subprocess-exited-with-error|Failed to build)",
)
_DRAWN = " |>\u2502\u2570\u2500\u00d7"  # what pip draws boxes with
_COLLECTED = re.compile(r"^(?:Collecting|Processing) (?P<name>\S+)", re.MULTILINE)
_NOISE = re.compile(r"^(?:hint|note|WARNING|\[notice\]|ERROR: Failed to build)|^\W*$")
_NO_WHEEL = re.compile(
    r"Because (?P<what>[^\n]*?has no wheels with a matching [^\n]*?)(?: and|, we can|$)",
    re.MULTILINE,
)
_BECAUSE = re.compile(r"Because (?P<why>.*?)(?:, we can conclude|\n\n|\Z)", re.DOTALL)
_ERROR = re.compile(r"^\s*(?:error|ERROR)\s*:\s*(?P<what>.+)$", re.MULTILINE)
_CAUSE = re.compile(r"^\s*(?:cause:|Caused by:|[├╰]─▶)\s*(?P<what>.+)$", re.MULTILINE)

_INDEX_OF_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")


def explain(
    output: str, *, installer: str, where: str, environ: Mapping[str, str]
) -> CachepodError:
    """
    The error that an installer's *output* tells of.

    Args:
        output: All that it said, credentials removed.

        installer: ``uv`` or ``pip``.

        where: The prefix, for an error about its disk.

        environ: The user's environment: settings of pip in it explain what uv does not see.
    """
    if _FULL.search(output):
        return SpaceExhausted(
            where, "the disk ran full during the installation", hint="free some, or give more"
        )
    hint = _hint(installer, environ)
    absent = _NOT_CACHED.search(output)
    if absent:
        return InstallFailed(
            f"{absent['name']} is not in uv's cache, and the network is disabled",
            output=output,
            hint="unset UV_OFFLINE, or give it by find_links",
        )
    if _NETWORK.search(output):
        return InstallFailed(
            f"{_server(output)} cannot be reached",
            output=output,
            hint=hint or "check the network and the index URLs",
        )
    if _DENIED.search(output):
        return InstallFailed(
            f"{_server(output)} refuses access",
            output=output,
            hint="check the credentials in the index URLs, or netrc",
        )
    mismatch = _HASH.search(output)
    if mismatch:
        name = mismatch["name"] or mismatch["pip"]
        return InstallFailed(
            f"what the index has for {name} does not match the hash that was asked for",
            output=output,
            hint="make the lock anew if you trust the index; do not ignore this",
        )
    unhashed = _UNHASHED.search(output)
    if unhashed:
        return InstallFailed(_line(unhashed[0]), output=output)
    return _unresolved(output, installer, hint)


def _unresolved(output: str, installer: str, hint: str) -> CachepodError:
    """The rest: what is asked for cannot be had, or cannot be built."""
    if _FLASH_ATTN.search(output):
        return InstallFailed(
            "flash-attn is needed, and the index has no wheel of it but sources that take hours "
            "to build",
            output=output,
            hint='name the version that is needed, as flash_attn = ["2.8.0"]',
        )
    failed = _BUILD.search(output)
    if failed:
        collected = _COLLECTED.findall(output)
        name = failed["name"] or failed["pip"] or (collected[-1] if collected else "a package")
        lines = [line.strip(_DRAWN) for line in output.splitlines()]
        tail = " | ".join([line for line in lines if not _NOISE.match(line)][-_TAIL:])
        return InstallFailed(
            f"{name} has no wheel for this interpreter and cannot be built: {tail}",
            output=output,
            hint="pin a version that has wheels, or install what its build needs",
        )
    unfit = _NO_WHEEL.search(output)
    if unfit:
        return InstallFailed(
            f"no wheel fits this interpreter: {_line(unfit['what'])}",
            output=output,
            hint="pin another version, or use another interpreter",
        )
    for pattern in _NO_PACKAGE:
        found = pattern.search(output)
        if found and (installer == "uv" or _PIP_NONE.search(output)):
            return InstallFailed(
                f"the package {found['name']} does not exist in the index",
                output=output,
                hint=hint or "check its spelling, or add the index that has it",
            )
    none = _PIP_VERSIONS.search(output)
    if none:
        newest = none["versions"].split(", ")[-1]
        return InstallFailed(
            f"the requirements cannot be met: there is no {none['what']} for this interpreter, "
            f"the newest is {newest}",
            output=output,
        )
    because = _BECAUSE.search(output)
    if because:
        return InstallFailed(
            f"the requirements cannot be met: {_line(because['why'])}", output=output
        )
    errors = [*_ERROR.findall(output)[:1], *_CAUSE.findall(output)[:2]]
    said = ": ".join(_line(text) for text in errors)
    if not said:
        said = _line(" ".join(output.strip().splitlines()[-1:])) or "no reason given"
    return InstallFailed(f"{installer} failed: {said}", output=output)


def _server(output: str) -> str:
    """Whoever did not answer."""
    fetched = _FETCHED.search(output)
    if fetched:
        return f"the package index {fetched['url']}"
    host = _HOST.search(output)
    return f"the package index at {host['host']}" if host else "the package index"


def _hint(installer: str, environ: Mapping[str, str]) -> str:
    names = [name for name in _INDEX_OF_PIP if environ.get(name)]
    if installer == "uv" and names:
        return f'uv does not read {names[0]}: set index_url, or installer = "pip"'
    return ""


def _line(text: str) -> str:
    """*text* on one line, without a full stop."""
    return " ".join(text.split()).rstrip(".")
