"""Bytes of a S3 object, from the connection into the caller's buffer with no copy between."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from typing import Any

from cachepod.errors import CorruptObject
from cachepod.stores.s3client import Service
from cachepod.stores.s3errors import Refusal

_CONTENT_RANGE = re.compile(r"bytes (?P<first>[0-9]+)-(?P<last>[0-9]+)/(?P<total>[0-9]+|\*)")
_PIECE = 1024 * 1024


def read_whole(service: Service, key: str, name: str, limit: int) -> bytes:
    """
    An object of at most *limit* bytes.

    Raises:
        ObjectMissing, CorruptObject, StoreUnreachable: As the store's protocol says.
    """
    answer = service.call("get_object", name, Key=key)
    with _Body(service, name, answer) as body:
        size = body.length
        if size is not None:
            if size > limit:
                raise CorruptObject(name, f"it has {size} bytes, at most {limit} are allowed")
            data = bytearray(size)
            body.fill(memoryview(data))
            return bytes(data)
        return body.rest(limit)


def read_range(service: Service, key: str, name: str, offset: int, into: memoryview) -> None:
    """
    Fill *into*, at least one byte, from byte *offset* of an object on.

    Raises:
        ObjectMissing, CorruptObject, StoreUnreachable: As the store's protocol says.
    """
    end = offset + len(into)
    try:
        answer = service.call("get_object", name, Key=key, Range=f"bytes={offset}-{end - 1}")
    except Refusal as error:
        if error.status == 416 or error.code == "InvalidRange":
            raise CorruptObject(name, f"it ends before byte {offset} of {end}") from error
        raise
    with _Body(service, name, answer) as body:
        _check_range(service, name, answer, offset, end)
        body.fill(into)


def _check_range(
    service: Service, name: str, answer: Mapping[str, Any], offset: int, end: int
) -> None:
    """
    Whether the answer is the range that was asked for, and not, say, the whole object.

    Content-Range decides, whatever the status: some services send it with a 200.
    """
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    said = answer.get("ContentRange", "")
    length = answer.get("ContentLength")
    if not said and offset == 0 and length == end:
        return
    found = _CONTENT_RANGE.fullmatch(said)
    if found is None or int(found["first"]) != offset:
        raise service.unreachable(
            f"{name}: bytes {offset} to {end} were asked for, the answer is {status} with "
            f"{said or 'the whole object'}",
            hint="cachepod needs a service, and proxies before it, that honour ranges",
        )
    last = int(found["last"]) + 1
    if last < end:
        if found["total"] not in ("*", str(last)):
            raise service.unreachable(
                f"{name}: the answer holds bytes {offset} to {last}, not to {end}", transient=True
            )
        raise CorruptObject(name, f"it ends at byte {last} of {end}")
    if last > end or length not in (None, end - offset):
        raise service.unreachable(
            f"{name}: the answer holds {length} bytes from {offset} on, not {end - offset}"
        )


class _Body:
    """
    The body of one answer. Read to its end the connection is kept, else it is closed.

    urllib3's own ``readinto`` makes a bytes object and copies it; that of http.client below it
    lets the kernel write into the buffer.
    """

    def __init__(self, service: Service, name: str, answer: Mapping[str, Any]) -> None:
        self._service = service
        self._name = name
        self._body = answer["Body"]
        self.length: int | None = answer.get("ContentLength")
        self._done = 0
        raw: Any = getattr(self._body, "_raw_stream", None)
        inner = getattr(raw, "_fp", None)
        # A body that botocore checks as it passes is of another class, and is read through it.
        direct = (
            type(self._body).__name__ == "StreamingBody"
            and isinstance(inner, http.client.HTTPResponse)
            and not inner.chunked
        )
        self._raw = raw
        self._inner = inner if direct else None

    def __enter__(self) -> _Body:
        return self

    def __exit__(self, *_: object) -> None:
        if self._inner is not None and self._inner.isclosed():
            self._raw.release_conn()
        self._body.close()

    def _readinto(self, view: memoryview) -> int:
        try:
            if self._inner is not None:
                count: int = self._inner.readinto(view)
            else:
                data = self._body.read(min(len(view), _PIECE))
                count = len(data)
                view[:count] = data
        except Exception as error:
            raise self._service.trouble(error, None) from error
        self._done += count
        return count

    def fill(self, into: memoryview) -> None:
        """
        Fill *into*.

        Raises:
            StoreUnreachable: The body ends before; transient.
        """
        done = 0
        while done < len(into):
            count = self._readinto(into[done:])
            if count <= 0:
                raise self._service.unreachable(
                    f"{self._name}: the answer broke off after {done} of {len(into)} bytes",
                    hint="try again later",
                    transient=True,
                )
            done += count
        if self._inner is None and self._done == self.length:
            self._readinto(memoryview(bytearray(1)))  # at the end botocore compares its checksum

    def rest(self, limit: int) -> bytes:
        """A body whose length is not known before."""
        data = bytearray()
        while True:
            piece = bytearray(min(_PIECE, limit + 1 - len(data)))
            count = self._readinto(memoryview(piece))
            if count <= 0:
                return bytes(data)
            data += piece[:count]
            if len(data) > limit:
                raise CorruptObject(
                    self._name, f"it has more than the {limit} bytes that are allowed"
                )
