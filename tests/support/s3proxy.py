"""
A proxy before a S3 service, for what real ones do on bad days: it refuses, forgets, cuts short,
ignores headers, takes its time. It can also be a distant service: latency and a limited rate.

Bodies go from socket to socket inside the kernel, so that a benchmark measures its subject. As a
program of its own::

    python -m tests.support.s3proxy http://127.0.0.1:9000 --latency 0.02 --rate 200e6

prints the endpoint and serves until its standard input ends; then what it was asked for, in JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

_BLOCK = 256 * 1024
_HEAD_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Request:
    """A request as it came; *operation* is its name in the S3 API, *key* the object's."""

    operation: str
    bucket: str
    key: str
    method: str
    target: str
    headers: Mapping[str, str]


@dataclass
class Fault:
    """
    What happens to the requests for which *operation* (or ``*``) and *key* (a part of it) fit.

    Args:
        times: How often; None is for ever.

        skip: So many fitting requests pass before.

        status, code, headers: Answer so; nothing is forwarded unless *lost*.

        lost: The request is carried out, its answer never arrives: the connection is closed, or
            *status* is answered in place of it.

        reset: The connection is closed; the request is not carried out.

        silent: No answer, until the client gives up; with *lost* it is carried out all the same.

        cut: The body of the answer ends after so many bytes, and the connection with it.

        stall: The body of the answer stops after so many bytes, until the client gives up.

        flip: The byte at this place of the answer's body has one bit wrong.

        drop: These headers of the request are not forwarded.

        delay: Seconds before the request is carried out.

        clock: Seconds that the Date of the answer is ahead.
    """

    operation: str = "*"
    key: str = ""
    times: int | None = None
    skip: int = 0
    when: Callable[[Request], bool] = field(default=lambda request: True)
    status: int = 0
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False
    reset: bool = False
    silent: bool = False
    cut: int | None = None
    stall: int | None = None
    flip: int | None = None
    drop: tuple[str, ...] = ()
    delay: float = 0.0
    clock: float = 0.0

    def fits(self, request: Request) -> bool:
        """Whether it applies to *request*; counts."""
        if self.operation not in ("*", request.operation) or self.key not in request.key:
            return False
        if not self.when(request) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


def ignores(*headers: str) -> Fault:
    """The service behaves as if these headers of a request were not there."""
    return Fault(drop=headers)


def refuses_checksums() -> Fault:
    """The service knows none of the checksums that boto3 adds by default."""
    return Fault(
        when=lambda request: any(
            name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"))
            for name in request.headers
        ),
        status=400,
        code="InvalidRequest",
    )


class Proxy:
    """
    Serves on a port of loopback until it is closed.

    Args:
        upstream: The service's endpoint, ``http://host:port``.

        latency: Seconds before each answer.

        rate: Bytes a second of all bodies together, in each direction; 0 is no limit.

    Attributes:
        faults: May be changed at any time; the first that fits counts.

        requests: All that came, in order.

        connections: How many were made.

        busiest: The most requests of each operation that were carried out at once.
    """

    def __init__(self, upstream: str, latency: float = 0.0, rate: float = 0.0) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.latency = latency
        self._limits = (Limit(rate), Limit(rate))
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.busiest: Counter[str] = Counter()
        self._active: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def operations(self) -> Counter[str]:
        """How often each operation was asked for."""
        with self._lock:
            return Counter(request.operation for request in self.requests)

    def reset(self) -> None:
        """Forget faults and requests."""
        with self._lock:
            self.faults.clear()
            self.requests.clear()

    def close(self) -> None:
        """Stop listening and break all connections."""
        self._closed = True
        _shut(self._listener)
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(client)
        link = _Link(client, self._upstream, self._limits)
        try:
            while not self._closed and self._exchange(link):
                pass
        except (OSError, ValueError, EOFError):
            pass
        finally:
            link.close()
            with self._lock:
                self._open.discard(client)

    def _exchange(self, link: _Link) -> bool:
        """One request and its answer; whether the connection is good for another."""
        head = link.client.head()
        if head is None:
            return False
        first, headers = head
        method, target, _ = first.split(" ", 2)
        request = _parse(method, target, headers)
        with self._lock:
            self.requests.append(request)
            fault = next((each for each in self.faults if each.fits(request)), None)
            self._active[request.operation] += 1
            self.busiest |= self._active
        try:
            return self._carry_out(link, request, first, headers, fault or Fault())
        finally:
            with self._lock:
                self._active[request.operation] -= 1

    def _carry_out(
        self, link: _Link, request: Request, first: str, headers: dict[str, str], fault: Fault
    ) -> bool:
        time.sleep(self.latency + fault.delay)
        if fault.reset:
            return False
        if fault.silent and not fault.lost:
            link.client.until_closed()
            return False
        if headers.get("expect"):
            link.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault.status and not fault.lost:
            link.client.skip(int(headers.get("content-length", 0)))
            link.client.send(_answer(request, fault))
            return True
        dropped = {"expect", *(name.lower() for name in fault.drop)}
        kept = {name: value for name, value in headers.items() if name not in dropped}
        answer, answer_headers = link.forward(first, kept)
        if fault.lost:
            link.drain(request.method, answer, answer_headers)
            if fault.silent:
                link.client.until_closed()
            elif fault.status:
                link.client.send(_answer(request, fault))
            return bool(fault.status)
        if fault.clock:
            answer_headers["date"] = formatdate(time.time() + fault.clock, usegmt=True)
        return link.give(request.method, answer, answer_headers, fault)


class Limit:
    """So many bytes a second, for all who ask together."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._free = 0.0

    def take(self, count: int) -> None:
        """Wait until *count* bytes may pass."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - 0.02) + count / self.rate
            pause = self._free - now
        if pause > 0:
            time.sleep(pause)


class _Side:
    """One socket, with what was read past the end of a head."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.buffer = b""

    def head(self) -> tuple[str, dict[str, str]] | None:
        """First line and headers, names in lower case; None at the end."""
        while b"\r\n\r\n" not in self.buffer:
            more = self.socket.recv(_HEAD_LIMIT)
            if not more or len(self.buffer) > _HEAD_LIMIT:
                return None
            self.buffer += more
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return first, {name.strip().lower(): value.strip() for name, _, value in pairs}

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            more = self.socket.recv(_BLOCK)
            if not more:
                raise EOFError
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, count: int) -> bytes:
        """Up to *count* bytes; none at the end."""
        if self.buffer:
            data, self.buffer = self.buffer[:count], self.buffer[count:]
            return data
        return self.socket.recv(min(count, _BLOCK))

    def skip(self, count: int) -> None:
        while count:
            data = self.take(count)
            if not data:
                raise EOFError
            count -= len(data)

    def until_closed(self) -> None:
        while self.socket.recv(_BLOCK):
            pass


class _Link:
    """A client's connection and the one to the service that serves it."""

    def __init__(
        self, client: socket.socket, upstream: tuple[str, int], limits: tuple[Limit, Limit]
    ) -> None:
        self.client = _Side(client)
        self._upstream = upstream
        self._limits = limits
        self._server: _Side | None = None
        self._pipe = os.pipe()

    def close(self) -> None:
        _shut(self.client.socket)
        if self._server:
            _shut(self._server.socket)
        for descriptor in self._pipe:
            os.close(descriptor)

    def forward(self, first: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        """Send a request on; its answer's head."""
        if self._server is None:
            self._server = _Side(socket.create_connection(self._upstream))
        self._server.send(_head(first, headers))
        self._pass(self.client, self._server, int(headers.get("content-length", 0)), 0)
        answer = self._server.head()
        while answer is not None and answer[0].split(" ")[1] == "100":
            answer = self._server.head()
        if answer is None:
            raise EOFError
        return answer

    def drain(self, method: str, first: str, headers: dict[str, str]) -> None:
        """Read the answer's body and forget it."""
        server = self._server
        assert server is not None
        if method != "HEAD" and "content-length" in headers:
            server.skip(int(headers["content-length"]))
        else:
            self._forget()

    def give(self, method: str, first: str, headers: dict[str, str], fault: Fault) -> bool:
        """Pass the answer to the client; whether the connection is good for another."""
        server = self._server
        assert server is not None
        status = first.split(" ")[1]
        self.client.send(_head(first, headers))
        if method == "HEAD" or status in ("204", "304"):
            pass
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            self._pass_chunks(server)
        elif "content-length" in headers:
            if not self._pass_body(server, int(headers["content-length"]), fault):
                return False
        else:
            while data := server.take(_BLOCK):
                self.client.send(data)
            return False
        if headers.get("connection", "").lower() == "close" or first.startswith("HTTP/1.0"):
            self._forget()
        return headers.get("connection", "").lower() != "close"

    def _forget(self) -> None:
        if self._server:
            _shut(self._server.socket)
        self._server = None

    def _pass_body(self, server: _Side, length: int, fault: Fault) -> bool:
        end = length
        for limit in (fault.cut, fault.stall):
            if limit is not None:
                end = min(end, limit)
        if fault.flip is not None and fault.flip < end:
            self._pass(server, self.client, fault.flip, 1)
            byte = server.take(1)
            self.client.send(bytes([byte[0] ^ 0x10]))
            self._pass(server, self.client, end - fault.flip - 1, 1)
        else:
            self._pass(server, self.client, end, 1)
        if fault.stall is not None and end < length:
            self.client.until_closed()
        return end == length

    def _pass_chunks(self, server: _Side) -> None:
        while True:
            line = server.line()
            self.client.send(line + b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while trailer := server.line():
                    self.client.send(trailer + b"\r\n")
                self.client.send(b"\r\n")
                return
            self._pass(server, self.client, size, 1)
            server.line()
            self.client.send(b"\r\n")

    def _pass(self, source: _Side, target: _Side, count: int, direction: int) -> None:
        """Move *count* bytes from socket to socket; those not yet read never leave the kernel."""
        limit = self._limits[direction]
        while count and source.buffer:
            data = source.take(count)
            limit.take(len(data))
            target.send(data)
            count -= len(data)
        reader, writer = self._pipe
        while count:
            moved = os.splice(source.socket.fileno(), writer, min(count, _BLOCK))
            if not moved:
                raise EOFError
            limit.take(moved)
            count -= moved
            while moved:
                moved -= os.splice(reader, target.socket.fileno(), moved)


def _head(first: str, headers: Mapping[str, str]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _answer(request: Request, fault: Fault) -> bytes:
    body = b""
    if fault.code and request.method != "HEAD":
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{fault.code}</Code><Message>by design</Message></Error>"
        ).encode()
    headers = {
        "Date": formatdate(time.time() + fault.clock, usegmt=True),
        "Content-Type": "application/xml",
        **fault.headers,
        "Content-Length": str(len(body)),
    }
    return _head(f"HTTP/1.1 {fault.status} By-Design", headers) + body


def _parse(method: str, target: str, headers: Mapping[str, str]) -> Request:
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    operation = _operation(method, query, bool(key), "x-amz-copy-source" in headers)
    return Request(operation, bucket, key, method, target, headers)


def _operation(method: str, query: Mapping[str, object], on_object: bool, copies: bool) -> str:
    if method == "HEAD":
        return "HeadObject" if on_object else "HeadBucket"
    if method == "GET":
        if not on_object:
            return "ListMultipartUploads" if "uploads" in query else "ListObjects"
        return "ListParts" if "uploadId" in query else "GetObject"
    if method == "PUT":
        if not on_object:
            return "CreateBucket"
        if copies:
            return "CopyObject"
        return "UploadPart" if "partNumber" in query else "PutObject"
    if method == "POST":
        if "delete" in query:
            return "DeleteObjects"
        return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
    if method == "DELETE":
        return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    return method


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextlib.contextmanager
def proxy(upstream: str, latency: float = 0.0, rate: float = 0.0) -> Iterator[Proxy]:
    """A proxy for the time of a ``with``."""
    served = Proxy(upstream, latency, rate)
    try:
        yield served
    finally:
        served.close()


def main() -> None:
    """As a program of its own."""
    parser = argparse.ArgumentParser(description="A S3 service that is far away.")
    parser.add_argument("upstream")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second")
    given = parser.parse_args()
    with proxy(given.upstream, given.latency, given.rate) as served:
        print(served.endpoint, flush=True)
        sys.stdin.read()
        print(json.dumps({"requests": served.operations(), "busiest": served.busiest}), flush=True)


if __name__ == "__main__":
    main()
