"""
Writes one object of a :class:`~cachepod.stores.s3.S3Store`.

A small object is one PUT, at the commit. Of a larger one each part is sent by a pool of threads
while the next is being written::

    1  CreateMultipartUpload             nothing that a listing shows: a leftover
    2  UploadPart, several at a time     the same
    3  CompleteMultipartUpload           the whole object

Step 3, or the PUT, is the commit point. Its answer may be lost although it was carried out: then
the object that is there is compared with the one that was sent. Only who is certain that another
object has the name is told so, for a publish that is told so deletes its packs.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from hashlib import md5
from typing import Any

from cachepod.errors import CachepodError, ObjectMissing, StoreUnreachable
from cachepod.stores.base import Buffer, Writer
from cachepod.stores.s3condition import is_taken
from cachepod.stores.s3errors import Refusal
from cachepod.stores.s3read import read_range
from cachepod.stores.s3uploads import Blocks, Uploads

_SMALL = 256 * 1024  # bytes of a body that are sent in one go
_COMPARED = 8 * 1024 * 1024
_PARTS = 10_000
_ABORT_WAIT = 2.0  # seconds for parts on their way to notice that they are not wanted any more


class S3Writer(Writer):
    """
    One object on its way to *key*.

    Args:
        name: The object's name, for messages.

        over: Whether an object of this name is replaced, instead of staying as the first.
    """

    def __init__(self, uploads: Uploads, name: str, key: str, *, over: bool = False) -> None:
        self._uploads = uploads
        self._service = uploads.service
        self._name = name
        self._key = key
        self._over_old = over
        self._buffer = bytearray()
        self._size = 0
        self._upload: str | None = None
        self._sent: list[Future[object]] = []
        self._tags: dict[int, str] = {}
        self._failure: CachepodError | None = None
        self._stopped = False
        self._in_doubt = False
        self._over = False

    # Writing

    def write(self, data: Buffer) -> None:
        """As the protocol says; after a failure the same *data* may be given again."""
        self._expect_open()
        view = memoryview(data).cast("B")
        if self._upload is None and len(self._buffer) + len(view) > self._uploads.part_size:
            self._begin()
        self._raise_failure()
        self._size += len(view)
        while view:
            room = self._uploads.part_size - len(self._buffer)
            if room == 0:
                self._send_part()
                continue
            self._buffer += view[:room]
            view = view[room:]

    def _begin(self) -> None:
        answer = self._service.call("create_multipart_upload", None, Key=self._key)
        self._upload = answer["UploadId"]

    def _send_part(self) -> None:
        number = len(self._sent) + 1
        if number > _PARTS:
            raise self._service.unreachable(
                f"{self._name}: an object cannot have more than {_PARTS} parts",
                hint="give a larger part_size in the store's URL",
            )
        data, self._buffer = self._buffer, bytearray()
        self._sent.append(self._uploads.submit(lambda: self._upload_part(number, data)))

    def _upload_part(self, number: int, data: bytearray) -> None:
        """Send one part, in a thread of the pool; a failure is for the writer to raise."""

        def attempt() -> str:
            if self._stopped:
                raise self._service.unreachable(f"{self._name} is not being written any more")
            answer = self._service.call(
                "upload_part",
                None,
                Key=self._key,
                UploadId=self._upload,
                PartNumber=number,
                Body=self._body(data),
            )
            tag: str = answer["ETag"]
            return tag

        try:
            self._tags[number] = self._uploads.patience.try_to(attempt)
        except CachepodError as error:
            if isinstance(error, StoreUnreachable):
                error.transient = False  # it was tried often enough
            self._fail(error)
        except Exception as error:
            self._fail(self._service.unreachable(f"{self._name}: {error!r}"))
            raise

    def _fail(self, error: CachepodError) -> None:
        if self._failure is None:
            self._failure = error
        self._stopped = True

    def _body(self, data: bytearray) -> Any:
        return bytes(data) if len(data) <= _SMALL else Blocks(data, lambda: self._stopped)

    # Committing

    def commit(self) -> bool:
        """As the protocol says; what failed for a passing reason may be tried again."""
        self._expect_open()
        self._raise_failure()
        first = self._put() if self._upload is None else self._complete()
        if first:
            self._over = True
        else:
            self.abort()
        self._buffer = bytearray()
        return first

    def _put(self) -> bool:
        if self._over_old:
            self._put_object()
            return True
        if self._uploads.condition.honoured:
            try:
                self._put_object(IfNoneMatch="*")
                return True
            except CachepodError as error:
                if is_taken(error):
                    return self._was_ours()
                if not _knows_no_condition(error):
                    raise
                self._uploads.condition.refused()
        with self._uploads.lock(self._name):
            if self._stored_size() is not None:
                return self._was_ours()
            self._put_object()
        return True

    def _put_object(self, **condition: str) -> None:
        try:
            self._service.call(
                "put_object", None, Key=self._key, Body=self._body(self._buffer), **condition
            )
        except CachepodError as error:
            self._in_doubt |= _is_unclear(error)
            raise

    def _complete(self) -> bool:
        if self._buffer:
            self._send_part()
        wait(self._sent)
        self._raise_failure()
        if self._in_doubt and self._is_ours():
            return True
        if self._over_old:
            return self._complete_upload()
        with self._uploads.lock(self._name):
            # Also where a condition is honoured, for a PUT may have it and this request not.
            if self._stored_size() is not None:
                return False
            if self._uploads.condition.honoured:
                try:
                    return self._complete_upload(IfNoneMatch="*")
                except CachepodError as error:
                    if is_taken(error):
                        return self._was_ours()
                    if not _knows_no_condition(error):
                        raise
            return self._complete_upload()

    def _complete_upload(self, **condition: str) -> bool:
        parts = [{"PartNumber": n, "ETag": self._tags[n]} for n in sorted(self._tags)]
        try:
            self._service.call(
                "complete_multipart_upload",
                None,
                Key=self._key,
                UploadId=self._upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        except CachepodError as error:
            gone = isinstance(error, Refusal) and error.code == "NoSuchUpload"
            if gone and not self._in_doubt:
                raise self._service.unreachable(
                    f"{self._name}: what was uploaded is gone: somebody removed it as a leftover",
                    hint="publish again",
                ) from error
            if not gone and not _is_unclear(error):
                raise
            self._in_doubt = True
            if self._is_ours():
                return True
            if gone:  # it may take the service a while to show what it has put together
                raise self._service.unreachable(
                    f"{self._name}: it is not known what became of it", transient=True
                ) from error
            raise
        return True

    def _was_ours(self) -> bool:
        """Whether an object in the way is our own, sent in an attempt whose answer was lost."""
        return self._in_doubt and self._is_ours()

    def _is_ours(self) -> bool:
        """Whether what is stored under the name is what was sent."""
        try:
            answer = self._service.call("head_object", self._name, Key=self._key)
        except ObjectMissing:
            return False
        if answer["ContentLength"] != self._size:
            return False
        if self._upload is not None:
            return _may_be(answer.get("ETag", ""), self._tags)
        found = memoryview(bytearray(min(_COMPARED, self._size)))
        for offset in range(0, self._size, _COMPARED):
            part = found[: min(_COMPARED, self._size - offset)]
            read_range(self._service, self._key, self._name, offset, part)
            if part != self._buffer[offset : offset + len(part)]:
                return False
        return True

    def _stored_size(self) -> int | None:
        try:
            answer = self._service.call("head_object", self._name, Key=self._key)
        except ObjectMissing:
            return None
        size: int = answer["ContentLength"]
        return size

    # Ending

    def abort(self) -> None:
        """As the protocol says."""
        if self._over:
            return
        self._over = self._stopped = True
        self._buffer = bytearray()
        for future in self._sent:
            future.cancel()
        if self._upload is None:
            return
        # A part that arrives after the end of its upload would be kept, and paid for.
        wait(self._sent, _ABORT_WAIT)
        try:
            self._service.call("abort_multipart_upload", None, Key=self._key, UploadId=self._upload)
        except CachepodError:
            pass  # a leftover that a prune finds one day

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _expect_open(self) -> None:
        if self._over:
            raise ValueError(f"{self._name} is not being written any more")


def _is_unclear(error: CachepodError) -> bool:
    """Whether a request that failed so may have been carried out."""
    if isinstance(error, Refusal):
        return error.status >= 500
    return isinstance(error, StoreUnreachable)


def _knows_no_condition(error: CachepodError) -> bool:
    return isinstance(error, Refusal) and error.unsupported


def _may_be(tag: str, parts: dict[int, str]) -> bool:
    """
    Whether *tag* may be that of an object made of *parts*, whose size fits.

    Most services make it of the MD5 of the parts' own; where this one does not, it says nothing.
    """
    try:
        digests = b"".join(bytes.fromhex(parts[number].strip('"')) for number in sorted(parts))
    except ValueError:
        return True
    tag = tag.strip('"')
    if len(digests) != 16 * len(parts) or not tag.endswith(f"-{len(parts)}"):
        return True
    expected = md5(digests, usedforsecurity=False).hexdigest()
    return tag == f"{expected}-{len(parts)}"
