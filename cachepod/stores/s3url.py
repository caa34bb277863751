"""
What ``s3://bucket/prefix?endpoint=...`` says, checked at the edge.

Credentials never stand in it: they come the way that boto3 finds them. A URL that holds some is
refused without repeating them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from cachepod.errors import UsageProblem

SCHEME = "s3"
MIB = 1024 * 1024
ADDRESSING = ("auto", "path", "virtual")
SWITCH = ("on", "off")

_HOW = "give s3://bucket/prefix?endpoint=...&region=..."
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with profile=NAME"
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")
_SECRET = re.compile(r"(?i)key|secret|token|passw|credential|user|signature|x-amz")
# The S3 service of a RunPod volume; the bucket is the volume's id, the region its data centre.
_RUNPOD = re.compile(r"s3api-(?P<centre>[a-z0-9-]+)\.runpod\.io")
# Of a part: what the services demand at least (but of the last), and take at most.
_PART = (5, 5 * 1024)


@dataclass(frozen=True)
class S3Location:
    """
    Where the objects lie and how the service is to be spoken to.

    Args:
        url: As the user may read and write it: only what was given, in one order.

        prefix: In front of every object's name; empty, or ends in ``/``.

        endpoint: None for AWS itself, or what boto3's own settings name.

        checksums: Whether boto3 adds its checksums to requests and checks those of answers,
            also where the service does not ask for it.

        conditional: Whether If-None-Match is honoured; None is to be found out.

        timeout: Seconds that the service may take to answer, or to go on with an answer.

        retries: How often what failed for a passing reason is tried again.

        part_size: Bytes of a part of an upload; 0 chooses by the memory that there is.

        parallel: Reads in flight beyond one a core.
    """

    url: str
    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    addressing: str = "auto"
    profile: str | None = None
    checksums: bool = False
    conditional: bool | None = None
    timeout: float = 60.0
    connect_timeout: float = 5.0
    retries: int = 5
    part_size: int = 0
    parallel: int = 16

    @classmethod
    def parse(cls, url: str) -> S3Location:
        """
        Read *url*.

        Raises:
            UsageProblem: It is not of this form; the message never holds a secret.
        """
        shown = _shown(url)
        try:
            parts = urlsplit(url)
        except ValueError:
            raise UsageProblem(f"{shown} is not a store's URL", hint=_HOW) from None
        if "@" in parts.netloc:
            raise UsageProblem(
                f"{shown}: credentials do not belong into a store's URL", hint=_CREDENTIALS
            )
        if parts.fragment or "#" in url:
            raise UsageProblem(f"{shown}: nothing may follow a #", hint="write # as %23")
        if not _BUCKET.fullmatch(parts.netloc):
            raise UsageProblem(f"{shown}: {parts.netloc!r} cannot be a bucket's name", hint=_HOW)
        given = _parameters(shown, parts.query)
        values: dict[str, Any] = {
            name: _READERS[name](shown, name, text) for name, text in given.items()
        }
        endpoint = values.get("endpoint")
        if endpoint is not None:
            values.setdefault("addressing", "path")
            if centre := _RUNPOD.fullmatch(urlsplit(endpoint).hostname or ""):
                values.setdefault("region", centre["centre"].upper())
        prefix = _prefix(shown, parts.path)
        clean = f"{SCHEME}://{parts.netloc}" + (f"/{quote(prefix.rstrip('/'))}" if prefix else "")
        if given:
            order = [(name, given[name]) for name in _READERS if name in given]
            clean += "?" + urlencode(order, safe="/:")
        return cls(clean, parts.netloc, prefix, **values)

    @property
    def where(self) -> str:
        """Who is asked, for messages: the endpoint, or AWS."""
        return self.endpoint or "AWS"


def _shown(url: str) -> str:
    """*url* without what might be a secret."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[?#]', rest, maxsplit=1)[0].rpartition('@')[2]}"


def _prefix(shown: str, path: str) -> str:
    text = unquote(path).strip("/")
    if not text:
        return ""
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts) or not text.isprintable():
        raise UsageProblem(
            f"{shown}: {text!r} cannot be a prefix",
            hint="no part between two slashes may be empty, '.' or '..'",
        )
    return text + "/"


def _parameters(shown: str, query: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _READERS:
            if _SECRET.search(name):
                raise UsageProblem(
                    f"{shown}: credentials do not belong into a store's URL, so {name!r} is "
                    "refused",
                    hint=_CREDENTIALS,
                )
            near = difflib.get_close_matches(name, _READERS, 1)
            raise UsageProblem(
                f"{shown}: there is no parameter {name!r}"
                + (f"; did you mean {near[0]}?" if near else ""),
                hint=f"known are {', '.join(_READERS)}",
            )
        if name in found:
            raise UsageProblem(f"{shown}: {name} is given twice", hint="give it once")
        found[name] = text
    return found


def _endpoint(shown: str, name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if good and "@" in parts.netloc:
        raise UsageProblem(
            f"{shown}: credentials do not belong into an endpoint", hint=_CREDENTIALS
        )
    if not good or parts.query or parts.fragment or not text.isprintable():
        raise UsageProblem(
            f"{shown}: the endpoint is not of the form https://host:port",
            hint="such as endpoint=https://s3.example.com",
        )
    return text


def _word(shown: str, name: str, text: str) -> str:
    if not _WORD.fullmatch(text):
        raise UsageProblem(f"{shown}: {text!r} cannot be a {name}", hint=_HOW)
    return text


def _choice(shown: str, name: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise UsageProblem(
            f"{shown}: {name} cannot be {text!r}", hint=f"give one of {', '.join(choices)}"
        )
    return text


def _addressing(shown: str, name: str, text: str) -> str:
    return _choice(shown, name, text, ADDRESSING)


def _switch(shown: str, name: str, text: str) -> bool:
    return _choice(shown, name, text, SWITCH) == "on"


def _conditional(shown: str, name: str, text: str) -> bool | None:
    choice = _choice(shown, name, text, ("auto", *SWITCH))
    return None if choice == "auto" else choice == "on"


def _number(shown: str, name: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
        raise UsageProblem(
            f"{shown}: {name} cannot be {text!r}",
            hint=f"give a whole number from {least} to {most}",
        )
    return int(text)


def _seconds(shown: str, name: str, text: str) -> float:
    return float(_number(shown, name, text, 1, 3600))


def _retries(shown: str, name: str, text: str) -> int:
    return _number(shown, name, text, 0, 20)


def _part_size(shown: str, name: str, text: str) -> int:
    return _number(shown, name, text, *_PART) * MIB


def _parallel(shown: str, name: str, text: str) -> int:
    return _number(shown, name, text, 0, 256)


_READERS: dict[str, Callable[[str, str, str], object]] = {
    "endpoint": _endpoint,
    "region": _word,
    "addressing": _addressing,
    "profile": _word,
    "checksums": _switch,
    "conditional": _conditional,
    "timeout": _seconds,
    "connect_timeout": _seconds,
    "retries": _retries,
    "part_size": _part_size,
    "parallel": _parallel,
}
