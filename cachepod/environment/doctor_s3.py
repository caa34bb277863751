"""
A store in a S3 service: whether it can be reached and used, and what the service really does.

All that is tried is tried with objects of its own below ``probes/``, which are deleted again; the
store itself is not made where it is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cachepod.environment.config import Settings
from cachepod.environment.diagnosis import Check, Severity, failed
from cachepod.environment.doctor_activity import activity, contents
from cachepod.environment.doctor_speed import timed, told
from cachepod.environment.doctor_trust import signed_part
from cachepod.errors import CachepodError, ObjectMissing, UsageProblem
from cachepod.model.names import PROBES
from cachepod.stores.s3client import Service
from cachepod.stores.s3condition import is_taken
from cachepod.stores.s3errors import Refusal, service_time
from cachepod.stores.s3read import read_range, read_whole
from cachepod.stores.s3url import MIB, S3Location
from cachepod.stores.url import open_store
from cachepod.system.urls import masked

_PART = 8 * MIB  # of the sample; it has two
_RANGE = 2 * MIB
_SMALL = bytes(range(256)) * 4
_SKEW = 120.0  # seconds; services refuse from 15 minutes on
_SLOW_LISTING = 2.0


def examine_s3(url: str, settings: Settings | None = None) -> Iterator[Check]:
    """One store: the service, the credentials, the bucket, and what each operation does."""
    try:
        location = S3Location.parse(url)
        store = open_store(url)
    except UsageProblem as error:
        yield failed(masked(url), "store", error)
        return
    about = location.url
    service = Service(location)
    started = time.monotonic()
    try:
        answer = service.call("list_objects_v2", None, Prefix=location.prefix, MaxKeys=1000)
    except CachepodError as error:
        yield failed(about, "service", error)
        return
    took = time.monotonic() - started
    yield Check(
        about,
        "service",
        f"{location.where} answers",
        f"the credentials are good, and the bucket {location.bucket} can be listed",
    )
    yield from _clock(about, answer)
    yield _listing(about, answer, took)
    try:
        yield contents(about, store)
    except CachepodError as error:
        yield failed(about, "contents", error)
        return
    with_objects = _Trial(about, service)
    try:
        yield from with_objects.run()
    finally:
        left = with_objects.clean_up()
    if left:
        yield Check(about, "clean-up", left, "delete it by hand", Severity.WARNING)
    yield from activity(about, store)
    if settings is not None:
        yield from signed_part(about, store, settings)


def _clock(about: str, answer: Any) -> Iterator[Check]:
    theirs = service_time(answer)
    if theirs is None:
        return
    off = time.time() - theirs
    far = abs(off) > _SKEW
    yield Check(
        about,
        "clock",
        "as the service's"
        if abs(off) < 5
        else f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the service's",
        "set this machine's clock: from 15 minutes on the service refuses every request"
        if far
        else "requests are signed with the time; 15 minutes are allowed",
        Severity.WARNING if far else Severity.OK,
    )


def _listing(about: str, answer: Any, took: float) -> Check:
    found = len(answer.get("Contents", ()))
    more = " and more" if answer.get("IsTruncated") else ""
    slow = took > _SLOW_LISTING
    return Check(
        about,
        "listing",
        f"{found}{more} {'object' if found == 1 else 'objects'} in {took:.2f} s",
        "a hit lists nothing; a miss, a publish, ls, stats and prune do"
        + (", and will be slow: keep few snapshots, or prune often" if slow else ""),
        Severity.WARNING if slow else Severity.OK,
    )


class _Trial:
    """Operations tried one after another, on objects that nobody else uses."""

    def __init__(self, about: str, service: Service) -> None:
        self._about = about
        self._service = service
        root = f"{service.location.prefix}{PROBES}/doctor-{os.urandom(8).hex()}"
        self._small, self._copy, self._large = (f"{root}{end}" for end in ("", "-copy", "-large"))
        self._written: set[str] = set()
        self._uploads: list[str] = []

    def run(self) -> Iterator[Check]:
        """What each operation does; those that a first one makes impossible are left out."""
        try:
            self._put(self._small)
        except CachepodError as error:
            yield Check(
                self._about,
                "writable",
                f"no: {getattr(error, 'why', error.message)}",
                error.hint or "snapshots can be restored from it, but not published to it",
                Severity.PROBLEM,
            )
            return
        yield Check(self._about, "writable", "yes", "snapshots can be published")
        yield self._try(
            "ranges",
            self._ranges,
            "a restore reads packs in many ranges at once",
            "nothing can be restored: a pack is read in ranges",
            Severity.PROBLEM,
        )
        yield self._conditional()
        yield self._try(
            "copy",
            self._copied,
            "a manifest can take the place of another, and a damaged one can be set aside",
            "publish --force and setting damaged snapshots aside will fail",
            Severity.PROBLEM,
        )
        yield self._multipart()
        yield self._try(
            "unfinished uploads",
            self._listed_uploads,
            "a prune finds what a killed publish has left",
            "what a killed publish has left takes space until a rule of the bucket removes it",
            Severity.NOTE,
        )
        yield self._try(
            "deletion",
            self._deleted,
            "a prune can make room",
            "nothing can be pruned: allow s3:DeleteObject below the prefix",
            Severity.PROBLEM,
        )

    def _try(
        self, name: str, act: Callable[[], object], works: str, fails: str, severity: Severity
    ) -> Check:
        try:
            why = act()
        except CachepodError as error:
            why = getattr(error, "why", "") or error.message
        if why:
            return Check(self._about, name, f"no: {why}", fails, severity)
        return Check(self._about, name, "works", works)

    def _put(self, key: str, **condition: str) -> None:
        self._written.add(key)
        self._service.call("put_object", None, Key=key, Body=_SMALL, **condition)

    def _ranges(self) -> str:
        part = bytearray(100)
        read_range(self._service, self._small, self._small, 77, memoryview(part))
        return "" if part == _SMALL[77:177] else "the bytes are not those that were asked for"

    def _conditional(self) -> Check:
        """Whether a create on the condition that there is no object yet is one."""
        given = self._service.location.conditional
        honoured, how = False, "ignored: an object that was there was replaced"
        try:
            self._put(self._small, IfNoneMatch="*")
        except CachepodError as error:
            honoured = is_taken(error)
            known = isinstance(error, Refusal) and (error.unsupported or error.status == 400)
            how = (
                "refused: the service does not know If-None-Match"
                if known
                else getattr(error, "why", error.message)
            )
        if given is not None and given != honoured:
            return Check(
                self._about,
                "conditional writes",
                "honoured" if honoured else how,
                f"the store's URL says the contrary: write conditional={_word(honoured)}, or leave "
                "it out",
                Severity.WARNING,
            )
        if honoured:
            return Check(
                self._about,
                "conditional writes",
                "honoured",
                "of two builders or publishers of one key exactly one is first",
            )
        return Check(
            self._about,
            "conditional writes",
            how,
            "who is to build is settled by waiting a moment and looking again; at worst a key is "
            "installed twice, and the later snapshot stays",
            Severity.NOTE,
        )

    def _copied(self) -> str:
        source = {"Bucket": self._service.location.bucket, "Key": self._small}
        self._written.add(self._copy)
        self._service.call("copy_object", None, Key=self._copy, CopySource=source)
        same = read_whole(self._service, self._copy, self._copy, len(_SMALL)) == _SMALL
        return "" if same else "the copy differs"

    def _multipart(self) -> Check:
        """An upload in parts, as packs are written; it is the sample of speed as well."""
        parts = [os.urandom(_PART), os.urandom(_PART)]
        read = bytearray(2 * _PART)
        try:
            writing = timed(lambda: self._upload(parts))
            reading = timed(lambda: self._read_large(memoryview(read)))
        except CachepodError as error:
            return Check(
                self._about,
                "uploads in parts",
                f"no: {getattr(error, 'why', '') or error.message}",
                error.hint or "packs cannot be stored, so nothing can be published",
                Severity.PROBLEM,
            )
        if read != b"".join(parts):
            return Check(
                self._about,
                "uploads in parts",
                "no: other bytes came back",
                "packs would be damaged, so nothing can be published",
                Severity.PROBLEM,
            )
        return told(self._about, 2 * _PART, writing, reading, "two parts, ranges of 2 MiB")

    def _upload(self, parts: list[bytes]) -> None:
        call = self._service.call
        self._written.add(self._large)
        upload = call("create_multipart_upload", None, Key=self._large)["UploadId"]
        self._uploads.append(upload)
        this = {"Key": self._large, "UploadId": upload}

        def send(number: int) -> dict[str, Any]:
            answer = call("upload_part", None, PartNumber=number + 1, Body=parts[number], **this)
            return {"PartNumber": number + 1, "ETag": answer["ETag"]}

        with ThreadPoolExecutor(len(parts)) as pool:
            done = list(pool.map(send, range(len(parts))))
        call("complete_multipart_upload", None, MultipartUpload={"Parts": done}, **this)
        self._uploads.remove(upload)

    def _read_large(self, into: memoryview) -> None:
        def fetch(offset: int) -> None:
            part = into[offset : offset + _RANGE]
            read_range(self._service, self._large, self._large, offset, part)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(fetch, range(0, len(into), _RANGE)))

    def _listed_uploads(self) -> str:
        try:
            self._service.call("list_multipart_uploads", None, Prefix=self._service.location.prefix)
        except Refusal as error:
            if error.code == "NoSuchUpload":  # how some services say that there are none
                return ""
            raise
        return ""

    def _deleted(self) -> str:
        self._service.call("delete_object", None, Key=self._small)
        try:
            self._service.call("head_object", self._small, Key=self._small)
        except ObjectMissing:
            self._written.discard(self._small)
            return ""
        return "an object that was deleted is still there"

    def clean_up(self) -> str:
        """Remove all that was written; what cannot be, in words."""
        left = ""
        for upload in self._uploads:
            try:
                self._service.call("abort_multipart_upload", None, Key=self._large, UploadId=upload)
            except CachepodError:
                left = f"an unfinished upload of {self._large}"
        for key in sorted(self._written):
            try:
                self._service.call("delete_object", key, Key=key)
            except ObjectMissing:
                continue
            except CachepodError:
                left = f"{key} is left"
        return left


def _word(honoured: bool) -> str:
    return "on" if honoured else "off"
