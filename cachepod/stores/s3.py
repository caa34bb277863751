"""
A bucket of a S3 service, or a prefix in it, as a store: one object an object, under its own name.

The layout is that of a directory, so a volume that is mounted here and reached through S3 there
is one store. Services differ in what they honour, so no more is relied on than that an object
appears whole: no listing on the way of a hit, no deletion of many at once, no rename, and
If-None-Match only where it was found to work.

::

    read, read_range    GetObject                       create   PutObject, or the multipart calls
    size                HeadObject                      move     CopyObject, DeleteObject
    list                ListObjectsV2                   delete   DeleteObject
    leftovers           ListMultipartUploads, ListParts remove   AbortMultipartUpload
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from cachepod.errors import CorruptObject, NewerFormat, ObjectMissing
from cachepod.limits import cores, memory
from cachepod.model.names import FORMAT_OBJECT, STORE_FORMAT, is_object_name
from cachepod.stores.base import Buffer, Leftover, ObjectInfo, PruneStore, Writer
from cachepod.stores.founding import (
    FORMAT_DOCUMENT,
    FORMAT_LIMIT,
    TAG,
    TAG_NAME,
    format_version,
    unreadable_format,
)
from cachepod.stores.s3client import Service
from cachepod.stores.s3condition import Condition
from cachepod.stores.s3errors import Refusal, service_time
from cachepod.stores.s3read import read_range, read_whole
from cachepod.stores.s3uploads import Uploads
from cachepod.stores.s3url import MIB, S3Location
from cachepod.stores.s3writer import S3Writer
from cachepod.stores.wrappers import Patience

# Small, for nothing is on its way before a first part is full, and each writer keeps one in memory.
_PART = 16 * MIB
_LEAST_PART = 8 * MIB
_ON_THEIR_WAY = 128 * MIB  # bytes of parts that wait for their answers across a network
_MOST_AT_ONCE = 16
_LARGEST_OBJECT = 2**50  # bytes; larger ones no service has, and some fail at the number
_LOCKS = 64


class S3Store(PruneStore):
    """
    The store at *location*. Nothing is asked of the service before the first call.

    Args:
        location: Bucket, prefix and how to speak to the service.

        patience: How often a part of an upload is tried; the rest is for a wrapper to try again.

    Raises, from every method:
        NewerFormat: A later cachepod made the store.

        StoreUnreachable: The service cannot be reached, or refused.
    """

    def __init__(self, location: S3Location, patience: Patience | None = None) -> None:
        self._location = location
        self._service = Service(location)
        self._condition = Condition(self._service)
        self._patience = patience or Patience()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._format_lock = threading.Lock()
        self._founded: bool | None = None
        self._uploads_lock = threading.Lock()
        self._uploads: Uploads | None = None

    @property
    def url(self) -> str:
        """As the user gave it."""
        return self._location.url

    @property
    def parallel_reads(self) -> int:
        """Some: each read waits for an answer across a network."""
        return self._location.parallel

    # Reading

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says."""
        key = self._key(name)
        self._know_format()
        return read_whole(self._service, key, name, limit)

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says; the bytes go from the connection into *into*."""
        key = self._key(name)
        self._know_format()
        view = into.cast("B")
        if not view or offset + len(view) > _LARGEST_OBJECT:
            self.size(name)
            if view:
                raise CorruptObject(name, f"no object has a byte {offset}")
            return
        read_range(self._service, key, name, offset, view)

    def size(self, name: str) -> int:
        """As the protocol says."""
        key = self._key(name)
        self._know_format()
        size: int = self._service.call("head_object", name, Key=key)["ContentLength"]
        return size

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says."""
        root = self._key(prefix) + "/"
        self._know_format()
        for page in self._pages("list_objects_v2", {"Prefix": root}, ("ContinuationToken",)):
            for found in page.get("Contents", ()):
                name = self._name(found["Key"])
                if name is not None and found["Key"].startswith(root):
                    yield ObjectInfo(name, found["Size"], _seconds(found["LastModified"]))

    # Writing

    @property
    def exclusive(self) -> bool:
        """Whether the service honours If-None-Match; found out at the first need of it."""
        self._know_format()
        return self._condition.honoured

    def create(self, name: str) -> Writer:
        """As the protocol says; the first call makes the store."""
        return self._begin(name, over=False)

    def replace(self, name: str, data: Buffer) -> None:
        """As the protocol says."""
        with self._begin(name, over=True) as writer:
            writer.write(data)
            writer.commit()

    def _begin(self, name: str, *, over: bool) -> S3Writer:
        key = self._key(name)
        self._found()
        return S3Writer(self._writers(), name, key, over=over)

    def move(self, name: str, to: str) -> None:
        """As the protocol says: a copy, then a deletion; between them both names are there."""
        key, target = self._key(name), self._key(to)
        self._know_format()
        if key == target:
            self.size(name)
            return
        source = {"Bucket": self._location.bucket, "Key": key}
        self._service.call("copy_object", name, Key=target, CopySource=source)
        self._delete(key)

    def delete(self, name: str) -> None:
        """As the protocol says."""
        key = self._key(name)
        self._know_format()
        self._delete(key)

    def _delete(self, key: str) -> None:
        try:
            self._service.call("delete_object", key, Key=key)
        except ObjectMissing:
            pass

    def leftovers(self) -> Iterator[Leftover]:
        """As the protocol says: multipart uploads, where the service can list them."""
        self._know_format()
        markers = ("KeyMarker", "UploadIdMarker")
        query = {"Prefix": self._location.prefix}
        try:
            for page in self._pages("list_multipart_uploads", query, markers):
                for upload in page.get("Uploads", ()):
                    name = self._name(upload["Key"])
                    if name is not None and (found := self._leftover(name, upload)):
                        yield found
        except Refusal as error:
            # NoSuchUpload is how some services say that there are none.
            if not error.unsupported and error.code != "NoSuchUpload":
                raise

    def _leftover(self, name: str, upload: Mapping[str, Any]) -> Leftover | None:
        size, last = 0, _seconds(upload["Initiated"])
        now = None
        query = {"Key": self._key(name), "UploadId": upload["UploadId"]}
        try:
            for page in self._pages("list_parts", query, ("PartNumberMarker",)):
                now = service_time(page)
                for part in page.get("Parts", ()):
                    size += part["Size"]
                    last = max(last, _seconds(part["LastModified"]))
        except Refusal as error:
            if error.code != "NoSuchUpload":
                raise
            return None
        return Leftover(name, upload["UploadId"], size, 0.0 if now is None else now - last)

    def remove(self, leftover: Leftover) -> None:
        """As the protocol says."""
        key = self._key(leftover.name)
        try:
            self._service.call(
                "abort_multipart_upload", leftover.name, Key=key, UploadId=leftover.token
            )
        except ObjectMissing:
            pass
        except Refusal as error:
            if error.code != "NoSuchUpload":
                raise

    # The store itself

    def _key(self, name: str) -> str:
        if not is_object_name(name):
            raise ValueError(f"{name!r} is not an object's name")
        return self._location.prefix + name

    def _name(self, key: str) -> str | None:
        """The object's name; None if what has this key is none of the store's."""
        if not key.startswith(self._location.prefix):
            return None
        name = key[len(self._location.prefix) :]
        return name if is_object_name(name) else None

    def _lock(self, name: str) -> threading.Lock:
        return self._locks[hash(name) % _LOCKS]

    def _writers(self) -> Uploads:
        with self._uploads_lock:
            if self._uploads is None or self._uploads.pid != os.getpid():
                part_size, at_once = upload_size(self._location.part_size)
                self._uploads = Uploads(
                    self._service, self._condition, self._patience, part_size, at_once, self._lock
                )
            return self._uploads

    def _know_format(self) -> None:
        """Read ``cachepod.json`` once; a store without one is empty or about to be founded."""
        if self._founded is not None:
            return
        with self._format_lock:
            if self._founded is None:
                self._founded = self._read_format()

    def _read_format(self) -> bool:
        key = self._location.prefix + FORMAT_OBJECT
        where = f"s3://{self._location.bucket}/{key}"
        try:
            data = read_whole(self._service, key, FORMAT_OBJECT, FORMAT_LIMIT)
        except ObjectMissing:
            return False
        except CorruptObject as error:
            raise unreadable_format(self.url, where) from error
        version = format_version(data)
        if version is None:
            raise unreadable_format(self.url, where)
        if version > STORE_FORMAT:
            raise NewerFormat(where, version, STORE_FORMAT)
        return True

    def _found(self) -> None:
        """Make the store unless it is made."""
        self._know_format()
        if self._founded:
            return
        uploads = self._writers()
        with self._format_lock:
            if self._founded:
                return
            for name, data in ((TAG_NAME, TAG), (FORMAT_OBJECT, FORMAT_DOCUMENT)):
                with S3Writer(uploads, name, self._location.prefix + name) as writer:
                    writer.write(data)
                    writer.commit()
            # Another process, of another version, may have been first.
            self._founded = self._read_format()

    def _pages(
        self, operation: str, query: Mapping[str, Any], markers: tuple[str, ...]
    ) -> Iterator[Mapping[str, Any]]:
        """Every page of a listing, each from where the one before it ended."""
        start: dict[str, Any] = {}
        while True:
            page = self._service.call(operation, None, **query, **start)
            yield page
            if not page.get("IsTruncated"):
                return
            following = {
                marker: page[f"Next{marker}"] for marker in markers if page.get(f"Next{marker}")
            }
            if not following or following == start:
                raise self._service.unreachable("a listing does not say where it goes on")
            start = following


def upload_size(asked: int) -> tuple[int, int]:
    """
    Bytes of a part, and parts on their way at once.

    A publish has one writer more than cores, each with a part that fills. Together with those on
    their way they take at most a quarter of the memory that there is.

    Args:
        asked: The part's size as the user wants it, or 0.
    """
    writers, room = cores() + 1, memory() // 4
    size = asked or _PART
    while not asked and size > _LEAST_PART and writers * size + _ON_THEIR_WAY > room:
        size //= 2
    at_once = min(max(writers, _ON_THEIR_WAY // size), _MOST_AT_ONCE)
    while at_once > 2 and (writers + at_once) * size > room:
        at_once -= 1
    return size, at_once


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
