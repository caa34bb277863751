"""
One file over HTTP, by the standard library: the image stays slim.

A server's answer is believed as far as it can be checked: the status, the length, and that it is
no web page where a file was asked for. What may pass is tried again, from the start.
"""

from __future__ import annotations

import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from cachepod import __version__

#: Seconds without a byte after which a server is given up.
TIMEOUT = 30.0
ATTEMPTS = 3
PAUSE = 1.0  # seconds before the second attempt, twice as many before the third
# A server that sends less than this is as good as none: at 50 kB/s a wheel takes an hour.
_LEAST_RATE = 50_000
_RATE_WINDOW = 30.0
_PIECE = 1024 * 1024
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

Sized = Callable[[int], None]
Counted = Callable[[int], None]


class Unavailable(Exception):
    """
    A place does not have a file, or does not hand it out.

    Args:
        why: In a few words.

        passing: Whether the same may work in a moment.

        silent: Whether nobody answered at all, so that it is of no use to ask for something else.
    """

    def __init__(self, why: str, *, passing: bool = False, silent: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.passing = passing
        self.silent = silent


def patiently(act: Callable[[], None], attempts: int = ATTEMPTS) -> None:
    """Call *act* again as long as what it raises may pass; the last Unavailable is raised."""
    for attempt in range(attempts):
        try:
            return act()
        except Unavailable as problem:
            if not problem.passing or attempt == attempts - 1:
                raise
        time.sleep(PAUSE * 2**attempt)
    return None


def below(url: str, name: str) -> str:
    """The URL of the file *name* in the folder *url*, whose query stays behind the name."""
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/{quote(name, safe='')}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def download(url: str, into: IO[bytes], *, sized: Sized, counted: Counted) -> None:
    """
    Write what *url* answers with to *into*, a file that can be rewound, once or several times.

    Args:
        url: http or https; credentials in it are sent to its own host only, and so are those
            that netrc has for it.

        into: Emptied before each attempt.

        sized: Called with the length before the first byte, where the server tells it; what it
            raises ends the download.

        counted: Called with the bytes that came since the last call.

    Raises:
        Unavailable: It is not to be had.

        OSError: *into* cannot be written.
    """
    request, opener = _prepared(url)

    def once() -> None:
        into.seek(0)
        into.truncate()
        with _opened(opener, request) as answer:
            _receive(answer, into, sized, counted)

    patiently(once)


def _opened(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Any:
    """The answer to *request*, its headers read."""
    try:
        return opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            reason = http.client.responses.get(error.code, "")
            raise Unavailable(
                f"{error.code} {reason}".strip(), passing=error.code in _PASSING
            ) from None
    except urllib.error.URLError as error:
        raise _unreachable(error.reason, silent=True) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise Unavailable(f"no such address can be: {error}") from None
    except (http.client.HTTPException, OSError) as error:
        raise _unreachable(error, silent=True) from None


def _receive(answer: Any, into: IO[bytes], sized: Sized, counted: Counted) -> None:
    kind = answer.headers.get_content_type()
    if kind == "text/html":
        raise Unavailable("a web page came instead of a file")
    said = answer.headers.get("Content-Length", "")
    length = int(said) if said.isdigit() else None
    if length is not None:
        sized(length)
    done = 0
    window, mark = time.monotonic(), 0
    while True:
        try:
            piece = answer.read(_PIECE) if length is None else answer.read1(_PIECE)
        except (http.client.HTTPException, OSError) as error:
            raise _unreachable(error) from None
        if not piece:
            break
        into.write(piece)
        done += len(piece)
        counted(len(piece))
        now = time.monotonic()
        if now - window >= _RATE_WINDOW:
            if done - mark < _LEAST_RATE * (now - window):
                raise Unavailable("it comes too slowly")
            window, mark = now, done
    if length is not None and done != length:
        raise Unavailable(f"the answer broke off after {done} of {length} bytes", passing=True)
    into.flush()


def _unreachable(reason: object, *, silent: bool = False) -> Unavailable:
    """What a failed connection is called."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Unavailable(
            f"its certificate is not trusted: {reason.verify_message}", silent=silent
        )
    if isinstance(reason, TimeoutError):
        return Unavailable("it does not answer in time", passing=True, silent=silent)
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return Unavailable(text or type(reason).__name__, passing=True, silent=silent)


def _prepared(url: str) -> tuple[urllib.request.Request, urllib.request.OpenerDirector]:
    """A request whose credentials stand in a header, and who sends it."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    headers = {"User-Agent": f"cachepod/{__version__}", "Accept": "*/*"}
    request = urllib.request.Request(bare, headers=headers)
    authorization = _basic(*_split(user)) if at else _netrc(parts.hostname or "")
    redirects = _Redirects(host, authorization)
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    handler = urllib.request.HTTPSHandler(context=_context())
    return request, urllib.request.build_opener(redirects, handler)


def _split(user: str) -> tuple[str, str]:
    name, _, password = user.partition(":")
    return unquote(name), unquote(password)


def _basic(name: str, password: str) -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


def _netrc(host: str) -> str:
    """The header that netrc has for *host*; empty where it has none or cannot be read."""
    import netrc

    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, ValueError, netrc.NetrcParseError):
        return ""
    return _basic(found[0] or "", found[2] or "") if found else ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """
    Follows redirects; credentials go to the host that they are for and to no other.

    A release on GitHub answers with a redirect to a signed URL of another host, which refuses a
    request that brings credentials as well.
    """

    def __init__(self, host: str, authorization: str) -> None:
        self._host = host
        self._authorization = authorization

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise Unavailable("it leads from https to a connection that anybody can change")
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and self._authorization and urlsplit(newurl).netloc == self._host:
            made.add_unredirected_header("Authorization", self._authorization)
        return made


def _context() -> ssl.SSLContext:
    """
    Trusts whom the machine trusts; where it has no list at all, as in an image without
    ca-certificates, whom the one trusts that came with the S3 client.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    folder = paths.capath
    if paths.cafile is None and not (folder and os.path.isdir(folder) and os.listdir(folder)):
        import importlib.util

        found = importlib.util.find_spec("botocore")
        bundle = Path(found.origin or "").with_name("cacert.pem") if found else None
        if bundle is not None and bundle.is_file():
            context.load_verify_locations(cafile=bundle)
    return context
